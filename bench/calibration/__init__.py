"""Calibrate a profile on the machine at hand, and check what it predicts against what is measured.

`bench.calibration.calibrate` measures operators, launch overhead and memory, and makes the
profile; `bench.calibration.validate` predicts whole adaptation steps with it and measures
them, each in a process of its own.
"""
