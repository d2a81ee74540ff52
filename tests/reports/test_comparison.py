from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from bench.records.record import Record
from bench.reports.aggregate import Row
from bench.reports.comparison import Comparison, compare

Make = Callable[..., Record]


def row(comparison: Comparison, label: str) -> Row:
    return next(r for r in comparison.rows if r.label == label)


def test_rows_their_order_and_groups(paper: list[Record]) -> None:
    (comparison,) = compare(paper)
    assert [(r.label, r.supervised) for r in comparison.rows] == [
        ("source-only", False),
        ("shot", False),  # 63.0, from its one run
        ("tent (learning_rate=0.01, mode=a|b_c)", False),  # 61.0
        ("tent", False),  # 58.25
        ("meterless", False),  # 55.0
        ("edgeta", False),  # no result
        ("fine-tune", True),
    ]
    assert comparison.title == "domain-shift · digits · small-vit · board"
    assert comparison.slug == "digits-small-vit-board"
    assert comparison.domains == ["rotation-1", "noise-1", "blur-1", "contrast-1"]


def test_numbers_of_a_row(paper: list[Record]) -> None:
    tent = row(compare(paper)[0], "tent")
    # Seeds 0, 1, 2, 4 move the accuracy by -0.02, 0, 0.02, 0.01: mean 0.0025.
    after = tent.accuracy["after"]
    assert after is not None
    assert after.mean == pytest.approx(0.5825)
    # s = sqrt(0.00087500 / 3); t(0.975, 3) = 3.182446; half width = t s / 2
    assert after.half_width == pytest.approx(3.182446 * (0.000875 / 3) ** 0.5 / 2, rel=1e-5)
    before = tent.accuracy["before"]
    assert before is not None
    assert before.mean == pytest.approx(0.5225)
    gain = tent.accuracy["gain"]
    assert gain is not None
    assert gain.mean == pytest.approx(0.06)
    assert gain.half_width == pytest.approx(0.0, abs=1e-12)
    final = tent.accuracy["final"]
    assert final is not None
    assert final.mean == pytest.approx(0.56)
    forgetting = tent.accuracy["forgetting"]
    assert forgetting is not None
    assert forgetting.mean == pytest.approx(0.0225)
    # Paired: the seeds' moves cancel, although seed 3 is missing.
    assert tent.difference is not None
    assert tent.difference.mean == pytest.approx(0.08)
    assert tent.difference.half_width == pytest.approx(0.0, abs=1e-12)
    assert tent.difference.n == 4
    assert tent.costs["energy"].estimate is not None
    assert tent.costs["energy"].estimate.mean == pytest.approx(12.175)
    assert tent.costs["energy"].kinds == ("modelled",)
    assert tent.costs["memory"].estimate is not None
    assert tent.costs["memory"].estimate.mean == 50e6
    assert tent.costs["time"].estimate is not None
    assert tent.costs["time"].estimate.mean == pytest.approx(1.5)
    assert tent.costs["inference"].estimate is not None
    assert tent.costs["inference"].estimate.mean == pytest.approx(2e-3)
    assert tent.seeds == "4 of 5; 1 timeout"
    assert [r.cell.seed for r in tent.missing] == [3]


def test_source_only_has_no_difference_to_itself(paper: list[Record]) -> None:
    source = row(compare(paper)[0], "source-only")
    assert source.difference is None
    assert source.costs["energy"].estimate is not None
    assert source.costs["energy"].estimate.mean == 0.0


def test_rows_without_results_stay(paper: list[Record]) -> None:
    edgeta = row(compare(paper)[0], "edgeta")
    assert edgeta.seeds == "0 of 2; 2 oom"
    assert edgeta.accuracy["after"] is None
    assert edgeta.difference is None
    assert edgeta.costs["time"].estimate is None
    assert edgeta.costs["time"].gaps == ()
    assert row(compare(paper)[0], "shot").seeds == "1 of 3; 1 failed, 1 interrupted"


def test_unavailable_energy_is_not_zero(paper: list[Record]) -> None:
    energy = row(compare(paper)[0], "meterless").costs["energy"]
    assert energy.estimate is None
    assert energy.kinds == ()
    assert energy.gaps == ("no meter is read",)


def test_order_of_the_records_does_not_matter(paper: list[Record]) -> None:
    expected = compare(paper)
    for seed in range(3):
        shuffled = paper[:]
        random.Random(seed).shuffle(shuffled)
        assert compare(shuffled) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"device": "host", "kind": "measured"},
        {"stream": {"size": 64}},
        {"protocol": {"name": "periodic", "window_s": 1.0}},
    ],
)
def test_what_is_not_comparable_shares_no_table(make: Make, other: dict[str, object]) -> None:
    comparisons = compare([make("tent"), make("tent", **other)])
    assert [len(c.records) for c in comparisons] == [1, 1]
    assert len({c.slug for c in comparisons}) == 2
    assert len({c.title for c in comparisons}) == 2


