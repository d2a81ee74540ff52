"""Counting: what a step computed, read off the operators that ran, and what is in memory."""
