"""What ``bench new-method`` writes, with the new name in place of my-idea, my_idea and MyIdea."""
