"""Cells, their records, and the store that holds them."""
