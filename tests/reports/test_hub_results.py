"""Results for a benchmark on the Hugging Face Hub: its own library reads them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResultEntry, parse_eval_result_entries

from bench import BenchError, registry
from bench.records.record import Record
from bench.reports.comparison import compare

NAME = "my-lab/edge-bench"
FILE = ".eval_results/my-lab-edge-bench.yaml"
Make = Callable[..., Record]


def made(records: list[Record], organization: str = "", **more: str) -> dict[str, bytes]:
    given = {"benchmark": NAME} | more
    files: dict[str, bytes] = registry.load("report", "hf-eval-results")(
        records, organization, 0.0, **given
    )
    return files


def read(files: dict[str, bytes]) -> dict[str, list[EvalResultEntry]]:
    return {
        path.removesuffix(f"/{FILE}"): parse_eval_result_entries(yaml.safe_load(content))
        for path, content in files.items()
    }


def test_the_hubs_library_reads_the_scores_of_what_competes(paper: list[Record]) -> None:
    (comparison,) = compare(paper)
    found = read(made(paper))
    competing = [row for row in comparison.drawn if row.competes]
    assert len(found) == len(competing) < len(comparison.drawn)
    values = sorted(entry.value for (entry,) in found.values())
    scores = [row.accuracy["score"] for row in competing]
    assert values == pytest.approx(sorted(100 * s.mean for s in scores if s), abs=5e-4)
    assert not any("fine-tune" in model for model in found)  # it has seen labels
    (entry,) = found["small-vit-adapted-by-tent"]
    assert (entry.dataset_id, entry.date) == (NAME, "2026-01-02T00:00:00+00:00")
    assert entry.task_id.startswith("digits-board-")
    assert entry.notes is not None
    for part in (
        "self-reported; accuracy in %", "runs 4 of 5; 1 timeout", "over 4 seeds",
        "adaptation energy 12.18 J (modelled)", "published method, default settings",
    ):  # fmt: skip
        assert part in entry.notes, part


def test_only_known_keys_are_written_and_nothing_says_that_it_is_verified(
    paper: list[Record],
) -> None:
    """Fields of the Hub's specification; the required ones are there."""
    where = "https://example.org/records"
    for files in (made(paper), made(paper, "My Lab", source=where)):
        for content in files.values():
            for entry in yaml.safe_load(content):
                assert {"dataset", "value"} <= entry.keys() <= {
                    "dataset", "value", "date", "source", "notes",
                }  # fmt: skip
                assert entry["dataset"].keys() == {"id", "task_id"}
                assert "verifyToken" not in entry
    assert entry["source"] == {"url": where, "name": "records", "org": "My Lab"}


def test_a_task_is_what_models_have_in_common(make: Make) -> None:
    def tasks(**more: Any) -> set[str]:
        entries = [e for each in read(made([make("tent", **more)])).values() for e in each]
        return {entry.task_id for entry in entries}

    first = tasks()
    assert tasks(model="other") == first
    window = {"name": "periodic", "window_s": 30.0, "reset": "never"}
    changes: tuple[dict[str, Any], ...] = (
        {"device": "nano"}, {"protocol": window}, {"stream": {"size": 8}},
        {"stream_version": "old"},
    )  # fmt: skip
    others = [tasks(**change) for change in changes]
    assert len(set.union(first, *others)) == 5


def test_one_model_has_all_its_tasks_in_one_file(make: Make) -> None:
    found = read(made([make("tent"), make("tent", device="nano", after=0.7)]))
    (entries,) = found.values()
    assert [entry.value for entry in entries] == [60.0, 70.0]


def test_names_stay_in_the_folder(make: Make, nasty: str) -> None:
    records = [make(f"../{nasty}", model="../../x", device=nasty), make("a b"), make("a-b")]
    files = made(records)
    assert len(files) == 3
    for path, content in files.items():
        assert ".." not in path.replace(FILE, "")
        assert path.count("/") == 2
        for entry in parse_eval_result_entries(yaml.safe_load(content)):
            assert entry.notes is not None
            assert entry.notes.isprintable()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"benchmark": ""}, "--benchmark '': format hf-eval-results: name the data set on the Hub"),
        ({"benchmark": "edge"}, "--benchmark 'edge': format hf-eval-results: name the data set"),
        ({"benchmark": "a/../b"}, "name the data set"),
        ({"benchmark": "a b/c"}, "is no name on the Hub"),
        ({"source": "records"}, "--source 'records': give an address, as https://"),
        ({"source": "javascript:alert(1)"}, "give an address"),
    ],
)
def test_what_does_not_fit_is_one_line(make: Make, more: dict[str, str], message: str) -> None:
    with pytest.raises(BenchError, match=message) as told:
        made([make("tent")], **more)
    assert "\n" not in str(told.value)


def test_without_a_competing_result_there_is_none(make: Make) -> None:
    with pytest.raises(BenchError, match="no record of a method without labels has results"):
        made([make("tent", status="failed"), make("ewc", supervised=True)])
