"""Scheduling: several applications share one device and one retraining window.

EdgeTA decides together how sparse each application's proxy is and which share of the device it
gets, so that the mean accuracy after the window is highest. Its scheduler was not published as
code; the formulation here (`bench.scheduling.problem`) follows its description.
"""
