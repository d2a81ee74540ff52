"""Continual-learning methods that run through Avalanche."""
