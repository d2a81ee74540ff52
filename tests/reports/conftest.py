"""Synthetic records with round numbers, so that tests can state what a report must say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from bench.records.cell import Cell, Component
from bench.records.record import Amount, Costs, DomainResult, MethodFacts, Record, Results

DOMAINS = ("rotation-1", "noise-1", "blur-1", "contrast-1")
NASTY = "<script>alert('x')</script> | 100 % of $HOME & a_b {c} ~ ^ \\ \x1b[31m*red*\nnext"


def code(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_costs(time: float, energy: float | None, memory: float, kind: str) -> Costs:
    how = "profile board x counted step" if kind == "modelled" else "wall clock"

    def amount(value: float | None, unit: str) -> Amount:
        if value is None:
            return Amount(value=None, unit=unit, kind="unavailable", how="no meter is read")
        return Amount(value=value, unit=unit, kind=kind, how=how)

    return Costs(
        adaptation_time=amount(time, "s"),
        adaptation_energy=amount(energy, "J"),
        peak_memory=amount(memory, "B"),
        runtime_memory=amount(1.2e9 if kind == "modelled" else None, "B"),
        source_storage=amount(0.0, "B"),
        inference_time=amount(2e-3, "s/sample"),
        inference_energy=amount(energy, "J"),
        steps={"adapt": 16},
        flops=None,
        bytes=None,
        launches=None,
        tracing_s=0.0,
    )


def make_record(
    method: str = "tent",
    seed: int = 0,
    *,
    before: float = 0.5,
    after: float | list[float] = 0.6,
    final: float = 0.55,
    time: float = 1.5,
    energy: float | None = 12.0,
    memory: float = 50e6,
    kind: str = "modelled",
    status: str = "ok",
    reason: str = "",
    changed: dict[str, Any] | None = None,
    supervised: bool = False,
    device: str = "board",
    version: str = "new",
    stream: dict[str, Any] | None = None,
    stream_version: str = "new",
    protocol: dict[str, Any] | None = None,
    model: str = "small-vit",
    variant: dict[str, Any] | None = None,
    variant_version: str = "new",
    online: float | None = None,
    adapted: float | None = None,
    matrix: list[list[float]] | None = None,
    settings: str = "default",
    provenance: str = "published",
    started: str = "2026-01-02T00:00:00+00:00",
    windows_closed: int = 0,
    **more: Any,
) -> Record:
    """A record; accuracies are fractions, the same on all domains unless ``after`` is a list.

    ``variant``: settings of the compressed model; None: the full one.

    With a ``matrix`` the stream has the first domains, one fewer than the matrix has rows, and
    ``after`` is its diagonal.
    """
    names = DOMAINS if matrix is None else DOMAINS[: len(matrix) - 1]
    afters = after if isinstance(after, list) else [after] * len(names)
    if matrix is not None:
        afters = [matrix[i][i] for i in range(1, len(matrix))]
    cell = Cell(
        method=Component(name=method, config=changed or {}, code=code(method + version)),
        model=Component(name=model, config={"depth": 4}, code=code("model")),
        stream=Component(
            name="digits", config=stream or {"size": 32}, code=code("s" + stream_version)
        ),
        data=code("data"),
        device=device,
        device_digest=code(device),
        protocol=protocol or {"name": "periodic", "window_s": 60.0, "reset": "never"},
        seed=seed,
        target_labels=supervised,
        settings_origin="default" if settings == "none" else settings,
        variant=variant
        and Component(name="compressed", config=variant, code=code("v" + variant_version)),
    )
    results = None
    if status == "ok":
        domains = [
            DomainResult(
                name=name,
                before=before,
                after=value,
                final=final,
                online=online,
                adapted=adapted,
                adaptation_samples=200,
                test_samples=100,
                steps=4,
                time_s=time / len(DOMAINS),
                energy_j=None if energy is None else energy / len(DOMAINS),
                window_closed=i < windows_closed,
            )
            for i, (name, value) in enumerate(zip(names, afters, strict=True))
        ]
        results = Results(
            source_before=0.97,
            source_after=0.95,
            source_samples=200,
            domains=domains,
            matrix=matrix,
            costs=make_costs(time, energy, memory, kind),
        )
    fields: dict[str, Any] = {
        "identity": cell.identity,
        "run": f"run-{cell.identity[:6]}",
        "suite": "domain-shift",
        "status": status,
        "reason": reason,
        "cell": cell,
        "method": MethodFacts(
            family="UDA",
            provenance=provenance,
            paper=f"The authors of {method}, 2021",
            needs=["target_labels"] if supervised else [],
            changed=changed or {},
            settings_origin=settings,
        ),
        "started": started,
        "wall_s": 3.0,
        "log": f"logs/{cell.identity[:6]}.log",
        "environment": {
            "python": "3.11.7",
            "packages": {"torch": "2.9.0"},
            "processor": "Some CPU",
            "argv": ["/home/somebody/secret"],
        },
        "source_model": "aa",
        "results": results,
    }
    return Record(**(fields | more))


def wiggle(seed: int) -> float:
    """-0.02, 0.00, 0.02, -0.01, 0.01 for seeds 0 to 4: mean 0, standard deviation 0.0158."""
    return 0.01 * ((seed * 2) % 5 - 2)


@pytest.fixture(scope="session")
def make() -> Callable[..., Record]:
    return make_record


@pytest.fixture(scope="session")
def nasty() -> str:
    return NASTY


@pytest.fixture(scope="session")
def paper() -> list[Record]:
    """A comparison with everything that can happen to a run, in no particular order."""
    records = []
    for seed in range(5):
        wig = wiggle(seed)
        records += [
            make_record(
                "source-only", seed, before=0.5 + wig, after=0.5 + wig, final=0.5 + wig,
                time=0.0, energy=0.0, memory=8e6,
            ),
            make_record(
                "tent", seed, before=0.52 + wig, after=0.58 + wig, final=0.56,
                energy=12.0 + seed / 10,
            ) if seed != 3 else make_record(
                "tent", seed, status="timeout", reason=NASTY
            ),
            make_record(
                "tent", seed, before=0.53, after=0.61 - wig, final=0.57, time=15.0,
                energy=130.0, changed={"learning_rate": 0.01, "mode": "a|b_c"}, windows_closed=2,
            ),
            make_record("meterless", seed, after=0.55 + 2 * wig, energy=None, memory=70e6),
            make_record(
                "fine-tune", seed, before=0.6, after=0.8 + wig, final=0.75, supervised=True,
                energy=60.0,
            ),
            make_record("tent", seed, version="old", started="2026-01-01T00:00:00+00:00"),
        ]  # fmt: skip
    records += [
        make_record("shot", 0, after=0.63, energy=40.0),
        make_record("shot", 1, status="failed", reason="ValueError: loss is nan"),
        make_record("shot", 2, status="interrupted"),
    ]
    records += [
        make_record(
            "edgeta", seed, status="oom", oom_on="device",
            reason="a train step needs 9000.0 MB on board, which leaves 6900.0 MB",
        )
        for seed in range(2)
    ]  # fmt: skip
    return records[::-1]


@pytest.fixture(scope="session")
def online() -> list[Record]:
    """A comparison under an online protocol, tuned and default settings side by side."""
    protocol = {"name": "online", "window_s": 60.0, "reset": "never", "evaluate_all": False}
    tuned = {"settings": "tuned", "changed": {"learning_rate": 0.00123, "epochs": 3}}
    records = []
    for seed in range(3):
        wig = wiggle(seed)
        records += [
            make_record("source-only", seed, online=0.5 + wig, after=0.5 + wig, final=0.5 + wig,
                        protocol=protocol, settings="none", provenance="chosen-here", energy=0.0),
            make_record("tent", seed, online=0.56 + wig, after=0.6, protocol=protocol),
            make_record("tent", seed, online=0.58 + wig, after=0.62, protocol=protocol, **tuned),
            make_record("eata", seed, online=0.57 + wig / 2, after=0.64, protocol=protocol,
                        provenance="group-harness", **tuned),
        ]  # fmt: skip
    return records


@pytest.fixture(scope="session")
def timed() -> list[Record]:
    """A comparison under a protocol whose stream does not wait."""
    protocol = {"name": "online-timed", "interval_s": 0.5, "batch_size": 50, "reset": "never"}
    records = []
    for seed in range(3):
        wig = wiggle(seed)
        records += [
            make_record("source-only", seed, online=0.5 + wig, adapted=0.0, after=0.5 + wig,
                        final=0.5 + wig, protocol=protocol, settings="none", energy=0.0,
                        provenance="chosen-here"),
            make_record("tent", seed, online=0.56 + wig, adapted=1.0, protocol=protocol),
            make_record("cotta", seed, online=0.51 + wig, adapted=0.125 + wig / 10,
                        protocol=protocol, provenance="group-harness"),
        ]  # fmt: skip
    return records


@pytest.fixture(scope="session")
def matrix() -> list[Record]:
    """A comparison where all domains are evaluated, with settings from everywhere."""
    protocol = {"name": "periodic", "window_s": 60.0, "reset": "never", "evaluate_all": True}
    found = {"learning_rate": 0.00123, "epochs": 3}

    def made(method: str, seed: int, kept: float, **more: Any) -> Record:
        w = wiggle(seed) / 2
        still = [0.9, 0.2 + w, 0.3]
        rows = [still, [kept, 0.7 + w, 0.35], [kept - 0.1, 0.6 + w, 0.8]]
        return make_record(method, seed, protocol=protocol, matrix=rows, **more)

    records = []
    for seed in range(3):
        still = [[0.9, 0.2 + wiggle(seed) / 2, 0.3]] * 3
        records += [
            make_record("source-only", seed, protocol=protocol, matrix=still, energy=0.0,
                        settings="none", provenance="chosen-here"),
            made("tent", seed, 0.6),
            made("tent", seed, 0.7, settings="tuned", changed=found, energy=20.0),
            made("tent", seed, 0.85, settings="oracle", changed={"learning_rate": 0.01}),
            made("eata", seed, 0.8, settings="given", changed={"epochs": 2}, energy=30.0,
                 provenance="group-harness"),
            made("ewc", seed, 0.85, settings="tuned", changed=found, supervised=True),
        ]  # fmt: skip
    return records