def test_measured_and_modelled_never_meet(make: Make) -> None:
    records = [make("tent", s) for s in range(2)]
    records += [make("tent", s, device="host", kind="measured") for s in range(2)]
    kinds = [{k for r in c.rows for k in r.costs["time"].kinds} for c in compare(records)]
    assert kinds == [{"modelled"}, {"measured"}]


def test_titles_of_variants_name_what_differs(make: Make) -> None:
    small, large = compare([make(stream={"size": 32}), make(stream={"size": 64})])
    assert small.title == "domain-shift · digits · small-vit · board (stream.size=32)"
    assert large.title == "domain-shift · digits · small-vit · board (stream.size=64)"
    assert small.slug == f"digits-small-vit-board-{small.key[:6]}"


SMALL = {"ratio": 8, "steps": 1500}


def test_the_full_model_and_its_variants_share_no_table(make: Make) -> None:
    def runs(before: float, **more: object) -> list[Record]:
        still = make("source-only", after=before, final=before, **more)
        return [still, make("tent", after=0.6, **more)]

    records = [*runs(0.5), *runs(0.4, variant=SMALL), *runs(0.3, variant={**SMALL, "ratio": 4})]
    four, eight, full = compare(records[::-1])
    assert [c.title for c in (full, four, eight)] == [
        "domain-shift · digits · small-vit · board",
        "domain-shift · digits · small-vit compressed:4 · board",
        "domain-shift · digits · small-vit compressed:8 · board",
    ]
    assert [c.slug for c in (full, four, eight)] == [
        "digits-small-vit-board",
        "digits-small-vit-compressed-4-board",
        "digits-small-vit-compressed-8-board",
    ]
    # Each is measured against the source-only run of its own variant.
    differences = [row(c, "tent").difference for c in (full, four, eight)]
    assert [d and round(d.mean, 6) for d in differences] == [0.1, 0.3, 0.2]
    assert {len(c.records) for c in (full, four, eight)} == {2}


def test_source_only_of_the_full_model_is_no_reference_for_a_variant(make: Make) -> None:
    small, full = compare([make("source-only"), make("tent", variant=SMALL)])
    assert row(small, "tent").difference is None
    assert small.notes == ("No source-only run is ok here, so no difference to it is known",)
    assert full.notes == ()


def test_variants_of_one_ratio_are_told_apart_by_what_differs(make: Make) -> None:
    records = [make(variant=SMALL), make(variant={**SMALL, "steps": 10}), make()]
    few, many, full = compare(records)
    assert full.title == "domain-shift · digits · small-vit · board"
    assert few.title == "domain-shift · digits · small-vit compressed:8 · board (variant.steps=10)"
    assert (
        many.title == "domain-shift · digits · small-vit compressed:8 · board (variant.steps=1500)"
    )
    assert len({c.slug for c in (full, few, many)}) == 3


def test_a_long_model_name_does_not_hide_the_variant(make: Make) -> None:
    name = "vit-large-patch16-224-of-a-very-long-name-indeed"
    small, full = compare([make(model=name), make(model=name, variant=SMALL)])
    assert full.title == f"domain-shift · digits · {name} · board"
    assert small.title == f"domain-shift · digits · {name} compressed:8 · board"
    assert full.slug == f"digits-{name[:40]}-board"
    assert small.slug == f"digits-{name[:40]}-compressed-8-board"


def test_runs_on_older_code_of_a_variant_are_left_out(make: Make) -> None:
    old = [
        make(m, variant=SMALL, variant_version="old", started="2026-01-01")
        for m in ("source-only", "tent")
    ]
    (comparison,) = compare([*old, make("source-only", variant=SMALL, started="2026-01-02")])
    assert comparison.notes == (
        "2 records of older code of variant compressed left out (source-only, tent)",
    )


def test_the_name_of_a_comparison_stays_what_it_is(make: Make) -> None:
    """It stands in file names and in labels of LaTeX tables, which texts refer to."""
    small, large = compare([make(stream={"size": 32}), make(stream={"size": 64})])
    assert [c.key[:6] for c in (small, large)] == ["04a687", "ec37da"]


