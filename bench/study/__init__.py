"""From a suite file to the cells that are still to run."""
