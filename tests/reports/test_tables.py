from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.records.record import Amount, Metric, Record, further_field
from bench.reports.aggregate import Cost
from bench.reports.comparison import compare
from bench.reports.footnotes import footnotes
from bench.reports.statistics import Estimate, mean_ci
from bench.reports.table_model import blocks, clean, cost, decimals, percent
from bench.reports.tables import comma_separated, latex, markdown, text, wrapped_name

Make = Callable[..., Record]
GOLDEN = Path(__file__).parent / "golden"
NOTE = "Draft of <i>today</i>, 50 % done."


@pytest.mark.parametrize(
    ("stream", "suffix"),
    [
        *(("paper", suffix) for suffix in ("txt", "md", "tex", "csv")),
        ("online", "txt"),
        ("timed", "txt"),
        ("matrix", "txt"),
        ("matrix", "md"),
    ],
)
def test_golden(stream: str, suffix: str, request: pytest.FixtureRequest) -> None:
    """Run with BENCH_UPDATE_GOLDEN=1 to write the files anew, then read the difference."""
    (comparison,) = compare(request.getfixturevalue(stream))
    made = {
        "txt": lambda: text(comparison, NOTE),
        "md": lambda: markdown(comparison, NOTE),
        "tex": lambda: latex(comparison, NOTE),
        "csv": lambda: comma_separated(comparison),
    }[suffix]()
    name = "table" if stream == "paper" else stream
    path = GOLDEN / f"{name}.{suffix}"
    if os.environ.get("BENCH_UPDATE_GOLDEN"):
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("protocol", "heads"),
    [
        ({}, ["before", "after", "gain", "final", "forgetting"]),
        ({"name": "online"}, ["online", "after", "final", "forgetting"]),
        ({"evaluate_all": True}, ["all seen", "average seen", "after"]),
        (
            {"name": "online", "evaluate_all": True},
            ["online", "all seen", "average seen", "after"],
        ),
        ({"name": "online-timed"}, ["online", "adapted on (%)", "after", "final", "forgetting"]),
        (
            {"name": "online-timed", "evaluate_all": True},
            ["online", "adapted on (%)", "all seen", "average seen", "after"],
        ),
    ],
)
def test_columns_are_what_the_protocol_gives(
    make: Make, protocol: dict[str, object], heads: list[str]
) -> None:
    (comparison,) = compare([make("tent", protocol={"name": "periodic"} | protocol)])
    made = blocks(comparison)
    costs = ["adaptation time ↓ (s)", "adaptation energy ↓ (J)", "peak memory ↓ (MB)",
             "inference ↓ (ms/sample)"]  # fmt: skip
    best = "online" if "online" in heads else "after"
    best = "all seen" if "all seen" in heads else best
    assert list(made[0].heads) == [
        "method", "settings", f"{best} ↑ (%)", "vs source-only", *costs, "ok runs",
    ]  # fmt: skip
    assert made[0].title == "Accuracy and costs (costs modelled)"
    assert list(made[1].heads) == ["method", "origin", *heads]
    changes = ("method", "forgetting", "backward transfer", "forward transfer")
    assert [b.heads for b in made[2:]] == ([changes] if "evaluate_all" in protocol else [])
    for block in made:
        assert all(len(row) == len(block.heads) for row in block.methods)


def test_text_fits_the_terminal_and_is_aligned(paper: list[Record]) -> None:
    lines = text(compare(paper)[0]).splitlines()
    assert max(map(len, lines)) <= 120
    rule = next(line for line in lines if line and set(line) == {"-"})
    full = [line for line in lines if line.endswith("of 5")]
    assert len(full) == 4
    assert {len(line) for line in full} == {len(rule)}
    assert len({line.rindex("±") for line in full if "source-only" not in line}) == 1


@pytest.mark.parametrize(
    "protocol",
    [
        {},
        {"name": "online", "evaluate_all": True},
        {"name": "online-timed"},
        {"name": "online-timed", "evaluate_all": True},
    ],
)
def test_a_table_of_thirty_methods_is_a_line_for_each(
    make: Make, protocol: dict[str, object]
) -> None:
    records = []
    for seed in range(3):
        for i in range(30):
            made = make(f"some-method-{i:02d}", seed, before=0.3, after=0.9 - 0.02 * i + seed / 50,
                        final=0.2, online=0.5, adapted=0.4 + seed / 10,
                        matrix=[[0.9, 0.1]] * 2, settings="tuned",
                        changed={"learning_rate": 0.001 * i},
                        protocol={"name": "periodic"} | protocol)  # fmt: skip
            records.append(made)
    (comparison,) = compare(records)
    lines = text(comparison).splitlines()
    assert max(map(len, lines)) <= 120
    table = lines[lines.index(next(line for line in lines if set(line) == {"-"})) + 1 :]
    assert [line.split()[0] for line in table[:30]] == [f"some-method-{i:02d}" for i in range(30)]
    made = latex(comparison)
    assert made.count(r"\begin{table*}") == made.count(r"\end{table*}") == len(blocks(comparison))
    assert made.count(r"\label{tab:digits-small-vit-board") == len(blocks(comparison))
    assert made.count(r"\begin{minipage}") == 1


