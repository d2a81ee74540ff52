"""Scheduling: several applications share one device and one retraining window.

EdgeTA chooses each application's sparsity and share for the highest mean accuracy after the window.
Its scheduler was not published as code; `bench.scheduling.problem` follows its description.
"""
