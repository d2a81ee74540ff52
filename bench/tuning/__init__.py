"""Search of settings on a validation stream."""
