"""One cell: from its source model to its results."""
