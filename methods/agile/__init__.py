"""Offloading: a small part of a network on the device, the rest on a server behind a slow link."""
