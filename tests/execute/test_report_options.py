"""Options of `bench report` on real runs: reference, margin, default beside tuned, stores."""

from __future__ import annotations

import csv

import pytest
import yaml

SHOT = {
    "settings": {"epochs": 2, "optimizer": "adamw", "schedule": "constant"},
    "score": 0.5, "default_score": 0.4, "trials": 2, "code": "0" * 64,
}  # fmt: skip
TUNED = {
    "command": "bench tune", "version": "0", "optuna": "0", "suite": "tiny",
    "stream": "digits-shift", "validation": {"part": "validation"}, "model": "tiny",
    "protocol": {"name": "periodic"}, "device": "xavier-nx", "data": "0" * 64, "trials": 2,
    "seeds": [0, 1],
}  # fmt: skip


def rows(folder):
    """Lines of the one CSV of a report, by the row's label and settings."""
    (file,) = folder.glob("table-*.csv")
    return {(r["method"], r["settings"]): r for r in csv.DictReader(file.open())}


@pytest.fixture
def done(workplace):
    """shot and source-only with default settings in one store, and with tuned ones in another."""
    run = ("run", "--methods", "source-only,shot", "--jobs", "2")
    workplace.run(*run)
    (workplace.folder / "tiny.tuned.yaml").write_text(
        yaml.safe_dump({**TUNED, "methods": {"shot": SHOT}})
    )
    workplace.run(*run, "--store", "tuned-store")
    return workplace


def test_reference_default_beside_tuned_and_a_further_store(done):
    plain = done.run("report", "--out", "plain")  # the suite's settings are tuned ones by now
    assert list(rows(done.folder / "plain")) == [("source-only", "none")]
    assert "shot" in plain.stderr

    done.run(
        "report", "--methods", "source-only,shot", "--out", "both", "--reference", "shot",
        "--default-beside-tuned", "--with-store", "tuned-store",
    )  # fmt: skip
    found = rows(done.folder / "both")
    assert list(found) == [
        ("source-only", "none"), ("shot [default]", "default"), ("shot [tuned]", "tuned"),
    ]  # fmt: skip
    tuned, default = found[("shot [tuned]", "tuned")], found[("shot [default]", "default")]
    assert tuned["reference"] == "shot [tuned]"
    gap = float(default["score_percent"]) - float(tuned["score_percent"])
    assert float(default["to_reference_percent"]) == pytest.approx(gap, abs=1e-3)
    assert default["to_reference_percent_n"] == "2"
    (table,) = (done.folder / "both").glob("table-*.md")
    assert "**Tuned beside default (%)**" in table.read_text()

    for given, said in (
        (("--reference", "tnet"), "reference 'tnet': no row with results has this method"),
        (("--margin", "-1"), "--margin -1: give points from 0 to below 100, as 1"),
        (("--margin", "nan"), "--margin nan: give points from 0 to below 100, as 1"),
        (("--with-store", "nowhere"), "--store nowhere: no records there"),
        (("--default-beside-tuned", "--untuned"), "--untuned: give one of them"),
    ):
        told = done.run("report", "--methods", "source-only", *given, code=2).stderr
        assert f"{said}" in told
        assert told.splitlines()[-1].startswith("bench: ")
