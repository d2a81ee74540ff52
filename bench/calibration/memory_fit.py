"""Resident memory of a process as a function of its live memory, fitted to synthetic networks.

A process takes more than its live tensors: freed memory is kept and fragments, and libraries need
scratch space, most of all for convolutions. The peak is modelled as ``stored`` x live bytes at the
step's beginning + ``step`` x bytes that it adds + ``convolution`` x bytes of its largest
convolution + ``added`` bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.calibration.step_timer import Watch
from bench.meters import process_memory as memory
from bench.probe.networks import Network, first_training_step, training_step
from bench.probe.profile import Footprint, fitted

REPEATS = 7
"""Steps over which the peak is taken: as many as in a check, since fragmentation grows."""


NETWORKS = tuple(
    Network(kind, width, depth, batch, trained)
    for kind, width, depth, batch in (
        ("tokens", 192, 12, 8), ("tokens", 768, 4, 2), ("words", 256, 4, 8), ("words", 768, 3, 8),
        ("maps", 32, 2, 8), ("maps", 64, 3, 8), ("inverted", 24, 3, 8),
    )
    for trained in ("none", "all", "norms", "adapters")
    if trained != "adapters" or kind in ("tokens", "words")
)  # fmt: skip
QUICK_NETWORKS = tuple(
    Network(kind, width, 2, 8, trained)
    for kind, width in (("tokens", 256), ("maps", 32))
    for trained in ("none", "all")
)
"""Fewer networks, for a rough profile."""


def warm_runtime(accelerator: str) -> None:
    """Load what a first training step loads, and bring the allocator to where it is later."""
    first_training_step(accelerator)
    memory.long_run()
    memory.settle(accelerator)


def measured_network(request: dict[str, Any]) -> dict[str, Any]:
    """Live and resident bytes at the peak of one network's step, measured in this process."""
    accelerator = request["accelerator"]
    torch.manual_seed(0)
    warm_runtime(accelerator)
    runtime = memory.held_bytes(accelerator)
    network = Network(**request["network"])
    module, x = network.build()
    module, x = module.to(accelerator), x.to(accelerator)
    step, kept = training_step(network, module, x)
    watch = Watch(REPEATS, accelerator)  # for its memory alone
    while not watch.done:
        with watch.step(lambda: kept):
            step()
    trace = watch.seen.trace
    return {
        "stored": trace.resident_bytes,
        "step": trace.peak_bytes - trace.resident_bytes,
        "convolution": max((c[4] for c in trace.details if c[1] == "convolution"), default=0.0),
        "resident": watch.seen.peak_bytes - runtime,
        "runtime": runtime,
    }


Run = Callable[[dict[str, Any]], dict[str, Any]]
"""Measures what a request names in a fresh process."""


def measure_footprint(
    run: Run,
    accelerator: str,
    networks: Sequence[Network],
    progress: Callable[[str], None] = lambda text: None,
) -> Footprint:
    """The footprint fitted to steps of the networks, each measured in its own process."""
    answers = []
    for i, each in enumerate(networks):
        progress(f"memory {i + 1}/{len(networks)}: {each.name}")
        request = {"what": each.name, "network": each._asdict(), "accelerator": accelerator}
        answers.append(run(request))
    seen = [(a["stored"], a["step"], a["convolution"], a["resident"]) for a in answers]
    return fitted(min(a["runtime"] for a in answers), seen)
