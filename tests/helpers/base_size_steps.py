"""One adaptation step of methods on a model of base size with random weights, each in a process.

``python base_size_steps.py MODEL SETTINGS CLASSES METHOD...`` prints a line of JSON a method: its
seconds, and the peak of its process's memory, of preparation and step together.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

import torch

from bench import registry
from bench.conformance.method_fixture import unlimited_window
from bench.conformance.model_fixture import ModelFixture
from bench.contracts.data import DomainView, subset
from bench.contracts.model import FoundationModel
from bench.errors import BenchError

SETTINGS: dict[str, dict[str, Any]] = {
    "edgeta": {"lora_steps": 1, "kb_steps": 1, "index_steps": 1, "checkpoints": 1},
    "gem": {"memory_size": 4},
}
BATCH = 2


class BaseSize(ModelFixture):
    """A model with settings of its own."""

    def __init__(self, name: str, settings: dict[str, Any], classes: int) -> None:
        super().__init__(name)
        self.settings, self.given_classes = settings, classes

    @property
    def classes(self) -> int:
        return self.model_class.fixed_classes or self.given_classes

    def view(self, name: str, samples: int) -> DomainView:
        """Random samples with labels, in batches."""
        x = self.inputs(samples)
        with torch.no_grad():
            y = self.model.rules.sample_labels(self.model(x), x, self.classes)
        return DomainView(name, x, y, BATCH, torch.Generator().manual_seed(0))


def step(name: str, model: FoundationModel, source: DomainView, target: DomainView) -> bool:
    """Prepare a method, adapt once and predict; whether predictions are finite."""
    method_class: Any = registry.load("method", name)
    if model.task not in method_class.tasks:
        raise BenchError(f"it does not do {model.task}")
    given = dict(SETTINGS.get(name, {}))
    if name == "edgeta" and getattr(model, "registered_name", "").startswith("sam"):
        given["attention"] = True  # its heads cannot be narrower
    if "epochs" in method_class.Config.model_fields:
        given["epochs"] = 1
    method = method_class(method_class.Config.model_validate(given))
    method.prepare(model, source)
    with unlimited_window(method) as window:
        method.adapt(target, window)
    with torch.no_grad():
        return bool(method.predict(subset(target.x, torch.arange(BATCH))).isfinite().all())


def measured(name: str, model: FoundationModel, source: DomainView, target: DomainView) -> None:
    begun = time.perf_counter()
    try:
        found: dict[str, Any] = {"finite": step(name, model, source, target)}
    except BenchError as error:
        found = {"refused": str(error)}
    found |= {
        "method": name,
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(found), flush=True)


def main() -> None:
    name, settings, classes, *methods = sys.argv[1:]
    torch.set_num_threads(1)
    begun = time.perf_counter()
    fixture = BaseSize(name, json.loads(settings), int(classes))
    parameters = sum(p.numel() for p in fixture.model.module.parameters())
    source, target = fixture.view("source", 5), fixture.view("target", BATCH)
    built = {
        "parameters": parameters,
        "blocks": len(fixture.model.blocks()),
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(built), flush=True)
    for method in methods:
        child = os.fork()
        if not child:
            measured(method, fixture.model.clone(), source, target)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