def test_names_break_behind_their_settings_names() -> None:
    assert wrapped_name("tent (learning_rate=0.001, mode=x)", 18) == [
        "tent", "  (learning_rate=", "  0.001, mode=x)",
    ]  # fmt: skip
    assert wrapped_name("tent (rate=0.001, mode=x)", 18) == ["tent (rate=0.001,", "  mode=x)"]


def test_oracle_settings_are_loud(matrix: list[Record]) -> None:
    (comparison,) = compare(matrix)
    first = footnotes(comparison, NOTE)[0]
    assert first.startswith("‡ ORACLE: settings selected with the labels of the test stream; ")
    told = text(comparison, NOTE)
    assert told.splitlines()[0].endswith(" — contains ORACLE settings")
    assert "\ntent [oracle] ‡ " in told
    assert r"| tent \[oracle\] ‡ | oracle |" in markdown(comparison)
    made = latex(comparison)
    assert "tent [oracle] $^\\ddagger$" in made
    assert "--- contains ORACLE settings}" in made
    rows = csv.DictReader(io.StringIO(comma_separated(comparison)))
    assert [row["settings"] for row in rows if row["method"] == "tent [oracle]"] == ["oracle"]


def test_without_oracle_settings_nothing_speaks_of_them(online: list[Record]) -> None:
    (comparison,) = compare(online)
    for made in (text(comparison), markdown(comparison), latex(comparison)):
        assert "oracle" not in made.lower()
        assert "‡" not in made


def test_origin_and_settings_of_each_row(matrix: list[Record]) -> None:
    (comparison,) = compare(matrix)
    main, stream = blocks(comparison)[:2]
    pairs = zip(
        (*stream.methods, *stream.references), (*main.methods, *main.references), strict=True
    )
    assert [(*a[:2], b[1]) for a, b in pairs if a[0] == b[0]] == [
        ("source-only", "ours", "–"),
        ("tent [oracle] ‡", "published", "oracle"),
        ("eata (epochs=2)", "group", "given"),
        ("tent [tuned]", "published", "tuned"),
        ("tent [default]", "published", "default"),
        ("ewc †", "published", "tuned"),
    ]
    notes = footnotes(comparison)
    assert (
        "Origin: published = named as EdgeTA's baseline in its paper or code; group = from that "
        "group's own harness; ours = chosen here." in notes
    )
    settings = next(note for note in notes if note.startswith("Settings: "))
    for told in (
        "tuned = the best of equally many trials for each method on a validation stream made from "
        "source data ('bench tune')",
        "default = the method's own",
        "given = set in the suite by hand",
        "– = nothing to tune",
    ):
        assert told in settings


def test_an_unknown_origin_is_shown_as_it_is(make: Make) -> None:
    evil = "<b>\x1b[31m" + "x" * 50
    (comparison,) = compare([make("tent", provenance=evil)])
    assert blocks(comparison)[1].methods[0][1] == "<b> [31mxxx…"
    assert not [note for note in footnotes(comparison) if note.startswith("Origin")]


