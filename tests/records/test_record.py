"""Records: what they refuse, their summaries, and which endings are failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest

from bench.records.record import Amount, Costs, DomainResult, Record, Results

SAMPLE = Path(__file__).with_name("samples") / "schema-1.json"


def domain(name: str, before: float, after: float, final: float) -> DomainResult:
    return DomainResult(
        name=name, before=before, after=after, final=final, adaptation_samples=4,
        test_samples=4, steps=1, time_s=1.0, energy_j=None, window_closed=False,
    )  # fmt: skip


def results(*domains: DomainResult) -> Results:
    return Results.model_construct(source_before=1.0, source_after=1.0, domains=list(domains))


def test_means_and_forgetting_by_hand() -> None:
    three = results(
        domain("a", 0.25, 0.75, 0.5), domain("b", 0.5, 1.0, 0.25), domain("c", 0.75, 0.5, 0.0)
    )
    assert three.mean("before") == 0.5
    assert three.mean("after") == 0.75
    assert three.mean("final") == 0.25
    assert three.forgetting == ((0.75 - 0.5) + (1.0 - 0.25)) / 2  # the last domain is left out


def test_a_single_domain_forgets_nothing() -> None:
    assert results(domain("a", 0.5, 0.75, 0.25)).forgetting == 0.0


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "measured"), (None, "modelled"), (1.0, "unavailable")]
)
def test_an_amount_has_a_value_exactly_if_it_is_available(value: float | None, kind: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="an unavailable amount has no value"):
        Amount(value=value, unit="J", kind=kind, how="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "oom_on", "failure"),
    [
        ("ok", None, False),
        ("failed", None, True),
        ("timeout", None, True),
        ("interrupted", None, True),
        ("unsupported", None, False),
        ("oom", "device", False),
        ("oom", "host", True),
    ],
)
def test_device_memory_is_a_result_and_host_memory_a_failure(
    make_record: Callable[..., Record], status: str, oom_on: str | None, failure: bool
) -> None:
    assert make_record(status=status, oom_on=oom_on).is_failure == failure


@pytest.mark.parametrize(
    "change", [{"status": "good"}, {"wall_s": -1.0}, {"extra": 1}, {"schema_version": 3}]
)
def test_a_record_refuses_what_its_schema_does_not_know(
    make_record: Callable[..., Record], change: dict[str, object]
) -> None:
    with pytest.raises(pydantic.ValidationError):
        make_record(**change)


def test_method_facts_under_their_old_key_load(make_record: Callable[..., Record]) -> None:
    facts = make_record().method.model_copy(update={"settings_origin": "tuned"})
    old = facts.model_dump()
    old["settings"] = old.pop("settings_origin")
    assert type(facts).model_validate(old) == facts


def test_costs_and_scores_without_a_field_of_their_own_are_kept() -> None:
    amount = {"value": 2.0, "unit": "s", "kind": "measured", "how": "clock"}
    content = json.loads(SAMPLE.read_text())
    content["results"]["costs"]["tracing_time"] = amount
    content["results"]["domains"][0]["share"] = 0.5
    record = Record.model_validate_json(Record.model_validate(content).model_dump_json())
    assert record.results is not None
    assert [d.get("share") for d in record.results.domains[:2]] == [0.5, None]
    assert (record.results.mean_of("share"), record.results.mean_of("other")) == (0.5, None)
    assert record.results.costs.get("tracing_time") == Amount.model_validate(amount)
    assert record.results.costs.get("other") is None
    content["results"]["costs"]["tracing_time"] = 2.0
    with pytest.raises(pydantic.ValidationError, match="tracing_time"):
        Record.model_validate(content)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"adapt": 1.5}, ""),
        ({"adapt": 1.0, "proxy": 0.5}, ""),
        ({"adapt": 1.0}, "time_by_kind adds up to 1 s, adaptation_time is 1.5 s"),
        ({"adapt": 1.0, "idle": 0.5}, "time_by_kind has the kind 'idle', of which steps has none"),
        ({"adapt": 2.0, "proxy": -0.5}, "greater than or equal to 0"),
        ({}, "time_by_kind adds up to 0 s"),
    ],
)
def test_the_times_of_the_kinds_of_work_are_the_adaptation_time(
    told: dict[str, float], message: str
) -> None:
    content = json.loads(SAMPLE.read_text(encoding="utf-8"))["results"]["costs"]
    content |= {"steps": {"adapt": 8, "proxy": 1}, "time_by_kind": told}
    if not message:
        assert Costs.model_validate(content).time_by_kind == told
        return
    with pytest.raises(pydantic.ValidationError, match=message):
        Costs.model_validate(content)
