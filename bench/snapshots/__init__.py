"""What a method holds: its copy, its content, and whether it changed."""
