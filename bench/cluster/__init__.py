"""Executors whose runs happen on other machines, and what those machines do for them."""
