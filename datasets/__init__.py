"""Data sets, shifts and the scenarios made of them."""
