"""Reading and writing: safe YAML, atomic files, cached weights, text tables."""
