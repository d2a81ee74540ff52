"""What ``bench new-method`` and ``new-data`` write, with a new name for my-idea and MyIdea."""
