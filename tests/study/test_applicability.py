"""What a method does not run on is said before it runs, with the names of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.records.cell import Cell, Component
from bench.study.applicability import unsupported

PLUGIN = '''
from bench import Method, ModelConfig, Variant, register
from bench.testing import TinyModel, TinyStream

@register("method", "plain")
class Plain(Method):
    """Declares nothing."""

@register("method", "whole-domains")
class WholeDomains(Method):
    """Works on whole domains."""
    protocols = ("periodic",)

@register("method", "batches")
class Batches(Method):
    """Works on streams."""
    protocols = ("online",)

@register("method", "learns-classes")
class LearnsClasses(Method):
    """Knows both shifts."""
    shifts = ("domain", "class")

@register("method", "classes-alone")
class ClassesAlone(Method):
    """Knows new classes alone."""
    shifts = ("class",)

@register("method", "detects")
class Detects(Method):
    """Does another task."""
    tasks = ("detection", "tracking")
    shifts = ("class",)
    protocols = ("periodic",)

@register("method", "needs-labels")
class NeedsLabels(Method):
    """Needs labels."""
    needs = ("target_labels",)

@register("method", "picky")
class Picky(Method):
    """Has a reason of its own."""
    @classmethod
    def skip(cls, cell):
        return f"seed {cell.seed} brings bad luck" if cell.seed == 13 else None

@register("method", "regresses")
class Regresses(Method):
    """Does another task."""
    tasks = ("regression",)

@register("model", "boxes")
class Boxes(TinyModel):
    """Another task."""
    task = "detection"

@register("model", "numbers")
class Numbers(TinyModel):
    """Another task."""
    task = "regression"

@register("variant", "halves-boxes")
class HalvesBoxes(Variant):
    """For another task."""
    tasks = ("detection",)
    Config = ModelConfig

@register("stream", "of-numbers")
class OfNumbers(TinyStream):
    """Another task."""
    task = "regression"

@register("stream", "of-text")
class OfText(TinyStream):
    """Its inputs hold the answers."""
    task = "generation"

@register("stream", "shifts-domains")
class ShiftsDomains(TinyStream):
    """Domains shift."""

@register("stream", "brings-classes")
class BringsClasses(TinyStream):
    """Classes come."""
    shifts = ("class",)
    supervised = True

@register("stream", "does-both")
class DoesBoth(TinyStream):
    """Both."""
    shifts = ("domain", "class")
    supervised = True
'''


@pytest.fixture
def why(
    tmp_path: Path, empty_registry: None, make_cell: Callable[..., Cell]
) -> Callable[..., str | None]:
    """(method, stream, protocol) -> the reason."""
    path = tmp_path / "toys.py"
    path.write_text(PLUGIN)
    registry.add_plugin(path)

    def ask(
        method: str, stream: str = "shifts-domains", protocol: str = "periodic", **more: Any
    ) -> str | None:
        cell = make_cell(
            method=Component(name=method, code="c"),
            stream=Component(name=stream, code="c"),
            protocol={"name": protocol} if protocol else {},
            **more,
        )
        return unsupported(cell)

    return ask


Why = Callable[..., str | None]


@pytest.mark.parametrize(
    ("method", "stream", "protocol"),
    [
        ("plain", "shifts-domains", "periodic"),
        ("plain", "shifts-domains", "online"),
        ("whole-domains", "shifts-domains", "periodic"),
        ("whole-domains", "shifts-domains", ""),  # as in records that name no protocol
        ("batches", "shifts-domains", "online"),
        ("plain", "shifts-domains", "online-timed"),  # nothing that a method has to know
        ("batches", "shifts-domains", "online-timed"),
        ("learns-classes", "brings-classes", "periodic"),
        ("learns-classes", "does-both", "online"),
        ("classes-alone", "brings-classes", "periodic"),
        ("needs-labels", "shifts-domains", "periodic"),
        ("picky", "shifts-domains", "periodic"),
    ],
)
def test_what_a_method_declares_is_supported(
    why: Why, method: str, stream: str, protocol: str
) -> None:
    assert why(method, stream, protocol, target_labels=method == "needs-labels") is None


@pytest.mark.parametrize(
    ("method", "stream", "parts"),
    [
        ("plain", "brings-classes", ("in which the domain may shift", "so does the class")),
        ("plain", "does-both", ("in which the domain may shift", "so does the class")),
        ("classes-alone", "does-both", ("in which the class may shift", "so does the domain")),
        ("classes-alone", "shifts-domains", ("the class may shift", "so does the domain")),
    ],
)
def test_a_shift_that_a_method_does_not_know_is_named(
    why: Why, method: str, stream: str, parts: tuple[str, ...]
) -> None:
    reason = why(method, stream)
    assert reason is not None
    for part in (method, stream, *parts):
        assert part in reason


@pytest.mark.parametrize(
    ("method", "protocol", "known"),
    [
        ("whole-domains", "online", "periodic"),
        ("whole-domains", "online-timed", "periodic"),
        ("batches", "periodic", "online"),
    ],
)
def test_a_protocol_that_a_method_does_not_run_under_is_named(
    why: Why, method: str, protocol: str, known: str
) -> None:
    assert why(method, protocol=protocol) == (
        f"{method} runs under the {known} protocol; this one is {protocol}"
    )


def test_the_first_reason_is_the_task(why: Why) -> None:
    reason = why("detects", "does-both", "online")
    assert reason == (
        "detects does detection, tracking; stream does-both is classification: take a method, a "
        "model and a stream of one task"
    )


@pytest.mark.parametrize(
    ("method", "model", "stream", "starts"),
    [
        ("plain", "boxes", "shifts-domains", "model boxes does detection; stream shifts-domains"),
        ("plain", "digits-vit", "of-numbers", "plain does classification; stream of-numbers is"),
        ("regresses", "boxes", "of-numbers", "model boxes does detection; stream of-numbers is"),
    ],
)  # fmt: skip
def test_a_model_of_another_task_is_named(
    why: Why, method: str, model: str, stream: str, starts: str
) -> None:
    reason = why(method, stream, model=Component(name=model, code="c"))
    assert reason is not None
    assert reason.startswith(starts)


def test_methods_without_labels_are_told_why_they_may_not_read_the_answers(why: Why) -> None:
    assert why("plain", "of-text") == (
        "plain adapts without labels, and inputs of generation hold the answers, which are its "
        "labels; in of-text take methods with target labels"
    )
    assert "does classification" in (why("needs-labels", "of-text", target_labels=True) or "")


def test_parts_of_one_task_run_also_of_another_than_classification(why: Why) -> None:
    model = Component(name="numbers", code="c")
    assert why("regresses", "of-numbers", model=model) is None


def test_a_variant_for_another_task_is_named(why: Why) -> None:
    variant = Component(name="halves-boxes", config={"ratio": 2}, code="c")
    reason = why("plain", variant=variant)
    assert reason is not None
    assert reason.startswith("variant halves-boxes does detection; stream shifts-domains is class")


def test_labels_that_nobody_gives_are_a_reason_with_its_cure(why: Why) -> None:
    reason = why("needs-labels")
    assert reason is not None
    assert "needs-labels needs target labels and shifts-domains is unsupervised" in reason
    assert "supervised_references" in reason
    assert why("needs-labels", target_labels=True) is None


def test_a_reason_of_the_methods_own_comes_last(why: Why) -> None:
    assert why("picky", seed=13) == "seed 13 brings bad luck"
    assert "the domain may shift" in (why("picky", "brings-classes", seed=13) or "")


@pytest.mark.parametrize("kind", ["method", "stream"])
def test_every_component_declares_shifts_and_protocols_that_exist(kind: str) -> None:
    for name, entry in registry.entries(kind).items():
        shifts = entry.facts.get("shifts", ("domain",))
        assert shifts, name
        assert set(shifts) <= {"domain", "class"}, name
        protocols = entry.facts.get("protocols", ("periodic",))
        assert protocols, name
        assert set(protocols) <= {"periodic", "online"}, name