@pytest.mark.parametrize(
    ("estimate", "signed", "expected"),
    [
        (Estimate(0.58, 0.012, 5), False, "58.0 ± 1.2"),
        (Estimate(0.58, None, 1), False, "58.0"),
        (Estimate(-0.0001, 0.0, 2), True, "+0.0 ± 0.0"),
        (Estimate(-0.0001, None, 1), False, "0.0"),
        (Estimate(0.125, 0.01, 3), True, "+12.5 ± 1.0"),
        (Estimate(-0.125, 0.01, 3), True, "-12.5 ± 1.0"),
        (None, True, "–"),
    ],
)
def test_percent(estimate: Estimate | None, signed: bool, expected: str) -> None:
    assert percent(estimate, signed) == expected


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [
        (Cost(Estimate(12.175, 0.27, 4), ("modelled",)), 1.0, "12.2 ± 0.3"),
        (Cost(Estimate(50e6, 0.0, 2), ("modelled",)), 1e-6, "50.0"),
        (Cost(Estimate(50e6, 0.0, 2), ("measured",)), 1e-6, "50.0 ± 0.0"),
        (Cost(Estimate(50e6, 4e4, 2), ("modelled",)), 1e-6, "50.0"),
        (Cost(Estimate(50e6, 6e4, 2), ("modelled",)), 1e-6, "50.0 ± 0.1"),
        (Cost(Estimate(12345.6, None, 1), ("modelled",)), 1.0, "12346"),
        (Cost(Estimate(5.56e-5, None, 1), ("modelled",)), 1e3, "0.0556"),
        (Cost(Estimate(0.0, 0.0, 5), ("modelled",)), 1.0, "0"),
        (Cost(Estimate(1.25e-300, 3e-301, 5), ("modelled",)), 1.0, "1.25e-300 ± 3.00e-301"),
        (Cost(Estimate(3e-9, None, 1), ("modelled",)), 1.0, "3.00e-09"),
        (Cost(None, (), (), ("no meter",)), 1.0, "unavailable"),
        (Cost(None), 1.0, "–"),
    ],
)
def test_cost(value: Cost, factor: float, expected: str) -> None:
    assert cost(value, factor) == expected


def test_decimals() -> None:
    assert [decimals(v) for v in (0.0, 0.00123, 0.5, 1.0, 99.0, 100.0, 4e9, -0.5)] == [
        0, 5, 3, 2, 1, 0, 0, 3,
    ]  # fmt: skip


def test_kind_stands_in_the_heads_of_costs(make: Make) -> None:
    (comparison,) = compare([make("tent", kind="measured", device="host", energy=None)])
    made = blocks(comparison)[0]
    assert made.title == "Accuracy and costs (costs measured)"
    assert made.heads[4:8] == (
        "adaptation time ↓ (s)", "adaptation energy ↓ (J)", "peak memory ↓ (MB)",
        "inference ↓ (ms/sample)",
    )  # fmt: skip
    mixed = make("tent", kind="measured", device="host")
    assert mixed.results is not None
    modelled = Amount(value=1.0, unit="J", kind="modelled", how="profile")
    costs = mixed.results.costs.model_copy(update={"adaptation_energy": modelled})
    mixed.results.costs = costs
    made = blocks(compare([mixed])[0])[0]
    assert made.title == "Accuracy and costs"
    assert made.heads[4:6] == (
        "adaptation time ↓ (s, measured)",
        "adaptation energy ↓ (J, modelled)",
    )
    assert "Adaptation energy unavailable (tent): no meter is read." in footnotes(comparison)


def test_memory_is_what_the_process_takes_where_that_is_known(make: Make) -> None:
    def calibrated(how: str, value: float | None) -> Record:
        record = make("tent", memory=50e6)
        kind = "unavailable" if value is None else "modelled"
        resident = Amount(value=value, unit="B", kind=kind, how=how)
        costs = record.results.costs.model_copy(update={"resident_memory": resident})
        results = record.results.model_copy(update={"costs": costs})
        return record.model_copy(update={"results": results})

    (comparison,) = compare([calibrated("counted; memory that the process takes", 80e6)])
    assert comparison.rows[0].costs["memory"].estimate.mean == 80e6
    assert "Peak memory: modelled: counted; memory that the process takes." in footnotes(comparison)
    (comparison,) = compare([calibrated("the device's profile is not calibrated for it", None)])
    assert comparison.rows[0].costs["memory"].estimate.mean == 50e6


def test_footnotes_say_what_a_reader_needs(paper: list[Record]) -> None:
    notes = "\n".join(footnotes(compare(paper)[0], NOTE))
    assert notes.startswith(NOTE)
    for told in (
        "95 % Student-t interval over the ok runs, one per seed (seeds 0-4), none where one run is",
        "† supervised reference",
        "modelled: profile board x counted step.",
        "Adaptation energy unavailable (meterless): no meter is read.",
        "1200 MB more",
        "The window closed before the method was done: tent (learning_rate=0.01, mode=a|b_c) on "
        "10 of 20 domains.",
        "5 records of older code of tent left out.",
        "No result: edgeta, seeds 0, 1: oom: a train step needs 9000.0 MB on board",
        "No result: shot, seed 1: failed: ValueError: loss is nan",
        "No result: shot, seed 2: interrupted: no reason recorded",
        "No result: tent, seed 3: timeout: <script>",
    ):
        assert told in notes


