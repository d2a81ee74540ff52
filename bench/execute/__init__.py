"""Execution of many cells: one interface, several executors."""
