"""Meters of this machine: joules of a window, or the reason why there are none; memory.

Begin with `bench.meters.find.find_meter`; `bench.meters.measurement.measure` is the
whole protocol (idle baseline, warm-up, repeats, intervals) for one piece of work.
Memory of the process is read in `bench.meters.process_memory`.
"""
