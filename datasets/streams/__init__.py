"""Streams of domains over the data sets."""
