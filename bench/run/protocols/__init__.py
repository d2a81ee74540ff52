"""Protocols, one file each: in which order a method predicts and adapts along a stream."""
