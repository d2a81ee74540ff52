"""The table of where an offloaded sample's time goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.records.record import Amount, Record
from bench.reports.comparison import compare
from bench.reports.further_blocks import sheet
from bench.reports.latency_block import NOTE, latency_block

Make = Callable[..., Record]
PARTS = ("latency_local", "latency_encoding", "latency_transmission")


def offloading(make: Make, seed: int, transmission: float, known: bool = True) -> Record:
    """3 ms on the device, 1 ms of coding, and what transmission takes, in seconds."""
    record = make("agile-nn", seed=seed)

    def amount(value: float | None, unit: str, kind: str = "modelled") -> Amount:
        kind = "unavailable" if value is None else kind
        return Amount(value=value, unit=unit, kind=kind, how="published")

    values = (0.003, 0.001, transmission)
    further: dict[str, Any] = {
        name: amount(value, "s/sample") for name, value in zip(PARTS, values, strict=True)
    }
    further["latency_remote"] = amount(0.0005, "s/sample", "measured")
    further["latency"] = amount(sum(values) + 0.0005 if known else None, "s/sample")
    further["bytes_sent"] = amount(250.0, "B/sample", "measured")
    costs = record.results.costs.model_copy(update=further)
    results = record.results.model_copy(update={"costs": costs})
    return record.model_copy(update={"results": results})


def test_means_over_seeds_with_how_they_are_known(make: Make) -> None:
    (comparison,) = compare([offloading(make, 0, 0.010), offloading(make, 1, 0.020), make("tent")])
    found = latency_block(comparison)
    assert found is not None
    assert found.heads == (
        "method", "device (ms, modelled)", "encoding (ms, modelled)", "link (ms, modelled)",
        "server (ms, measured)", "whole (ms, modelled)", "bytes (B, measured)", "energy (mJ)",
    )  # fmt: skip
    ((name, *cells),) = found.methods
    assert name == "agile-nn"
    assert [cell.split(" ")[0] for cell in cells] == [
        "3.00", "1.00", "15.0", "0.500", "19.5", "250", "–",
    ]  # fmt: skip
    assert NOTE in sheet(comparison).notes


def test_what_is_not_known_is_unavailable(make: Make) -> None:
    (comparison,) = compare([offloading(make, 0, 0.010, known=False)])
    found = latency_block(comparison)
    assert found is not None
    assert found.methods[0][5] == "unavailable"


def test_other_comparisons_have_no_such_table(make: Make) -> None:
    (comparison,) = compare([make("tent")])
    assert latency_block(comparison) is None
