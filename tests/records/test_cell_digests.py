"""Digests of many cells at once are those of each."""

from __future__ import annotations

from itertools import product

from bench.records.cell import Cell, CellDigests, Component


def component(name: str, **config: object) -> Component:
    return Component(name=name, config=config, code="0" * 8)


def test_they_are_those_of_each_cell() -> None:
    model, stream = component("vit"), component("shift", files=("a",))
    protocol = {"name": "periodic", "window_s": 2.5}
    digests, seen = CellDigests(), set()
    variants = (None, component("compressed", ratio=8))
    for rate, variant, device in product((0.1, 0.2), variants, ("a", "b.yaml")):
        first = Cell(
            method=component("tent", rate=rate), model=model, stream=stream, data="d",
            device=device, device_digest=device, protocol=protocol, seed=0, variant=variant,
        )  # fmt: skip
        for seed, draw in product((0, 1, -7), (0, 2)):
            cell = first.model_copy(update={"seed": seed, "source_draw": draw})
            whole = Cell.model_validate_json(cell.model_dump_json())
            assert digests.identity(cell) == cell.identity == whole.identity
            assert digests.training_key(cell) == whole.training_key
            assert digests.identity(cell) == whole.identity  # the key has changed nothing
            seen.add(cell.identity)
    assert len(seen) == 8 * 6


def test_cells_whose_parts_are_equal_but_other_objects_are_told_apart_by_content() -> None:
    digests = CellDigests()
    for code in ("x", "y", "x"):
        cell = Cell(
            method=Component(name="m", code=code), model=component("vit"), data="d",
            stream=component("shift"), device="a", device_digest="b", protocol={}, seed=3,
        )  # fmt: skip
        assert digests.identity(cell) == cell.identity
        del cell
