"""What happens on a store while it happens: for a terminal, and as a page of this machine."""
