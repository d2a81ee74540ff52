"""Estimates of what a method costs, from shapes alone."""
