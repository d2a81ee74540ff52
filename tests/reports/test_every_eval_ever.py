"""Files in the format of Every Eval Ever: what its schema (0.2.1) asks for, and the numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from bench import BenchError, registry
from bench.records.record import Record
from bench.reports.aggregate import SOURCE_ONLY
from bench.reports.comparison import compare

RETRIEVED = 1_760_492_095.81


def made(records: list[Record], organization: str = "A Lab") -> dict[str, dict[str, Any]]:
    files = registry.load("report", "every-eval-ever")(records, organization, RETRIEVED)
    return {path: json.loads(content) for path, content in files.items()}


def texts(values: dict[str, Any]) -> bool:
    return all(isinstance(v, str) for item in values.items() for v in item)


def test_every_row_with_results_has_a_file_with_what_the_schema_asks(paper: list[Record]) -> None:
    files = made(paper)
    (comparison,) = compare(paper)
    assert len(files) == len(comparison.drawn)
    pattern = r"data/edge-adaptation-bench/A-Lab/[A-Za-z0-9-]+/[0-9a-f]{8}(-[0-9a-f]{4}){3}-\w{12}"
    for path, content in files.items():
        assert re.fullmatch(pattern + r"\.json", path)
        assert content.keys() == {
            "schema_version", "evaluation_id", "evaluation_timestamp", "retrieved_timestamp",
            "source_metadata", "eval_library", "model_info", "evaluation_results",
        }  # fmt: skip
        model = content["model_info"]
        assert path.split("/")[2:4] == model["id"].split("/")
        assert content["evaluation_id"] == f"edge-adaptation-bench/{model['id']}/1760492096"
        assert content["retrieved_timestamp"] == "1760492096"
        source = content["source_metadata"]
        assert source["source_organization_name"] == "A Lab"
        assert source["source_type"] == "evaluation_run"
        assert source["evaluator_relationship"] == "other"
        assert texts(model["additional_details"])
        (result,) = content["evaluation_results"]
        assert {"evaluation_name", "source_data", "metric_config", "score_details"} < result.keys()
        assert result["source_data"]["source_type"] == "other"
        config = result["metric_config"]
        assert (config["score_type"], config["lower_is_better"]) == ("continuous", False)
        assert (config["min_score"], config["max_score"]) == (0, 1)
        assert 0 <= result["score_details"]["score"] <= 1
        assert texts(result["score_details"]["details"])
        assert texts(result["generation_config"]["additional_details"])


def test_the_numbers_are_those_of_the_report(paper: list[Record]) -> None:
    files = made(paper)
    (comparison,) = compare(paper)
    by_name = {content["model_info"]["name"]: content for content in files.values()}
    for row in comparison.drawn:
        (result,) = by_name[f"small-vit {row.label}"]["evaluation_results"]
        score, told = row.accuracy["score"], result["score_details"]
        assert told["score"] == score.mean
        interval = told.get("uncertainty", {}).get("confidence_interval")
        if score.interval is None:
            assert interval is None
        else:
            assert (interval["lower"], interval["upper"]) == score.interval
            assert interval["method"].startswith(f"Student-t over {score.n} seeds")
    source = by_name[f"small-vit {SOURCE_ONLY}"]["evaluation_results"][0]["score_details"]
    assert source["score"] == pytest.approx(0.5)
    assert source["details"]["peak_memory"] == "8 MB (modelled)"
    meterless = by_name["small-vit meterless"]["evaluation_results"][0]["score_details"]
    assert meterless["details"]["adaptation_energy"] == "unavailable"
    labelled = by_name["small-vit fine-tune"]["model_info"]["additional_details"]
    assert labelled["target_labels"] == "yes"


def test_equal_results_keep_the_names_of_their_files(paper: list[Record]) -> None:
    again = registry.load("report", "every-eval-ever")(paper[::-1], "A Lab", RETRIEVED + 9)
    assert again.keys() == made(paper).keys()


def test_names_stay_in_the_folder_and_on_a_line(make: Callable[..., Record], nasty: str) -> None:
    (path,) = files = made([make(f"../{nasty}", 0, model="../../x", device=nasty)], "../etc")
    assert ".." not in path
    assert path.count("/") == 4
    name = files[path]["model_info"]["name"]
    assert name.isprintable()
    assert "<script>" in name  # JSON needs no escape; whoever shows it does


def test_what_cannot_be_exported_is_said(make: Callable[..., Record]) -> None:
    with pytest.raises(BenchError, match="--organization: the format every-eval-ever asks who"):
        made([make("tent", 0)], " ")
    with pytest.raises(BenchError, match="no record has results"):
        made([make("tent", 0, status="failed")])
