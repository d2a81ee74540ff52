"""What a calibration measures, and `bench-probe`, the same for boards that cannot install this.

The modules here need Python 3.6.1 and torch 1.8 and nothing else, and import each other alone:
`bench.calibration` imports them, and `bench device probe` joins them to one file, with the list of
measured calls, which `bench.calibration.probe_file` counts with the tracer of runs.
"""
