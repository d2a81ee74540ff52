"""Executors that start runs on other machines."""