def test_one_seed_claims_nothing(make: Make) -> None:
    (comparison,) = compare([make("source-only"), make("tent")])
    assert "±" not in text(comparison)
    assert "One ok run per method (seed 0): no intervals, no claim about differences." in footnotes(
        comparison
    )


def test_long_reasons_are_cut_in_footnotes(make: Make) -> None:
    (comparison,) = compare([make("tent", status="failed", reason="x" * 5000)])
    assert max(map(len, footnotes(comparison))) < 400


def test_control_characters_reach_no_output(paper: list[Record], nasty: str) -> None:
    (comparison,) = compare(paper)
    for made in (text(comparison), markdown(comparison), latex(comparison)):
        assert "\x1b" not in made
        assert all(c.isprintable() or c == "\n" for c in made)
    assert clean(nasty).endswith("[31m*red* next")


def test_markdown_escapes(paper: list[Record]) -> None:
    made = markdown(compare(paper)[0])
    assert "<" not in made
    assert r"&lt;script&gt;alert('x')&lt;/script&gt; \| 100 % of \$HOME &amp; a\_b" in made
    assert r"mode=a\|b\_c" in made
    tables = [line for line in made.splitlines() if line.startswith("|")]
    bars = [line.replace(r"\|", "").count("|") for line in tables]
    assert bars == [10] * 9 + [9] * 9 + [5] * 8 + [5] * 6


def test_latex_escapes(paper: list[Record]) -> None:
    made = latex(compare(paper)[0], NOTE)
    assert r"\textless{}script\textgreater{}alert('x')" in made
    assert r"\textbar{} 100 \% of \$HOME \& a\_b \{c\} \textasciitilde{} \textasciicircum{}" in made
    assert r"\textbackslash{}" in made
    assert r"fine-tune $^\dagger$ & published & 60.0$\pm$0.0 & " in made
    # Outside the first line, a comment, every per cent sign is escaped, and braces balance.
    body = made.partition("\n")[2].replace(r"\%", "")
    assert "%" not in body
    plain = body.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    assert plain.count(r"\begin{") == plain.count(r"\end{")


def test_latex_minus_is_no_hyphen(make: Make) -> None:
    made = latex(compare([make("tent", before=0.6, after=0.5, final=0.5)])[0])
    assert " & -10.0 & " in made.replace("$-$", "-")
    assert "$-$10.0" in made


def test_further_metrics_have_a_table_of_their_own(make: Make) -> None:
    known = [
        Metric(name="macro-f1", title="macro-F1"),
        Metric(name="perplexity", title="perplexity", unit="", higher_is_better=False),
    ]
    records = [make(seed=seed) for seed in (0, 1)]
    for record, values in zip(records, ((0.5, 20.0), (0.7, 24.0)), strict=True):
        assert record.results is not None
        record.results.further_metrics = known
        for domain in record.results.domains:
            for metric, value in zip(known, values, strict=True):
                domain.measure(further_field(metric.name, "after"), value)
    (comparison,) = compare([*records, make("source-only")])
    (block,) = [b for b in blocks(comparison) if b.title == "Further metrics"]
    assert block.heads == ("method", "macro-F1 (%)", "perplexity")
    # Of the share the logit's: 60 ± 127.06, odds of 1.5 over and times exp(1.2706 / .24). The
    # perplexity is not within the range that its metric has, and keeps Student's.
    wide = mean_ci((20.0, 24.0)).half_width
    tent = ("tent", "60.0 [0.7, 99.7]", f"22.0 ± {wide:.1f}")
    assert block.methods == (("source-only", "–", "–"), tent)
    assert "lower is better: perplexity." in text(comparison)
    (line,) = [
        r for r in csv.DictReader(comma_separated(comparison).splitlines()) if r["method"] == "tent"
    ]
    assert (line["macro_f1_percent"], line["perplexity"], line["perplexity_n"]) == ("60", "22", "2")


