"""What ``bench new-method`` writes: working methods named my-idea, with their tests.

They are ordinary modules, so that they are formatted, typed and tested like the rest. The command
copies their text and puts the new name in place of ``my-idea``, ``my_idea`` and ``MyIdea``.
"""
