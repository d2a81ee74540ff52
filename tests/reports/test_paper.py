"""Report files: a paper's tables and figures, what is marked, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_files import written

from bench import BenchError
from bench.records.record import Amount, ProfileError, Record
from bench.reports.comparison import compare
from bench.reports.paper import Paper
from bench.reports.report_file import read_report_file
from bench.reports.table_columns import MODEL_ERROR, column_of, marks_of

Make = Callable[..., Record]
GOLDEN = Path(__file__).parent / "golden"
MOVES = (-0.02, 0.0, 0.02, -0.01, 0.01)


def some(make: Make) -> list[Record]:
    """Two devices with every kind of cell; tent leads, shot is second, eata cannot be told."""
    records = []
    for seed, move in enumerate(MOVES):
        for device in ("nano", "xavier"):
            on: dict[str, Any] = {"device": device}
            records += [
                make("source-only", seed, after=0.5 + move, time=0.0, energy=0.0, memory=8e6, **on),
                make("tent", seed, after=0.7 + move, energy=12.0, **on),
                make("shot", seed, after=0.6 + move, energy=130.0 + seed, time=15.0, **on),
                make("eata", seed, after=0.55 - move, energy=12.5, memory=70e6, **on),
                make("dark", seed, after=0.55 + move, energy=None, **on),
                make("fine-tune", seed, after=0.9, supervised=True, **on),
            ]
    records += [
        make("big", seed, device="nano", status="oom", reason="needs 9 GB") for seed in (0, 1)
    ]
    records += [
        make("lame", 0, device="xavier", status="unsupported", reason="needs a linear head")
    ]
    return records


def report_file(folder: Path, content: dict[str, Any], name: str = "paper.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


WHOLE: dict[str, Any] = {
    "title": "Adaptation on two boards",
    "names": {"nano": "Orin Nano", "energy": "energy"},
    "columns": ["accuracy", "difference", "energy", "memory", "runs"],
    "rows": [
        {"method": "source-only", "name": "No adaptation", "group": "Reference"},
        {"method": "tent", "name": "Tent (ICLR 2021)", "group": "Test-time adaptation"},
        {"method": "shot", "name": "SHOT & co", "group": "Test-time adaptation"},
        {"method": "dark", "group": "Test-time adaptation"},
        {"method": "big", "group": "Test-time adaptation"},
        {"method": "lame", "group": "Test-time adaptation"},
        {"method": "fine-tune", "name": "Fine-tuning", "group": "With labels"},
    ],
}


def write(folder: Path, records: list[Record], content: dict[str, Any]) -> dict[str, str]:
    """The text files that a report file makes, by name."""
    paper = Paper(report_file(folder, content))
    paths = paper.write(paper.choose(records), folder / "out")
    return {
        p.name: p.read_text(encoding="utf-8")
        for p in paths
        if p.suffix not in (".png", ".pdf", ".svg")
    }


@pytest.mark.parametrize("form", ["long", "wide"])
def test_golden(make: Make, tmp_path: Path, form: str) -> None:
    made = write(tmp_path, some(make), WHOLE | {"form": form})
    assert sorted(made) == [f"paper.{end}" for end in ("csv", "json", "md", "tex", "txt")]
    for end in ("txt", "md", "tex", "csv", "json"):
        path = GOLDEN / f"paper-{form}.{end}"
        if os.environ.get("BENCH_UPDATE_GOLDEN"):
            path.write_text(made[f"paper.{end}"], encoding="utf-8")
        assert made[f"paper.{end}"] == path.read_text(encoding="utf-8")


def test_a_second_run_gives_the_same_bytes(make: Make, tmp_path: Path) -> None:
    path = report_file(tmp_path, WHOLE | {"figures": ["tradeoff"]})
    records = some(make)
    first = Paper(path).write(records, tmp_path / "a")
    second = Paper(path).write(records[::-1], tmp_path / "b")
    assert [p.name for p in first] == [p.name for p in second]
    assert len(first) == 5 + 2 * 3 + 1  # formats of the table and figures, captions
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


# --- what is marked ----------------------------------------------------------------------


def marks(records: list[Record], column: str = "accuracy") -> dict[str, str]:
    (comparison,) = compare(records)
    return marks_of(column_of(column, comparison), comparison.rows)


def runs(make: Make, method: str, scores: list[float], **more: Any) -> list[Record]:
    return [make(method, seed, after=score, **more) for seed, score in enumerate(scores)]


def test_best_and_second_are_marked_where_they_can_be_told(make: Make) -> None:
    records = [
        *runs(make, "source-only", [0.9, 0.9, 0.9]),
        *runs(make, "tent", [0.70, 0.71, 0.72]),
        *runs(make, "shot", [0.60, 0.615, 0.62]),
        *runs(make, "eata", [0.50, 0.51, 0.525]),
        *runs(make, "fine-tune", [0.95, 0.96, 0.97], supervised=True),
    ]
    assert marks(records) == {"tent": "best", "shot": "second"}


def test_what_cannot_be_told_is_not_marked(make: Make) -> None:
    tent, shot = runs(make, "tent", [0.70, 0.71, 0.72]), runs(make, "shot", [0.72, 0.70, 0.68])
    eata = runs(make, "eata", [0.50, 0.51, 0.525])
    assert marks([*tent, *shot, *eata]) == {}
    # The best is distinguishable from both, the other two are not from each other.
    other = runs(make, "other", [0.525, 0.505, 0.49])
    assert marks([*tent, *eata, *other]) == {"tent": "best"}
    # A single seed, and two, tell nothing.
    for n in (1, 2):
        assert marks([*tent[:n], *eata[:n]]) == {}
    assert marks(tent) == {}


def test_the_best_is_told_from_every_row_and_not_the_next_alone(make: Make) -> None:
    records = [
        *runs(make, "tent", [0.70, 0.70, 0.70]),
        *runs(make, "shot", [0.69, 0.69, 0.69]),
        *runs(make, "wild", [0.90, 0.30, 0.60]),
    ]
    assert marks(records) == {}
    assert marks(records[:6]) == {"tent": "best"}


def test_of_costs_less_is_better_and_the_model_must_tell_them_apart(make: Make) -> None:
    def costing(*energies: float) -> list[Record]:
        return [
            make(f"m{i}", seed, energy=energy)
            for i, energy in enumerate(energies)
            for seed in range(3)
        ]

    assert MODEL_ERROR == 0.15
    assert marks(costing(10.0, 12.0, 20.0), "energy") == {"m0": "best", "m1": "second"}
    assert marks(costing(10.0, 11.0, 20.0), "energy") == {}
    measured = [make(m, s, energy=e, kind="measured") for s in range(3) for m, e in
                (("m0", 10.0), ("m1", 11.0))]  # fmt: skip
    assert marks(measured, "energy") == {"m0": "best"}


def test_a_stated_error_of_the_profile_counts_where_it_is_more(make: Make, tmp_path: Path) -> None:
    def costing(error: float) -> list[Record]:
        told = ProfileError(energy=error, source="measured by somebody")
        records = []
        for name, energy in (("m0", 10.0), ("m1", 12.0)):
            for seed in range(3):
                record = make(name, seed, energy=energy)
                assert record.results is not None
                costs = record.results.costs.model_copy(update={"profile_error": told})
                results = record.results.model_copy(update={"costs": costs})
                records.append(record.model_copy(update={"results": results}))
        return records

    assert marks(costing(0.05), "energy") == {"m0": "best"}
    assert marks(costing(0.16), "energy") == {"m0": "best"}  # 12 J less 16.7 % are 10 J
    assert marks(costing(0.17), "energy") == {}
    paper = written(tmp_path, costing(0.16), columns=["energy"])["paper.md"].decode()
    assert "more than 15 %, or the error that their profile states." in paper


def test_marks_hold_within_a_setting(make: Make, tmp_path: Path) -> None:
    records = [
        *runs(make, "tent", [0.70, 0.71, 0.72], device="a"),
        *runs(make, "shot", [0.50, 0.51, 0.525], device="a"),
        *runs(make, "tent", [0.30, 0.31, 0.32], device="b"),
        *runs(make, "shot", [0.40, 0.41, 0.425], device="b"),
    ]
    for form in ("long", "wide"):
        (tmp_path / form).mkdir()
        made = write(tmp_path / form, records, {"columns": ["accuracy"], "form": form})
        rows = json.loads(made["paper.json"])["rows"]
        found = [(row["name"], [cell.get("mark") for cell in row["cells"]]) for row in rows]
        if form == "wide":
            assert found == [("tent", ["best", ""]), ("shot", ["", "best"])]
        else:
            assert found == [("tent", ["best"]), ("shot", [""]), ("tent", [""]), ("shot", ["best"])]


# --- what stands in the files ------------------------------------------------------------


def test_rows_are_chosen_renamed_and_grouped(make: Make, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="row 'lame': no record is of it"):
        write(tmp_path, some(make), WHOLE | {"devices": ["nano"]})
    tables = [{"name": "one", "devices": ["nano"]}, {"name": "other", "devices": ["xavier"]}]
    made = write(tmp_path, some(make), WHOLE | {"tables": tables})
    made = {name.replace("one", "paper"): text for name, text in made.items()}
    rows = list(csv.DictReader(io.StringIO(made["paper.csv"])))
    assert [(row["method"], row["name"], row["group"]) for row in rows][:3] == [
        ("source-only", "No adaptation", "Reference"),
        ("tent", "Tent (ICLR 2021)", "Test-time adaptation"),
        ("shot", "SHOT & co", "Test-time adaptation"),
    ]
    assert float(rows[1]["accuracy_percent"]) == pytest.approx(70.0)
    assert (rows[1]["accuracy_mark"], rows[4]["accuracy_code"]) == ("best", "oom")
    assert rows[5]["accuracy_code"] == "–"  # lame was not run on this device
    assert r"SHOT \& co" in made["paper.tex"]
    assert "eata" not in made["paper.txt"]
    assert "big, seeds 0, 1: oom: needs 9 GB" in made["paper.md"]


def test_captions_say_what_the_numbers_are(make: Make, tmp_path: Path) -> None:
    records = [
        record.model_copy(
            update={"environment": {"commit": "abcdef1234567890", "packages":
                                    {"edge-adaptation-bench": "0.2.0"}}}
        )
        for record in some(make)
    ]  # fmt: skip
    caption = json.loads(write(tmp_path, records, WHOLE)["paper.json"])["caption"]
    for told in (
        "Adaptation on two boards. Accuracy: once adapted, mean over the target domains.",
        "Mean over seeds 0-4; ±: half of the 95 % Student-t interval over seeds on one draw of",
        "Suite: domain-shift. Model: small-vit. Devices: nano, xavier.",
        "Costs are modelled. ± of modelled costs is their spread over runs, not the model's error.",
        "Benchmark 0.2.0, commit abcdef1234.",
        "excludes 0, and modelled costs differ by more than 15 %.",
    ):
        assert told in caption, told
    one = write(tmp_path, [make("tent"), make("shot", after=0.7)], {})
    told = json.loads(one["paper.json"])["caption"]
    assert "One run of each method (seed 0): no interval." in told
    assert "Nothing is marked as best: no method is distinguishable from all others." in told


def test_several_tables_share_what_the_file_says(make: Make, tmp_path: Path) -> None:
    content = WHOLE | {
        "tables": [
            {"name": "main"},
            {"name": "costs", "title": "Costs", "columns": ["time", "energy"], "devices": ["nano"],
             "rows": ["tent", "shot"]},
        ]
    }  # fmt: skip
    made = write(tmp_path, some(make), content)
    assert {Path(name).stem for name in made} == {"main", "costs"}
    costs = json.loads(made["costs.json"])
    assert [column["column"] for column in costs["columns"]] == ["time", "energy"]
    assert [row["name"] for row in costs["rows"]] == ["tent", "shot"]
    assert json.loads(made["main.json"])["title"] == "Adaptation on two boards"


def test_a_suite_is_a_table_of_its_own_where_settings_are_shared(
    make: Make, tmp_path: Path
) -> None:
    records = [make("tent", s, suite="a") for s in range(3)] + [make("shot", 0, suite="b")]
    tables = [{"name": name, "suites": [name], "columns": ["accuracy"]} for name in ("a", "b")]
    made = write(tmp_path, records, {"tables": tables})
    names = {n: [row["name"] for row in json.loads(made[f"{n}.json"])["rows"]] for n in "ab"}
    assert names == {"a": ["tent"], "b": ["shot"]}


def test_columns_alone_make_one_table(make: Make, tmp_path: Path) -> None:
    paths = Paper(None, ["accuracy", "energy"]).write(some(make), tmp_path)
    assert [path.name for path in paths] == [
        f"table.{e}" for e in ("tex", "md", "txt", "csv", "json")
    ]
    columns = json.loads((tmp_path / "table.json").read_text())["columns"]
    assert [(c["column"], c["unit"], c["better"]) for c in columns] == [
        ("accuracy", "%", "higher"), ("energy", "J", "lower"),
    ]  # fmt: skip


def test_numbers_in_latex_are_aligned_and_restylable(make: Make, tmp_path: Path) -> None:
    made = write(tmp_path, some(make), WHOLE)["paper.tex"]
    assert r"\providecommand{\benchbest}[1]{\textbf{#1}}" in made
    assert r"\benchbest{70.0}" in made
    # 12.0 below 0 and 132: what has fewer decimals is padded to the same point.
    assert re.search(r"& 0\\phantom\{\.0\} &", made)
    assert r"12.0 & " in made or r"\benchbest{12.0}" in made
    assert made.isascii()
    assert r"accuracy \benchup" in made
    assert r"energy \benchdown" in made
    assert r"\benchcode{oom}" in made
    assert made.count(r"\begin{\benchenv}") == 1


def test_two_hundred_methods_and_long_names_fit(make: Make, tmp_path: Path) -> None:
    records = [make(f"m{i:03d}", after=0.3 + i / 1000) for i in range(200)]
    records += [make("n" * 300, after=0.2), make("שיטה‮evil", after=0.1)]
    made = write(tmp_path, records, {"columns": ["accuracy"]})
    assert made["paper.tex"].count(r"\begin{\benchenv}") == 6
    assert made["paper.tex"].count(r"\toprule") == 6
    assert max(map(len, made["paper.txt"].splitlines())) <= 120
    for text in made.values():
        assert "‮" not in text  # no sign that turns the direction of a terminal's text
    assert len(list(csv.DictReader(io.StringIO(made["paper.csv"])))) == 202


def test_reasons_with_odd_numbers_are_text(make: Make, tmp_path: Path) -> None:
    records = [
        make("tent"),
        make("shot", status="failed", reason=f"loss is {math.nan}"),
        make("eata", energy=None),
    ]
    made = write(tmp_path, records, {"columns": ["accuracy", "energy"]})
    cells = {row["name"]: row["cells"] for row in json.loads(made["paper.json"])["rows"]}
    assert cells["shot"] == [{"code": "failed"}, {"code": "failed"}]
    assert cells["eata"][1] == {"code": "unav."}
    assert "No result: shot, seed 0: failed: loss is nan" in made["paper.txt"]


def test_a_suite_that_changed_between_records_makes_two_settings(
    make: Make, tmp_path: Path
) -> None:
    other = {"name": "periodic", "window_s": 30.0, "reset": "never"}
    records = [make("tent", s) for s in range(2)] + [
        make("tent", s, protocol=other) for s in (0, 1)
    ]
    rows = json.loads(write(tmp_path, records, {})["paper.json"])["rows"]
    assert sorted(row["setting"] for row in rows) == [
        "protocol.window_s=30.0", "protocol.window_s=60.0",
    ]  # fmt: skip


def test_measured_and_modelled_say_which(make: Make, tmp_path: Path) -> None:
    record = make("tent", kind="measured", device="host")
    assert record.results is not None
    modelled = Amount(value=1.0, unit="J", kind="modelled", how="profile")
    record.results.costs = record.results.costs.model_copy(update={"adaptation_energy": modelled})
    made = write(tmp_path, [record], {"columns": ["time", "energy"]})
    units = [column["unit"] for column in json.loads(made["paper.json"])["columns"]]
    assert units == ["s, measured", "J, modelled"]


# --- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tilte": "x"}, r"paper.yaml: key 'tilte': unknown; did you mean 'title'\?"),
        ({"rows": [{"methd": "tent"}]}, r"key 'rows.0.methd': unknown; did you mean 'method'\?"),
        (
            {"rows": [{"method": "tent", "grup": "x"}]},
            r"key 'rows.0.grup': unknown; did you mean 'group'\?",
        ),
        (
            {"tables": [{"name": "a", "colums": ["time"]}]},
            r"key 'tables.0.colums': unknown; did you mean 'columns'\?",
        ),
        ({"columns": ["acuracy"]}, r"column 'acuracy' is unknown; did you mean 'accuracy'\?"),
        ({"columns": ["energy", "energy"]}, r"column 'energy' is given twice; remove one"),
        (
            {"columns": ["forward_transfer"]},
            r"column 'forward_transfer': no record has it; leave it out \(of accuracies these have "
            r"after, before",
        ),
        ({"columns": []}, r"key 'columns': \[\] is not allowed"),
        ({"rows": ["tnet"]}, r"row 'tnet': no record is of it; did you mean 'tent'\?"),
        (
            {"rows": [{"method": "tent", "settings": "tuned"}]},
            r"row 'tent': none has tuned settings; leave 'settings' out",
        ),
        ({"devices": ["nanno"]}, r"key 'devices': no record is of 'nanno'; did you mean 'nano'\?"),
        ({"suites": ["smoke"]}, r"key 'suites': no record is of 'smoke'; known: domain-shift"),
        ({"seeds": [7]}, r"key 'seeds': no record is of 7; known: 0, 1, 2, 3, 4"),
        (
            {"names": {"xaver": "Xavier"}},
            r"nothing here is called 'xaver'; did you mean 'xavier'",
        ),
        ({"form": "tall"}, r"key 'form': 'tall' is not allowed: input should be 'long' or 'wide'"),
        ({"figures": ["pie"]}, r"key 'figures.0': 'pie' is not allowed: input should be 'stream'"),
        (
            {"tables": [{"name": "a"}, {"name": "a"}]},
            r"key 'tables': two are called 'a'; rename one",
        ),
        (
            {"figures": ["matrix"]},
            "key 'figures': matrix cannot be drawn of .*: no run knows the accuracy on all",
        ),
        (
            {"devices": ["nano"], "suites": ["domain-shift"], "models": ["other"]},
            r"key 'models': no record is of 'other'; did you mean|known: small-vit",
        ),
    ],
)
def test_mistakes_are_named_with_their_cure(
    make: Make, tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(BenchError, match=message) as told:
        write(tmp_path, some(make), content)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_a_method_with_several_rows_must_be_told_which(
    online: list[Record], tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=r"row 'tent': .* has 2 rows of it \('tent \[tuned\]', "):
        write(tmp_path, online, {"rows": ["tent"]})
    for row in ("tent [tuned]", {"method": "tent", "settings": "tuned"}):
        made = json.loads(write(tmp_path, online, {"rows": [row]})["paper.json"])
        assert made["rows"][0]["labels"] == ["tent [tuned]"]


def test_files_that_are_none(tmp_path: Path, make: Make) -> None:
    with pytest.raises(BenchError, match=r"report file smoke: is no .yaml file"):
        read_report_file(Path("smoke"))
    with pytest.raises(BenchError, match=r"report file .*none.yaml: No such file"):
        read_report_file(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(BenchError, match=r"a report file is a mapping with keys name, title"):
        read_report_file(tmp_path / "list.yaml")
    path = report_file(tmp_path, {})
    with pytest.raises(BenchError, match=r"none of 1 records has results; see their reasons"):
        Paper(path).write([make("tent", status="failed")], tmp_path / "out")
    with pytest.raises(BenchError, match=r"none of 0 records has results"):
        Paper(path).write([], tmp_path / "out")


def test_stores_lie_beside_the_file(tmp_path: Path) -> None:
    path = report_file(tmp_path, {"stores": ["results", "/abs/more"]})
    assert Paper(path).stores == [tmp_path / "results", Path("/abs/more")]
