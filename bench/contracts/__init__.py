"""What a method, model, stream and variant are, and what they are given."""
