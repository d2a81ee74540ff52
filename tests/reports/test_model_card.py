"""Metadata for model cards: the Hub's own library reads back the numbers of the report."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from bench import BenchError, registry
from bench.records.record import Record
from bench.reports.comparison import compare


def made(records: list[Record]) -> dict[str, bytes]:
    files: dict[str, bytes] = registry.load("report", "model-card")(records, "", 0.0)
    return files


def test_the_hubs_library_reads_the_numbers_of_the_report(paper: list[Record]) -> None:
    files = made(paper)
    (comparison,) = compare(paper)
    assert len(files) == len(comparison.drawn)
    cards = [yaml.safe_load(content.decode().strip("-\n")) for content in files.values()]
    read = dict(model_index_to_eval_results(card["model-index"]) for card in cards)
    for row in comparison.drawn:
        results = {r.metric_type: r for r in read[f"small-vit adapted by {row.label}"]}
        score = row.accuracy["score"]
        assert score is not None
        found = results["accuracy"]
        assert found.metric_value == pytest.approx(100 * score.mean, abs=5e-4)
        assert (found.dataset_type, found.task_name) == ("digits", "adaptation on board")
        assert found.metric_args["target_labels"] is row.supervised
        assert found.metric_args["runs"] == row.seeds
        if score.interval is not None:
            ends = [100 * end for end in score.interval]
            assert found.metric_args["interval_95"] == pytest.approx(ends, abs=5e-4)
        energy = row.costs["energy"].estimate
        assert ("energy" in results) is (energy is not None)
        if energy is not None:
            assert results["energy"].metric_value == pytest.approx(energy.mean, rel=1e-5)
            assert results["energy"].metric_name == "adaptation energy (J, modelled)"


def test_equal_records_give_equal_files(paper: list[Record]) -> None:
    assert made(paper[::-1]) == made(paper)


def test_names_stay_in_the_folder_and_in_their_file(
    make: Callable[..., Record], nasty: str
) -> None:
    (path,) = files = made([make(f"../{nasty}", model="../../x", device=nasty)])
    assert ".." not in path
    assert path.count("/") == 1
    (card,) = [yaml.safe_load(content.decode().strip("-\n")) for content in files.values()]
    assert len(card["model-index"]) == 1
    assert card["model-index"][0]["name"].isprintable()
    alike = made([make("a-b"), make("a b", after=0.7), make("a_b", supervised=True)])
    assert len(alike) == 3


def test_without_results_there_is_no_card(make: Callable[..., Record]) -> None:
    with pytest.raises(BenchError, match="format model-card: no record has results"):
        made([make("tent", status="failed")])
