"""What an operator of torch does, and what lies in memory."""
