"""Foundation models behind one contract, and surgery on them."""
