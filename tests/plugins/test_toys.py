"""A method, a stream, a model and a device of one's own, one file each, from end to end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warm_bench import warm_bench

from bench.records.record import Record
from bench.records.store import Store

HERE = Path(__file__).parent

SUITE = """
name: toys
description: nothing but plugins
stream: {name: toy-line, samples: 40}
model: {name: toy-net, width: 8}
protocol: {window_s: 60, batch_size: 8}
methods: [toy-flip, {name: toy-flip, domains: 2}, {name: toy-flip, domains: 0}]
seeds: 1
devices: xavier-nx
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What ``bench run`` printed, and its store."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "tiny.yaml").write_text(SUITE)
    plugins = [f"--plugin={HERE / f'toy_{kind}.py'}" for kind in ("method", "stream", "model")]
    arguments = [
        "run", "--suite", "tiny.yaml", *plugins, "--device", str(HERE / "toy_device.yaml"),
        "--executor", "inline", "--store", "store",
    ]  # fmt: skip
    environment = {**os.environ, "BENCH_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    done = warm_bench().run(arguments, folder, environment, timeout=240)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout, folder / "store"


@pytest.fixture(scope="module")
def records(output: tuple[str, Path]) -> dict[int, Record]:
    """The runs by the number of domains in which decisions are reversed."""
    return {r.cell.method.config["domains"]: r for r in Store(output[1])}


def accuracies(record: Record, when: str) -> list[float]:
    assert record.status == "ok", record.reason
    return [getattr(domain, when) for domain in record.results.domains]


def test_the_model_has_learned_the_streams_source(records: dict[int, Record]) -> None:
    assert records[0].results.source_before == 1.0


def test_the_streams_domains_are_as_hard_as_they_are_made(records: dict[int, Record]) -> None:
    # Where all points have moved to the right every decision is class 1, half of all samples.
    assert [d.name for d in records[0].results.domains] == ["near", "far"]
    for when in ("before", "after", "final"):
        assert accuracies(records[0], when) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("domains", "after", "final"), [(1, [0.0, 0.5], [0.0, 0.5]), (2, [0.0, 0.5], [1.0, 0.5])]
)
def test_the_method_does_what_its_settings_say(
    records: dict[int, Record], domains: int, after: list[float], final: list[float]
) -> None:
    assert accuracies(records[domains], "before")[0] == 1.0
    assert accuracies(records[domains], "after") == after
    assert accuracies(records[domains], "final") == final


@pytest.mark.parametrize("domains", [0, 1, 2])
def test_the_device_charges_a_millisecond_and_a_millijoule_for_a_launch(
    records: dict[int, Record], domains: int
) -> None:
    record = records[domains]
    assert record.cell.device_title == "toy_device"
    # A step has six launches: layer, normalization, tanh, head, and the signs of two tensors.
    expected = [0.006 if i < domains else 0.0 for i in range(2)]
    assert [d.time_s for d in record.results.domains] == pytest.approx(expected)
    assert [d.energy_j for d in record.results.domains] == pytest.approx(expected)
    assert [d.steps for d in record.results.domains] == [round(s / 0.006) for s in expected]


def test_the_table_shows_every_run(output: tuple[str, Path], records: dict[int, Record]) -> None:
    assert set(records) == {0, 1, 2}
    assert output[0].count("toy-flip") >= 3
