"""What happens on a store while it happens: for the command that runs it, for other terminals, and
as a page of this machine.
"""
