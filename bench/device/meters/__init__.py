"""Energy meters: joules of a window on this machine, or the reason why there are none.

Begin with `bench.device.meters.find.find_meter`; `bench.device.meters.protocol.measure` is the
whole protocol (idle baseline, warm-up, repeats, intervals) for one piece of work.
"""
