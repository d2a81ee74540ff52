"""Figures and summaries of report files: what they draw, of which rows, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_files import texts, written

from bench import BenchError
from bench.records.record import Record
from bench.reports.write import files

Make = Callable[..., Record]


def two_networks(make: Make) -> list[Record]:
    records = []
    for seed, move in enumerate((-0.02, 0.0, 0.02)):
        for model, gain in (("vit", 0.1), ("cnn", 0.3)):
            records += [
                make("source-only", seed, model=model, after=0.5 + move, energy=0.0),
                make("tent", seed, model=model, after=0.5 + gain + move, energy=12.0),
                make("shot", seed, model=model, after=0.55 - move, energy=130.0 + seed),
            ]
        records.append(make("norm", seed, model="vit", status="unsupported", reason="no BN"))
        records.append(make("norm", seed, model="cnn", after=0.7))
    return records


def test_bars_show_every_method_on_every_workload(make: Make, tmp_path: Path) -> None:
    rows = [{"method": "source-only", "name": "None"}, {"method": "tent", "name": "Tent"}, "norm"]
    names = {"vit": "Transformer"}
    made = written(
        tmp_path, two_networks(make), rows=rows, names=names, figures=["bars", "bars-energy"]
    )
    kinds = {name for name in made if name.startswith("figure-")}
    assert kinds == {f"figure-bars{m}.{k}" for m in ("", "-energy") for k in ("png", "pdf", "svg")}
    told = texts(made["figure-bars.svg"])
    for text in ("None", "Tent", "norm", "Transformer", "cnn", "accuracy (%)"):
        assert text in told, text
    assert "shot" not in told
    assert "norm" in told
    # Of three methods on two networks five values, and why the sixth has none.
    assert sorted(t for t in told if re.fullmatch(r"\d+\.\d", t)) == [
        "50.0", "50.0", "60.0", "70.0", "80.0",
    ]  # fmt: skip
    assert told.count("n/a") == 1
    energy = texts(made["figure-bars-energy.svg"])
    assert energy.count("12.0") == 3  # norm's of the helper too
    assert "adaptation energy (J, modelled)" in energy


def test_pairs_are_colored_where_they_can_be_told(make: Make, tmp_path: Path) -> None:
    records = [r for r in two_networks(make) if r.cell.model.name == "vit"]
    made = written(tmp_path, records, figures=["pairwise"])
    (name,) = (n for n in made if n.endswith(".svg"))
    assert name == "figure-pairwise-digits-vit-board.svg"
    told = texts(made[name])
    # tent is 10 points above source-only in every seed; shot moves the other way.
    assert told.count("+10") == 1
    assert told.count("-10") == 1
    assert told.count("+5.0") == 2
    svg = made[name].decode()
    grey = re.findall(r"<text style=\"[^\"]*fill: #8c8c8c[^>]*>([^<]*)<", svg)
    assert len(grey) == 4  # shot against both, in both directions
    one = written(tmp_path / "one", [make("tent", s) for s in range(2)] + [make("shot")],
                  figures=["pairwise"])  # fmt: skip
    assert "figure-pairwise-digits-small-vit-board.svg" in one
    with pytest.raises(
        BenchError, match=r"pairwise cannot be drawn of .*: it has one method; leave"
    ):
        written(tmp_path / "none", [make("tent")], figures=["pairwise"])


def elastic(make: Make, seed: int, **counts: int) -> Record:
    times = {name.replace("__", "."): n for name, n in counts.items()}
    told = {"elastic": {"selections": 12, "tensors": 9, "times_selected": times}}
    return make("elastic-tent", seed, details=told)


def test_what_was_trained_is_the_mean_over_runs(make: Make, tmp_path: Path) -> None:
    records = [
        make("tent"),
        elastic(make, 0, blocks__10__w=12, blocks__2__w=6),
        elastic(make, 1, blocks__10__w=12, norm=3),
    ]
    made = written(tmp_path, records, figures=["trained"])
    told = texts(made["figure-trained-digits-small-vit-board.svg"])
    places = [told.index(name) for name in ("blocks.2.w", "blocks.10.w", "norm")]
    assert places == sorted(places)
    assert "6 of 9 tensors never" in told
    assert told.count("tent") == 0  # it selects nothing
    # Records may list the tensors that were never selected too.
    listed = [make("tent"), elastic(make, 0, blocks__10__w=12, blocks__2__w=6, norm=0, head=0)]
    svg = written(tmp_path / "listed", listed, figures=["trained"])
    told = texts(svg["figure-trained-digits-small-vit-board.svg"])
    assert "7 of 9 tensors never" in told
    assert "head" not in told
    with pytest.raises(BenchError, match=r"trained cannot be drawn of .*: no record tells which"):
        written(tmp_path / "none", [make("tent")], figures=["trained"])


@pytest.mark.parametrize(
    "details",
    [
        {"elastic": {"times_selected": {"w": 3}}},
        {"elastic": {"times_selected": {"w": 3}, "selections": 0}},
        {"elastic": {"times_selected": {"w": 13}, "selections": 12}},
        {"elastic": {"times_selected": {"w": "x"}, "selections": 12}},
        {"elastic": {"times_selected": 7, "selections": 12}, "other": [1]},
    ],
)
def test_details_that_do_not_fit_are_no_selections(
    make: Make, tmp_path: Path, details: dict[str, Any]
) -> None:
    with pytest.raises(BenchError, match="no record tells which tensors"):
        written(tmp_path, [make("tent", details=details)], figures=["trained"])


PERIODIC = {"name": "periodic", "reset": "never"}
TIMED = {"name": "online-timed", "batch_size": 50, "reset": "never"}


@pytest.mark.parametrize(
    ("name", "protocol", "key", "axis"),
    [
        ("window", PERIODIC, "window_s", "window of each domain (s of the device)"),
        ("speed", TIMED, "interval_s",
         "time between batches (s); the stream is faster to the left"),
    ],
)  # fmt: skip
def test_settings_that_differ_in_window_or_speed_alone_are_one_figure(
    make: Make, tmp_path: Path, name: str, protocol: dict[str, Any], key: str, axis: str
) -> None:
    timed = name == "speed"
    records = [
        make(method, seed, after=score, online=score if timed else None,
             protocol={**protocol, key: seconds})
        for method, after in (("source-only", 0.5), ("tent", 0.6))
        for seconds in (10.0, 60.0, 30.0)
        for seed in range(3)
        for score in (after + seconds / 1000 + seed / 100,)
    ]  # fmt: skip
    others = {**protocol, key: 10.0, "reset": "domain"}
    other = make("tent", online=0.5 if timed else None, protocol=others)
    made = written(tmp_path, [*records, other], figures=[name])
    figures = [each for each in made if each.endswith(".svg")]
    assert figures == [f"figure-{name}-digits-small-vit-board.svg"]
    told = texts(made[figures[0]])
    assert [t for t in told if t in ("10", "30", "60")][:3] == ["10", "30", "60"]
    assert {"source-only", "tent", axis} <= set(told)
    if timed:  # whoever asks for all of a store has it too
        names = {path.name for path in files([*records, other], tmp_path / "all")}
        assert figures[0] in names
    one = make("tent", online=0.5, protocol={**protocol, key: 60.0})
    with pytest.raises(
        BenchError,
        match=rf"{name} cannot be drawn: no two settings differ in {key} alone, which is 60 s",
    ):
        written(tmp_path / "one", [one], figures=[name])


def test_summaries_stand_beside_the_tables(make: Make, tmp_path: Path) -> None:
    rows = [{"method": "source-only", "name": "None"}, {"method": "tent", "name": "Tent"}]
    made = written(
        tmp_path, two_networks(make), rows=rows, summaries=["answer", "scenarios", "workloads"],
        max_energy=10,
    )  # fmt: skip
    for name in ("answer", "scenarios", "workloads"):
        assert {f"summary-{name}.{end}" for end in ("tex", "md", "txt")} <= made.keys()
        text = made[f"summary-{name}.txt"].decode()
        assert "Tent" in text
        assert "shot" not in text
    answer = made["summary-answer.md"].decode()
    assert "| Tent | None | distinguishable from all others; 3 pairs, too few" in answer
    assert "Best within adaptation energy up to 10 J" in answer
    assert "Row against column" in made["summary-scenarios.txt"].decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"max_energy": 3}, "key 'max_energy' is of the answer; add answer to 'summaries'"),
        ({"max_energy": -1, "summaries": ["answer"]}, "key 'max_energy': -1 is not"),
        ({"summaries": ["scenarios"]}, "scenarios has nothing to show here: there are no two"),
        ({"summaries": ["anwser"]}, r"key 'summaries.0': 'anwser' is not allowed"),
        ({"numbers": "latex"}, "key 'numbers': 'latex' is not allowed"),
    ],
)
def test_what_is_not_possible_is_said(
    make: Make, tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(BenchError, match=message) as told:
        written(tmp_path, [make("tent"), make("shot")], **content)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_figures_of_many_rows_keep_the_best_ones(make: Make, tmp_path: Path) -> None:
    """A file's rows stand in its own order, and a crowded figure shows the best of them."""
    rows = [f"m{i:02d}" for i in range(14)]
    records = [make(m, s, after=0.3 + i / 50) for i, m in enumerate(rows) for s in range(2)]
    told = texts(
        written(tmp_path, records, rows=rows, figures=["stream"])[
            "figure-stream-digits-small-vit-board.svg"
        ]
    )
    assert [name for name in rows if name in told] == rows[4:]
