"""Devices: profiles, counted step costs and the clocks that charge them."""
