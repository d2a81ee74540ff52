"""A cell's identity: every field counts; the training key leaves the device out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.cell import CORE_VERSION, Cell, Component

GOLDEN_IDENTITY = "f39a02b26c2ff9b4aaa8"
GOLDEN_TRAINING_KEY = "6bfed57bc8e7dfc194d6"

CHANGES: dict[str, Any] = {
    "method": Component(name="shot", config={"learning_rate": 0.001}, code="c0ffee"),
    "model": Component(name="other", config={"depth": 4}, code="beef"),
    "stream": Component(name="other", config={"size": 32}, code="cafe"),
    "data": "other",
    "device": "agx-orin",
    "device_digest": "other",
    "protocol": {"name": "periodic", "window_s": 61.0},
    "seed": 4,
    "target_labels": True,
    "core": 2,
    "settings_origin": "tuned",
    "variant": Component(name="compressed", config={"ratio": 8}, code="5e1f"),
    "accelerator": "cuda",
    "threads": 2,
    "precision": "bf16",
    "source_draw": 1,
}
DEVICE_ONLY = {"device", "device_digest"}
PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=8)


def test_the_identity_of_a_fixed_cell_is_what_it_was(make_cell: Callable[..., Cell]) -> None:
    """Old records are found by it: a change here makes every stored result anew."""
    cell = make_cell()
    assert cell.identity == GOLDEN_IDENTITY
    assert cell.training_key == GOLDEN_TRAINING_KEY


def test_every_field_is_tried_below() -> None:
    assert set(CHANGES) == set(Cell.model_fields)


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_changes_the_identity(make_cell: Callable[..., Cell], field: str) -> None:
    changed = make_cell(**{field: CHANGES[field]})
    assert changed.identity != make_cell().identity


@pytest.mark.parametrize("field", CHANGES)
def test_the_course_ignores_the_device_only(make_cell: Callable[..., Cell], field: str) -> None:
    same = make_cell(**{field: CHANGES[field]}).training_key == make_cell().training_key
    assert same == (field in DEVICE_ONLY)


@pytest.mark.parametrize("part", ["name", "config", "code"])
@pytest.mark.parametrize("kind", ["method", "model", "stream", "variant"])
def test_every_part_of_a_component_changes_identity_and_course(
    make_cell: Callable[..., Cell], kind: str, part: str
) -> None:
    plain = {"name": "a", "config": {"ratio": 1.0}, "code": "c"}
    other = {**plain, part: {"ratio": 2.0} if part == "config" else "z"}
    first = make_cell(**{kind: Component(**plain)})
    second = make_cell(**{kind: Component(**other)})
    assert first.identity != second.identity
    assert first.training_key != second.training_key


@given(
    a=st.dictionaries(st.text(max_size=4), PLAIN, max_size=4),
    b=st.dictionaries(st.text(max_size=4), PLAIN, max_size=4),
)
def test_identities_are_equal_exactly_when_the_settings_are(
    make_cell: Callable[..., Cell], a: dict[str, Any], b: dict[str, Any]
) -> None:
    def of(config: dict[str, Any]) -> str:
        return make_cell(method=Component(name="m", config=config, code="c")).identity

    def typed(config: dict[str, Any]) -> dict[str, Any]:
        return {k: (type(v), v) for k, v in config.items()}

    assert (of(a) == of(b)) == (typed(a) == typed(b))
    assert of(dict(reversed(a.items()))) == of(a)


@given(seed=st.integers(0, 2**31 - 1), window=st.floats(0.001, 1e6))
def test_a_cell_keeps_its_identity_through_json(
    make_cell: Callable[..., Cell], seed: int, window: float
) -> None:
    cell = make_cell(seed=seed, protocol={"name": "periodic", "window_s": window})
    again = Cell.model_validate_json(cell.model_dump_json())
    assert again == cell
    assert again.identity == cell.identity
    assert again.training_key == cell.training_key


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_identity_is_the_same_in_another_process(
    make_cell: Callable[..., Cell], hash_seed: str
) -> None:
    code = (
        "import sys; from bench.records.cell import Cell\n"
        "cell = Cell.model_validate_json(sys.argv[1]); print(cell.identity, cell.training_key)"
    )
    cell = make_cell()
    done = subprocess.run(
        [sys.executable, "-c", code, cell.model_dump_json()],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [cell.identity, cell.training_key]


def test_an_identity_is_20_hexadecimal_digits(make_cell: Callable[..., Cell]) -> None:
    assert len(make_cell().identity) == 20
    int(make_cell().identity, 16)
    assert make_cell().identity != make_cell().training_key


def test_a_changed_copy_has_the_identity_of_its_own_content(
    make_cell: Callable[..., Cell],
) -> None:
    cell = make_cell()
    assert cell.identity  # looked up before the copy is made
    copy = cell.model_copy(update={"seed": 4})
    assert copy.identity == make_cell(seed=4).identity


def test_asking_for_the_identity_leaves_cells_equal(make_cell: Callable[..., Cell]) -> None:
    cell = make_cell()
    assert cell.identity
    assert cell == make_cell()
    assert "identity" not in cell.model_dump()


def test_a_cell_refuses_unknown_fields_and_assignment(make_cell: Callable[..., Cell]) -> None:
    with pytest.raises(pydantic.ValidationError, match="extra_forbidden"):
        make_cell(sede=1)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        make_cell().seed = 5


def test_settings_that_cannot_be_named_have_no_identity(make_cell: Callable[..., Cell]) -> None:
    method = Component(name="m", config={"rate": float("nan")}, code="c")
    with pytest.raises(ValueError, match="JSON"):
        make_cell(method=method).identity  # noqa: B018


def test_a_fresh_cell_carries_the_cores_version(make_cell: Callable[..., Cell]) -> None:
    fields = make_cell().model_dump(exclude={"core"})
    assert Cell(**fields).core == CORE_VERSION


def test_the_title_names_method_model_device_and_seed(make_cell: Callable[..., Cell]) -> None:
    assert make_cell().title == "tent · digits-vit · xavier-nx · seed 3"


def test_titles_carry_the_variant(make_cell: Callable[..., Cell]) -> None:
    small = make_cell(variant=Component(name="compressed", config={"ratio": 8}, code="5e1f"))
    assert small.title == "tent · digits-vit compressed:8 · xavier-nx · seed 3"
    assert make_cell().title == "tent · digits-vit · xavier-nx · seed 3"
    assert small.model == make_cell().model


def test_a_record_of_before_there_were_variants_is_of_the_full_model() -> None:
    old = json.loads((Path(__file__).parent / "samples" / "schema-1.json").read_text())
    assert "variant" not in old["cell"]
    cell = Cell.model_validate(old["cell"])
    assert cell.variant is None
    assert cell.stream.name == old["cell"]["scenario"]["name"]  # as streams were called then
    again = Cell.model_validate_json(cell.model_dump_json())
    assert again == cell


def test_a_cell_under_its_old_keys_loads(make_cell: Callable[..., Cell]) -> None:
    cell = make_cell(settings_origin="tuned")
    old = cell.model_dump(mode="json")
    old |= {"scenario": old.pop("stream"), "settings": old.pop("settings_origin")}
    assert Cell.model_validate(old) == cell
    assert Cell.model_validate(old).identity == cell.identity


def test_the_first_draw_of_the_source_is_not_written(make_cell: Callable[..., Cell]) -> None:
    first, second = make_cell(source_draw=0), make_cell(source_draw=1)
    assert "source_draw" not in first.model_dump(mode="json")
    assert "draw" not in first.title
    assert second.model_dump(mode="json")["source_draw"] == 1
    assert second.title == first.title.replace(" · seed", " · draw 1 · seed")
    assert Cell.model_validate_json(second.model_dump_json()) == second


@pytest.mark.parametrize("draw", [-1, 2**31, "x", 0.5])
def test_a_draw_is_a_whole_number_from_0(make_cell: Callable[..., Cell], draw: object) -> None:
    with pytest.raises(pydantic.ValidationError, match="source_draw"):
        make_cell(source_draw=draw)
