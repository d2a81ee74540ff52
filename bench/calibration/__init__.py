"""Calibrate a device profile on this machine, and compare its predictions with measurements.

`bench.calibration.calibrate` measures operators, launch overhead and memory and makes the profile
from them; `bench.calibration.validate` predicts whole adaptation steps with it and measures them,
each in its own process.
"""