def test_file_names_cannot_leave_the_folder(make: Make) -> None:
    first, second = compare([make(device="../../My Board.yaml"), make(device="x/my-board.yaml")])
    for comparison in (first, second):
        assert comparison.slug.startswith("digits-small-vit-my-board-")
        assert set(comparison.slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert first.slug != second.slug


def test_older_code_of_a_method_is_left_out_and_counted(paper: list[Record]) -> None:
    (comparison,) = compare(paper)
    assert "5 records of older code of tent left out" in comparison.notes


def test_a_row_never_averages_two_versions(make: Make) -> None:
    old = [make("tent", s, version="old", after=0.1, started="2026-01-01") for s in range(5)]
    new = [make("tent", s, after=0.9, started="2026-01-02") for s in range(2)]
    (comparison,) = compare(old + new)
    (tent,) = comparison.rows
    assert tent.seeds == "2 of 2"
    after = tent.accuracy["after"]
    assert after is not None
    assert after.mean == pytest.approx(0.9)
    assert "5 records of older code of tent left out" in comparison.notes


def test_runs_on_older_stream_code_are_not_compared_with_new_ones(make: Make) -> None:
    old = [make(m, stream_version="old", started="2026-01-01") for m in ("source-only", "tent")]
    new = make("source-only", started="2026-01-02")
    (comparison,) = compare([*old, new])
    assert [r.label for r in comparison.rows] == ["source-only"]
    assert comparison.notes == (
        "2 records of older code of stream digits left out (source-only, tent)",
    )


def test_the_newest_of_two_records_of_one_cell_counts(make: Make) -> None:
    first = make("tent", status="failed", reason="x", started="2026-01-01")
    again = make("tent", started="2026-01-02")
    for records in ([first, again], [again, first]):
        assert compare(records)[0].rows[0].seeds == "1 of 1"


def test_rows_of_one_method_with_settings_from_several_places_stay_apart(make: Make) -> None:
    found = {"learning_rate": 0.00123, "epochs": 3}
    records = [
        make("tent", after=0.60),
        make("tent", after=0.62, changed=found, settings="tuned"),
        make("tent", after=0.64, changed={"learning_rate": 0.1}, settings="oracle"),
        make("tent", after=0.58, changed={"epochs": 2}, settings="given"),
        make("shot", after=0.56, changed=found, settings="tuned"),
        make("source-only", after=0.5, settings="none"),
    ]
    (comparison,) = compare(records)
    assert [(r.label, r.settings, r.competes) for r in comparison.rows] == [
        ("source-only", "none", True),
        ("tent [oracle]", "oracle", False),
        ("tent [tuned]", "tuned", True),
        ("tent [default]", "default", True),
        ("tent (epochs=2)", "given", True),
        ("shot", "tuned", True),
    ]
    assert (
        comparison.title == "domain-shift · digits · small-vit · board — contains ORACLE settings"
    )
    assert comparison.slug == "digits-small-vit-board"


def test_two_results_of_a_search_are_told_apart_by_their_settings(make: Make) -> None:
    records = [
        make("tent", after=after, changed={"learning_rate": rate}, settings="tuned")
        for after, rate in ((0.6, 0.1), (0.7, 0.2))
    ]
    assert [r.label for r in compare(records)[0].rows] == [
        "tent (learning_rate=0.2)", "tent (learning_rate=0.1)",
    ]  # fmt: skip


def test_what_all_results_of_a_search_share_is_left_out_of_their_names(make: Make) -> None:
    found = {"learning_rate": 0.1, "epochs": 4}
    records = [
        make("tent", after=after, changed={**found, **more}, settings="tuned")
        for after, more in ((0.6, {}), (0.7, {"feedback": "none"}), (0.8, {"epochs": 2}))
    ]
    assert [r.label for r in compare(records)[0].rows] == [
        "tent (epochs=2)", "tent (epochs=4, feedback=none)", "tent (epochs=4)",
    ]  # fmt: skip


def test_settings_of_old_records_that_differ_from_the_defaults_were_given(make: Make) -> None:
    (tent,) = compare([make("tent", changed={"epochs": 2})])[0].rows
    assert (tent.label, tent.settings) == ("tent (epochs=2)", "given")


MATRIX = [[0.9, 0.2, 0.3], [0.8, 0.7, 0.4], [0.7, 0.5, 0.8]]
"""Source (200 test samples) and two domains (100 each), after the source and after each."""


def test_numbers_where_all_domains_are_evaluated(make: Make) -> None:
    every = {"name": "periodic", "evaluate_all": True}
    still = [MATRIX[0]] * 3
    (comparison,) = compare([
        make("source-only", matrix=still, protocol=every),
        make("tent", matrix=MATRIX, protocol=every),
    ])  # fmt: skip
    tent = row(comparison, "tent")
    known = {name: e.mean for name, e in tent.accuracy.items() if e is not None}
    assert known["seen_at_end"] == pytest.approx((200 * 0.7 + 100 * 0.5 + 100 * 0.8) / 400)
    first = (200 * 0.8 + 100 * 0.7) / 300
    assert known["seen_on_average"] == pytest.approx((first + 0.675) / 2)
    assert known["forgetting"] == pytest.approx(0.2)  # mean of 0.9 - 0.7 and 0.7 - 0.5
    assert known["backward_transfer"] == pytest.approx(-0.2)
    assert known["forward_transfer"] == pytest.approx(0.4 - 0.3)
    assert known["score"] == known["seen_at_end"]
    assert "online" not in known
    # Source-only: (200 * 0.9 + 100 * 0.2 + 100 * 0.3) / 400 = 0.575.
    assert tent.difference is not None
    assert tent.difference.mean == pytest.approx(0.675 - 0.575)


def test_online_accuracy_is_what_online_protocols_compare(make: Make) -> None:
    protocol = {"name": "online", "evaluate_all": False}
    (comparison,) = compare([
        make("source-only", online=0.5, after=0.9, protocol=protocol),
        make("tent", online=0.55, after=0.7, protocol=protocol),
        make("shot", online=0.6, after=0.6, protocol=protocol),
    ])  # fmt: skip
    assert [r.label for r in comparison.rows] == ["source-only", "shot", "tent"]
    tent = row(comparison, "tent")
    assert tent.difference is not None
    assert tent.difference.mean == pytest.approx(0.05)
    assert tent.accuracy["seen_at_end"] is None


def test_streams_of_two_speeds_are_two_comparisons_that_say_which(make: Make) -> None:
    records = [
        make(name, online=0.5, adapted=0.25, protocol={"name": "online-timed", "interval_s": s})
        for name in ("source-only", "tent")
        for s in (0.5, 0.25)
    ]
    fast, slow = compare(records)
    assert fast.title.endswith(" (protocol.interval_s=0.25)")
    assert slow.title.endswith(" (protocol.interval_s=0.5)")
    assert fast.slug != slow.slug
    for comparison in (fast, slow):
        assert [r.label for r in comparison.rows] == ["source-only", "tent"]


def test_settings_that_read_alike_are_two_rows(make: Make) -> None:
    records = [make("tent", changed={"k": 1}), make("tent", changed={"k": "1"})]
    assert [r.label for r in compare(records)[0].rows] == ["tent (k=1)", "tent (k=1)"]


def test_one_method_with_and_without_labels_is_two_rows(make: Make) -> None:
    records = [make("source-only"), make("tent"), make("tent", supervised=True)]
    assert [(r.label, r.supervised) for r in compare(records)[0].rows] == [
        ("source-only", False), ("tent", False), ("tent", True),
    ]  # fmt: skip


def test_differences_without_source_only_are_explained(make: Make) -> None:
    (comparison,) = compare([make("tent"), make("source-only", status="failed")])
    assert row(comparison, "tent").difference is None
    assert comparison.notes == ("No source-only run is ok here, so no difference to it is known",)


def test_differences_over_fewer_seeds_are_noted(make: Make) -> None:
    records = [make("source-only", 0), *(make("tent", s) for s in range(3))]
    assert compare(records)[0].notes == (
        "The difference of tent to source-only is over common runs alone: 1 of its 3",
    )


def test_partly_known_energy_is_noted(make: Make) -> None:
    records = [make("source-only", s) for s in range(2)]
    records += [make("tent", 0, energy=10.0), make("tent", 1, energy=None)]
    (comparison,) = compare(records)
    assert comparison.notes == ("Energy of tent is known in 1 of 2 runs",)
    energy = row(comparison, "tent").costs["energy"]
    assert energy.estimate is not None
    assert energy.estimate.mean == 10.0


def test_different_source_models_and_machines_are_noted(make: Make) -> None:
    two = [
        make("source-only", device="host", kind="measured"),
        make("tent", device="host", kind="measured", source_model="bb",
             environment={"processor": "Other CPU"}),
    ]  # fmt: skip
    (comparison,) = compare(two)
    assert comparison.notes == (
        "Runs start from 2 different source models: differences between methods contain that",
        "Costs were measured on 2 different machines (Other CPU; Some CPU): do not compare them "
        "between rows",
    )


def test_an_ok_record_without_results_breaks_nothing(make: Make) -> None:
    (comparison,) = compare([make("source-only"), make("tent", results=None)])
    assert row(comparison, "tent").seeds == "0 of 1; 1 empty"


def test_nothing_gives_nothing() -> None:
    assert compare([]) == []