def test_csv_can_be_read_back(paper: list[Record]) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(compare(paper)[0]))))
    by_name = {row["method"]: row for row in rows}
    assert len(rows) == 7
    tent = by_name["tent"]
    assert float(tent["after_percent"]) == pytest.approx(58.25)
    assert float(tent["after_percent_half_width"]) == pytest.approx(2.71753)
    assert tent["after_percent_n"] == "4"
    assert (tent["runs_ok"], tent["runs_recorded"]) == ("4", "5")
    assert float(tent["energy_j"]) == pytest.approx(12.175)
    assert tent["energy_kind"] == "modelled"
    assert float(tent["memory_mb"]) == 50.0
    assert float(tent["inference_ms_per_sample"]) == 2.0
    assert by_name["meterless"]["energy_j"] == ""
    assert by_name["meterless"]["energy_kind"] == "unavailable"
    assert by_name["edgeta"]["after_percent"] == ""
    assert by_name["edgeta"]["energy_kind"] == ""
    assert by_name["source-only"]["difference_percent_n"] == "0"
    assert by_name["fine-tune"]["supervised_reference"] == "1"
    assert by_name["shot"]["after_percent_half_width"] == ""
    given = by_name["tent (learning_rate=0.01, mode=a|b_c)"]
    assert given["settings"] == "given"
    assert json.loads(given["settings_changed"]) == {"learning_rate": 0.01, "mode": "a|b_c"}
    assert (tent["settings"], tent["settings_changed"]) == ("default", "{}")
    assert tent["origin"] == "published"
    assert float(tent["score_percent"]) == float(tent["after_percent"])
    assert (tent["online_percent"], tent["seen_at_end_percent"]) == ("", "")


def test_csv_has_the_same_columns_for_all_protocols(
    paper: list[Record], online: list[Record], timed: list[Record], matrix: list[Record]
) -> None:
    every = (paper, online, timed, matrix)
    heads = [comma_separated(compare(r)[0]).partition("\n")[0] for r in every]
    assert len(set(heads)) == 1
    busy = list(csv.DictReader(io.StringIO(comma_separated(compare(timed)[0]))))
    assert [float(row["adapted_percent"]) for row in busy] == [0.0, 100.0, 12.5]
    assert [row["score_percent"] for row in busy] == [row["online_percent"] for row in busy]
    free = list(csv.DictReader(io.StringIO(comma_separated(compare(online)[0]))))
    assert {row["adapted_percent"] for row in free} == {""}
    rows = csv.DictReader(io.StringIO(comma_separated(compare(matrix)[0])))
    tuned = next(row for row in rows if row["method"] == "tent [tuned]")
    assert float(tuned["seen_at_end_percent"]) == float(tuned["score_percent"])
    assert json.loads(tuned["settings_changed"]) == {"epochs": 3, "learning_rate": 0.00123}


def test_every_table_names_the_variant(make: Make) -> None:
    variant = {"ratio": 8, "steps": 1500}
    records = [make("source-only", after=0.4, variant=variant), make("tent", variant=variant)]
    small, full = compare([make("tent"), *records])
    title = "domain-shift · digits · small-vit compressed:8 · board"
    assert text(small).startswith(title + "\n")
    assert markdown(small).startswith(f"## {title}\n")
    assert (
        r"\caption{domain-shift $\cdot$ digits $\cdot$ small-vit compressed:8 $\cdot$ board}"
        in latex(small)
    )
    assert r"\label{tab:digits-small-vit-compressed-8-board}" in latex(small)
    models = [
        {line["model"] for line in csv.DictReader(io.StringIO(comma_separated(c)))}
        for c in (full, small)
    ]
    assert models == [{"small-vit"}, {"small-vit compressed:8"}]
    assert "compressed" not in text(full)


def test_csv_holds_no_formula(make: Make) -> None:
    made = comma_separated(compare([make("tent", device="=cmd|' /C calc'!A0")])[0])
    assert next(csv.DictReader(io.StringIO(made)))["device"].startswith("'=cmd")


def test_a_comparison_without_results_still_has_tables(make: Make) -> None:
    (comparison,) = compare([make("tent", status="failed", reason="boom")])
    for made in (text(comparison), markdown(comparison), latex(comparison)):
        assert "boom" in made
        assert "±" not in made
    assert comma_separated(comparison).count("\n") == 2


def test_a_method_with_a_model_of_its_own_has_its_own_accuracy_on_the_source(make: Make) -> None:
    reference, other = make("source-only"), make("edgeta")
    assert reference.results is not None
    assert other.results is not None
    lower = other.results.model_copy(update={"source_before": 0.9})
    other = other.model_copy(update={"results": lower})
    notes = footnotes(compare([other, reference])[0])
    expected = (
        "Before the stream, accuracy on held-out source data: 97.0; from 90.0 to 97.0 where "
        "methods deploy models of their own."
    )
    assert expected in notes
