"""Where modules and names of earlier versions are now, for plugins that still import them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.errors import BenchError

MODULES = {
    "bench.batch": "bench.contracts.data",
    "bench.cache": "bench.io.weights_cache",
    "bench.cell": "bench.records.cell",
    "bench.check": "bench.conformance",
    "bench.columns": "bench.io.text_table",
    "bench.counted": "bench.estimate.counted",
    "bench.datasets.digits_apps": "bench.datasets.streams.digits_apps",
    "bench.datasets.digits_shift": "bench.datasets.streams.digits_shift",
    "bench.datasets.digits_tasks": "bench.datasets.streams.digits_tasks",
    "bench.datasets.shifts": "bench.datasets.corruptions",
    "bench.device.bill": "bench.costs.tracker",
    "bench.device.calibration": "bench.calibration",
    "bench.device.cost": "bench.costs.pricing",
    "bench.device.curves": "bench.costs.speed_curves",
    "bench.device.formulas": "bench.costs.flop_formulas",
    "bench.device.kinds": "bench.costs.operator_kinds",
    "bench.device.meters": "bench.meters",
    "bench.device.profile": "bench.costs.device_profile",
    "bench.device.trace": "bench.costs.step_tracer",
    "bench.device.uncounted": "bench.contracts.untraced",
    "bench.digest": "bench.io.digest",
    "bench.environment": "bench.records.environment",
    "bench.fit": "bench.estimate.fit",
    "bench.method": "bench.contracts.method",
    "bench.methods.alignment": "bench.methods._alignment",
    "bench.methods.avalanche_loop": "bench.methods.avalanche.loop",
    "bench.methods.avalanche_memory": "bench.methods.avalanche.memory",
    "bench.methods.avalanche_plugins": "bench.methods.avalanche.plugins",
    "bench.methods.supervised": "bench.methods._supervised",
    "bench.methods.teacher": "bench.methods._teacher",
    "bench.methods_page": "bench.docgen.methods_page",
    "bench.model": "bench.contracts.model",
    "bench.models.distillation": "bench.models.surgery.distillation",
    "bench.models.gates": "bench.models.surgery.gates",
    "bench.models.heads": "bench.models.surgery.heads",
    "bench.models.linear": "bench.models.surgery.linear",
    "bench.models.lora": "bench.models.surgery.lora",
    "bench.models.low_rank": "bench.models.surgery.low_rank",
    "bench.models.neurons": "bench.models.surgery.neurons",
    "bench.models.proxy": "bench.models.surgery.proxy",
    "bench.models.pruning": "bench.models.surgery.pruning",
    "bench.pace": "bench.run.stream_clock",
    "bench.plan": "bench.study.plan",
    "bench.protocol": "bench.run.protocols.base",
    "bench.record": "bench.records.record",
    "bench.scenario": "bench.contracts.stream",
    "bench.schedule": "bench.scheduling",
    "bench.settings": "bench.contracts.settings",
    "bench.source": "bench.run.source_model",
    "bench.state": "bench.contracts.state",
    "bench.store": "bench.records.store",
    "bench.suite": "bench.study.suite",
    "bench.times": "bench.study.time_estimates",
    "bench.tune": "bench.tuning.tune",
    "bench.tuned": "bench.study.tuned_settings",
    "bench.variant": "bench.contracts.variant",
    "bench.window": "bench.run.window",
    "bench.yaml_file": "bench.io.safe_yaml",
}
"""Old module to new module; what lay below it lies below the new one."""
NAMES = {
    ("bench", "Scenario"): ("bench", "Stream"),
    ("bench.device.bill", "Meter"): ("bench.costs.tracker", "CostTracker"),
    ("bench.methods.avalanche", "AvalancheMethod"): (
        "bench.methods.avalanche.method",
        "AvalancheMethod",
    ),
    ("bench.digest", "code_digest"): ("bench.registry.component_code", "code_digest"),
    ("bench.methods.tent", "affine_parameters"): ("bench.methods._losses", "affine_parameters"),
    ("bench.methods.tent", "entropy"): ("bench.methods._losses", "entropy"),
    ("bench.methods.tent", "widened"): ("bench.methods._losses", "widened"),
    ("bench.protocol", "ProtocolConfig"): ("bench.contracts.protocol", "ProtocolConfig"),
    ("bench.run", "Job"): ("bench.study.job", "Job"),
    ("bench.run", "run_job"): ("bench.run.run_cell", "run_job"),
    ("bench.run", "unsupported"): ("bench.run.applicability", "unsupported"),
    ("bench.scenario", "Scenario"): ("bench.contracts.stream", "Stream"),
    ("bench.scenario", "ScenarioConfig"): ("bench.contracts.stream", "StreamConfig"),
    ("bench.store", "write_atomically"): ("bench.io.atomic_write", "write_atomically"),
}
"""Old (module, name) to the new one, where a name left its module or is called otherwise."""


@cache
def require_current_imports(file: Path) -> None:
    """Raise BenchError if a plugin imports what has moved, with its line and the new place.

    Imports inside ``try`` are left alone: such a plugin serves several versions.
    """
    from bench import __all__ as facade

    for line, module, name in _imports(ast.parse(file.read_text(encoding="utf-8"))):
        place, called = NAMES.get((module, name), (_new_module(module), name))
        if place is not None:
            place = "bench" if called in facade else place
            raise BenchError(
                f"plugin {file}, line {line}: {_statement(module, name)!r} has moved; write "
                f"{_statement(place, called)!r}"
            )


def _imports(node: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of each absolute import; the name is empty for a whole module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name, "") for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield from ((child.lineno, child.module, alias.name) for alias in child.names)
        elif not isinstance(child, ast.Try):
            yield from _imports(child)


def _statement(module: str, name: str) -> str:
    return f"from {module} import {name}" if name else f"import {module}"


def _new_module(old: str) -> str | None:
    prefix, rest = old, ""
    while prefix:
        if prefix in MODULES:
            return MODULES[prefix] + rest
        prefix, _, last = prefix.rpartition(".")
        rest = f".{last}{rest}"
    return None
