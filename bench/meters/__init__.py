"""Energy meters: joules of a window on this machine, or the reason why there are none.

Begin with `bench.meters.find.find_meter`; `bench.meters.measurement.measure` is the
whole protocol (idle baseline, warm-up, repeats, intervals) for one piece of work.
"""
