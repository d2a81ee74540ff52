"""Data sets, shifts and the streams made of them."""
