"""Suite files: what they mean, and one line that names file, key and cure for each mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import registry
from bench.errors import BenchError
from bench.study.plan import make_cells
from bench.study.suite import Suite, load_suite, parse_seeds, select, suite_files

GOOD = """\
name: mine
description: a suite for tests
stream: digits-shift
model: {name: digits-vit, depth: 2}
methods:
  - source-only
  - {name: tent, learning_rate: 0.01}
seeds: 3
devices: xavier-nx
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def to(content: str | bytes) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to


def complaint(path: Path) -> str:
    """The error of loading and planning a suite file; one line that names the file."""
    with pytest.raises(BenchError) as caught:
        make_cells(*load_suite(str(path)))
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_a_suite_file_by_its_path(write: Callable[..., Path]) -> None:
    suite, path = load_suite(str(write(GOOD)))
    assert path.name == "mine.yaml"
    assert suite.model.config == {"depth": 2}
    assert [(r.name, r.config) for r in suite.methods] == [
        ("source-only", {}), ("tent", {"learning_rate": 0.01}),
    ]  # fmt: skip
    assert suite.seeds == [0, 1, 2]
    assert suite.devices == ["xavier-nx"]


@pytest.mark.parametrize("name", sorted(suite_files()))
def test_every_shipped_suite_loads_under_its_file_name(name: str) -> None:
    suite, path = load_suite(name)
    assert suite.name == name == path.stem
    assert len(suite.description) > 10
    assert suite.seeds


def test_cells_are_the_product_of_methods_seeds_and_devices(write: Callable[..., Path]) -> None:
    text = GOOD.replace("devices: xavier-nx", "devices: [xavier-nx, agx-orin]")
    text += "supervised_references: [tent]\n"
    cells = make_cells(*load_suite(str(write(text))))
    assert len(cells) == (2 + 1) * 3 * 2
    assert len({c.identity for c in cells}) == len(cells)
    assert len({c.training_key for c in cells}) == len(cells) / 2
    assert [c.device for c in cells[:2]] == ["xavier-nx", "agx-orin"]
    assert {(c.method.name, c.target_labels) for c in cells} == {
        ("source-only", False), ("tent", False), ("tent", True),
    }  # fmt: skip
    rates = {c.method.config["learning_rate"] for c in cells if c.method.name == "tent"}
    assert rates == {0.01, 0.001}  # the setting and the default
    assert {c.protocol["window_s"] for c in cells} == {60.0}


def test_settings_that_say_the_default_are_the_same_cell(write: Callable[..., Path]) -> None:
    plain = make_cells(*load_suite(str(write(GOOD))))
    spelt = GOOD.replace("source-only", "{name: source-only}").replace(
        "depth: 2", "depth: 2, heads: 4"
    )
    spelt += "protocol: {window_s: 60}\n"
    again = make_cells(*load_suite(str(write(spelt))))
    assert [c.identity for c in again] == [c.identity for c in plain]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("full", {})]),
        ("variants: full", [("full", {})]),
        ("variants: compressed:8", [("compressed", {"ratio": 8})]),
        ("variants: [full, compressed:8]", [("full", {}), ("compressed", {"ratio": 8})]),
        ("variants: {name: compressed, ratio: 4, steps: 10}",
         [("compressed", {"ratio": 4, "steps": 10})]),
        ("variants: [{name: full}, {name: compressed, ratio: 4, steps: 10}]",
         [("full", {}), ("compressed", {"ratio": 4, "steps": 10})]),
        ("variants:\n- full\n- compressed:8\n", [("full", {}), ("compressed", {"ratio": 8})]),
    ],
)  # fmt: skip
def test_variants_by_name_ratio_or_settings(
    write: Callable[..., Path], text: str, expected: list[tuple[str, dict[str, int]]]
) -> None:
    suite, path = load_suite(str(write(GOOD + text)))
    assert [(v.name, v.config) for v in suite.variants] == expected
    variants = {c.variant and (c.variant.name, c.variant.config["ratio"]) for c in
                make_cells(suite, path)}  # fmt: skip
    assert variants == {None if n == "full" else (n, c["ratio"]) for n, c in expected}


def test_every_method_runs_on_every_variant_with_every_seed_and_device(
    write: Callable[..., Path],
) -> None:
    text = GOOD.replace("devices: xavier-nx", "devices: [xavier-nx, agx-orin]")
    text += "supervised_references: [tent]\n"
    text += "variants: [full, compressed:8, {name: compressed, ratio: 8, steps: 10}, full]\n"
    cells = make_cells(*load_suite(str(write(text))))
    assert len(cells) == (2 * 3 + 1) * 3 * 2  # the reference on the first variant alone
    assert len({c.identity for c in cells}) == len(cells)
    assert len({c.training_key for c in cells}) == len(cells) / 2
    kinds = {c.variant and c.variant.config["steps"] for c in cells}
    assert {None, 10} < kinds
    assert len(kinds) == 3
    full = {c.identity for c in cells if c.variant is None}
    plain = text.partition("variants")[0]
    assert {c.identity for c in make_cells(*load_suite(str(write(plain))))} == full


def test_an_unknown_suite_is_answered_with_the_nearest() -> None:
    with pytest.raises(BenchError) as caught:
        load_suite("domain-shfit")
    text = str(caught.value)
    assert "unknown suite 'domain-shfit': did you mean 'domain-shift'" in text
    assert ".yaml" in text


def test_a_missing_file(tmp_path: Path) -> None:
    text = complaint(tmp_path / "no.yaml")
    assert text.endswith("no.yaml: No such file or directory; check the path")


def test_a_folder_with_a_suites_ending(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert "Is a directory" in complaint(tmp_path / "folder.yaml")


def test_a_folder_as_a_suite(tmp_path: Path) -> None:
    text = complaint(tmp_path)
    assert "unknown suite" in text
    assert "give the path of a .yaml file" in text


def test_bad_yaml_names_the_line(write: Callable[..., Path]) -> None:
    text = complaint(write(GOOD.replace("methods:", "methods: [")))
    assert re.search(r" line [56]: not valid YAML", text), text


def test_a_control_character_is_one_line(write: Callable[..., Path]) -> None:
    assert "not valid YAML" in complaint(write(GOOD.replace("a suite", "a \x07 suite")))


def test_a_file_that_is_not_utf_8(write: Callable[..., Path]) -> None:
    assert "not UTF-8 text; save it as UTF-8" in complaint(write(b"name: caf\xe9\n"))


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just text\n", "5\n"])
def test_a_file_that_is_no_mapping_lists_the_keys(write: Callable[..., Path], content: str) -> None:
    text = complaint(write(content))
    assert "a suite is a mapping with keys name, description, stream" in text


def test_yaml_that_would_run_code_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = write(GOOD + f"protocol: !!python/object/apply:os.mkdir ['{mark}']\n")
    assert "not valid YAML" in complaint(path)
    assert not mark.exists()


BAD = {
    "an unknown key": (
        GOOD + "device: agx-orin\n", ["key 'device': unknown", "did you mean 'devices'?"],
    ),
    "a missing key": (GOOD.replace("model:", "#"), ["key 'model': missing; add it"]),
    "a method that does not exist": (
        GOOD.replace("name: tent", "name: tnet"),
        ["method 2", "unknown method 'tnet'", "did you mean 'tent'"],
    ),
    "a stream that does not exist": (
        GOOD.replace("digits-shift", "digits-shfit"),
        ["stream", "unknown stream 'digits-shfit'", "did you mean 'digits-shift'"],
    ),
    "a model that does not exist": (
        GOOD.replace("digits-vit", "digit-vit"),
        ["unknown model 'digit-vit'", "did you mean 'digits-vit'"],
    ),
    "a seed below zero": (
        GOOD.replace("seeds: 3", "seeds: [0, -1]"),
        ["key 'seeds.1'", "-1 is not allowed", "greater than or equal to 0"],
    ),
    "threads on a GPU": (
        GOOD + "accelerator: cuda\nthreads: 4\n",
        ["key 'threads'", "4 is not allowed", "runs on the CPU", "remove them"],
    ),
    "a seed that is text": (GOOD.replace("seeds: 3", "seeds: many"), ["'seeds'", "'many'"]),
    "a seed that is true": (
        GOOD.replace("seeds: 3", "seeds: yes"), ["'seeds'", "give a number of seeds or a list"],
    ),
    "no seeds": (GOOD.replace("seeds: 3", "seeds: 0"), ["'seeds'", "at least 1"]),
    "no devices": (GOOD.replace("xavier-nx", "[]"), ["'devices'", "at least 1"]),
    "a window of zero": (
        GOOD + "protocol: {window_s: 0}\n",
        ["protocol", "key 'window_s'", "0 is not allowed", "greater than 0"],
    ),
    "a window without end": (GOOD + "protocol: {window_s: .inf}\n", ["'window_s'", "finite"]),
    "an unknown protocol key": (
        GOOD + "protocol: {windows: 5}\n", ["key 'windows': unknown", "did you mean 'window_s'?"],
    ),
    "an unknown protocol": (GOOD + "protocol: {name: periodical}\n", ["'name'", "'periodic'"]),
    "a setting out of bounds": (
        GOOD.replace("0.01", "2.0"),
        ["method 2 'tent'", "key 'learning_rate'", "2.0 is not allowed", "less than or equal to 1"],
    ),
    "a setting of a wrong type": (
        GOOD.replace("0.01", "fast"), ["key 'learning_rate'", "'fast' is not allowed"],
    ),
    "an unknown setting": (
        GOOD.replace("learning_rate", "learnign_rate"),
        ["key 'learnign_rate': unknown", "did you mean 'learning_rate'?"],
    ),
    "a model's setting out of bounds": (
        GOOD.replace("depth: 2", "depth: 0"), ["model 'digits-vit'", "key 'depth'", "0"],
    ),
    "a method without a name": (
        GOOD.replace("name: tent, ", ""), ["'methods.1'", "with 'name' and settings"],
    ),
    "a setting whose key is a number": (
        GOOD.replace("learning_rate: 0.01", "1: 2"), ["'methods.1"],
    ),
    "a variant without a ratio": (
        GOOD + "variants: compressed\n",
        ["key 'variants.0'", "'compressed' is not allowed", "write full", "compressed:8"],
    ),
    "a ratio that is no number": (
        GOOD + "variants: [full, 'compressed:x']\n",
        ["key 'variants.1'", "'compressed:x' is not allowed", "such as compressed:8"],
    ),
    "a ratio that is no whole number": (
        GOOD + "variants: compressed:2.5\n", ["'compressed:2.5' is not allowed", "whole ratio"],
    ),
    "a ratio without a name": (GOOD + "variants: ['8']\n", ["'8' is not allowed"]),
    "a variant that does not exist": (
        GOOD + "variants: compresed:8\n",
        ["variants", "unknown variant 'compresed'", "did you mean 'compressed'?"],
    ),
    "the full model misspelt": (
        GOOD + "variants: {name: ful}\n", ["unknown variant 'ful'", "did you mean 'full'?"],
    ),
    "settings of the full model": (
        GOOD + "variants: [{name: full, ratio: 4}]\n",
        ["key 'variants.0'", "full", "has no settings"],
    ),
    "an unknown setting of a variant": (
        GOOD + "variants: {name: compressed, ratoi: 4}\n",
        ["variants 'compressed'", "key 'ratoi': unknown", "did you mean 'ratio'?"],
    ),
    "a ratio of 0": (
        GOOD + "variants: compressed:0\n",
        ["variants 'compressed'", "key 'ratio'", "0 is not allowed", "greater than or equal to 1"],
    ),
    "a ratio below 0": (GOOD + "variants: compressed:-2\n", ["'compressed:-2' is not allowed"]),
    "a variant that is a number": (GOOD + "variants: [8]\n", ["key 'variants.0'", "8 is not"]),
    "a variant without a name": (
        GOOD + "variants: {ratio: 8}\n", ["key 'variants.0'", "with 'name' and settings"],
    ),
    "no variants": (GOOD + "variants: []\n", ["'variants'", "at least 1"]),
    "variants misspelt": (
        GOOD + "variant: full\n", ["key 'variant': unknown", "did you mean 'variants'?"],
    ),
    "a name that is no file name": (GOOD.replace("name: mine", "name: ../x"), ["'name'", "'../x'"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_that_names_file_key_and_cure(
    write: Callable[..., Path], name: str
) -> None:
    content, parts = BAD[name]
    assert content != GOOD
    text = complaint(write(content))
    for part in parts:
        assert part in text


def test_an_unknown_device_is_answered_with_the_nearest(write: Callable[..., Path]) -> None:
    path = write(GOOD.replace("xavier-nx", "xavier-xn"))
    with pytest.raises(BenchError, match="unknown device 'xavier-xn': did you mean 'xavier-nx'"):
        make_cells(*load_suite(str(path)))


# --- seeds and methods of the command line ---------------------------------------


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0..4", [0, 1, 2, 3, 4]), ("0-4", [0, 1, 2, 3, 4]), ("1 - 2, 5", [1, 2, 5]),
     ("0,3,7", [0, 3, 7]), ("5", [5]), ("0..1,9,4..5", [0, 1, 9, 4, 5]),
     ("3..3", [3])],
)  # fmt: skip
def test_seeds_of_the_command_line(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@given(st.lists(st.integers(0, 10**6), min_size=1, unique=True))
def test_a_list_of_seeds_reads_back(seeds: list[int]) -> None:
    assert parse_seeds(",".join(map(str, seeds))) == seeds


@pytest.mark.parametrize(
    "text",
    ["", "a", "1..", "..4", "4..1", "-1", "1,1", "0..3,2", "1.5", "1;2", "0...4", "1--2", "5-1"],
)
def test_bad_seeds_name_the_option_and_show_how(text: str) -> None:
    with pytest.raises(BenchError) as caught:
        parse_seeds(text)
    assert f"--seeds {text!r}" in str(caught.value)
    assert "0..4 or 0,1,2" in str(caught.value)


@pytest.mark.parametrize("text", ["5..1", "5-1"])
def test_seeds_that_count_down_are_told_the_order(text: str, write: Callable[..., Path]) -> None:
    with pytest.raises(BenchError, match=r"5 is above 1; write 1\.\.5"):
        parse_seeds(text)
    said = complaint(write(GOOD.replace("seeds: 3", f"seeds: {text}")))
    assert "key 'seeds'" in said
    assert "5 is above 1; write 1..5" in said


@pytest.mark.parametrize("text", ["0..99999999999999999999", "0..2147483648", "0-1000", "9" * 5000])
def test_more_seeds_than_there_are_is_one_line(text: str) -> None:
    with pytest.raises(BenchError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["0..4", "0-4", "'0,1..4'", "[0, 1, 2, 3, 4]", "5"])
def test_a_suite_takes_seeds_as_the_command_line_does(
    text: str, write: Callable[..., Path]
) -> None:
    suite, _ = load_suite(str(write(GOOD.replace("seeds: 3", f"seeds: {text}"))))
    assert suite.seeds == [0, 1, 2, 3, 4]


@pytest.fixture
def suite(write: Callable[..., Path]) -> Suite:
    return load_suite(str(write(GOOD + "supervised_references: [ewc, tent]\n")))[0]


METHOD = (
    "from bench import Method, register\n@register('method', 'mine')\nclass M(Method):\n    pass\n"
)


@pytest.mark.usefixtures("empty_registry")
def test_a_suite_names_its_plugins_relative_to_its_file(write: Callable[..., Path]) -> None:
    path = write(GOOD.replace("source-only", "mine") + "plugins: lab/idea.py\n")
    assert "key 'plugins': plugin" in complaint(path)
    assert "lab/idea.py: no such file" in complaint(path)
    (path.parent / "lab").mkdir()
    (path.parent / "lab" / "idea.py").write_text(METHOD)
    assert {cell.method.name for cell in make_cells(*load_suite(str(path)))} == {"mine", "tent"}
    assert registry.plugins() == [(path.parent / "lab" / "idea.py").resolve()]


ODD = """
from typing import Any
from pydantic import Field, field_validator
from bench import Method, MethodConfig, register
deep = []
for _ in range(5000):
    deep = [deep]

class Odd(MethodConfig):
    value: Any = {default}

    @field_validator("value")
    def known(cls, value):
        return {{1: value}}[1] if value != "two" else {{}}[value]

@register("method", "odd")
class Mine(Method):
    Config = Odd
"""


@pytest.mark.usefixtures("empty_registry")
@pytest.mark.parametrize(
    ("default", "given", "said"),
    [
        (
            "Field(default_factory=lambda: deep)",
            "odd",
            "key 'value': [[[[[[[...]]]]]]] cannot be part of a record",
        ),
        ("object()", "odd", "cannot be part of a record"),
        ("float('nan')", "odd", "key 'value': nan cannot be part of a record"),
        ("1\n    def model_dump(self, **_): 1 / 0", "odd", "cannot be part of a record (ZeroDiv"),
        (
            "1\n    def model_dump(self, **_): return 5",
            "odd",
            "cannot be part of a record (TypeErr",
        ),
        ("1", "{name: odd, value: two}", "Odd fails on these settings: KeyError: 'two'"),
    ],
)
def test_settings_that_no_record_can_hold_are_one_line(
    write: Callable[..., Path], default: str, given: str, said: str
) -> None:
    path = write(GOOD.replace("source-only", given) + "plugins: odd.py\n")
    (path.parent / "odd.py").write_text(ODD.format(default=default))
    text = complaint(path)
    assert "method 1 'odd'" in text
    assert said in text


def test_an_unknown_method_of_a_suite_is_told_how_a_file_is_named(
    write: Callable[..., Path],
) -> None:
    text = complaint(write(GOOD.replace("source-only", "mine")))
    assert "unknown method 'mine'" in text
    assert "--plugin" in text
    assert "plugins" in text


def test_large_and_deep_values_are_quoted_in_part(write: Callable[..., Path]) -> None:
    deep = "[" * 90 + "]" * 90
    for wrong in (f"[{'x' * 5000}]", deep, "{a: " + deep + "}", f"'{'x' * 5000}'"):
        assert (
            len(complaint(write(GOOD.replace("[0, 1]", "").replace("seeds: 3", f"seeds: {wrong}"))))
            < 600
        )


def selected(suite: Suite, names: list[str] | None) -> list[tuple[str, bool]]:
    return [(r.name, labelled) for r, labelled in select(suite, names).all_methods()]


def test_no_selection_is_the_whole_suite(suite: Suite) -> None:
    assert select(suite, None) is suite
    assert select(suite, []) is suite


def test_selection_keeps_settings_and_label_access(suite: Suite) -> None:
    assert selected(suite, ["tent"]) == [("tent", False), ("tent", True)]
    assert select(suite, ["tent"]).methods[0].config == {"learning_rate": 0.01}
    assert selected(suite, ["ewc"]) == [("ewc", True)]


def test_a_selected_method_that_the_suite_does_not_list_is_added_without_labels(
    suite: Suite,
) -> None:
    assert selected(suite, ["lora", "source-only", "lora"]) == [
        ("source-only", False), ("lora", False),
    ]  # fmt: skip
    assert [r.name for r in suite.methods] == ["source-only", "tent"]  # the suite is untouched


def test_further_references_run_with_labels_and_only_where_they_are_named(
    write: Callable[..., Path],
) -> None:
    text = GOOD + "supervised_references: [ewc]\nfurther_references: [{name: lora, rank: 2}, gem]\n"
    suite = load_suite(str(write(text)))[0]
    usual = [("source-only", False), ("tent", False), ("ewc", True)]
    assert selected(suite, None) == usual
    assert [r.name for r in select(suite, None).further_references] == ["lora", "gem"]
    assert selected(suite, ["lora", "tent"]) == [("tent", False), ("lora", True)]
    assert select(suite, ["lora"]).supervised_references[0].config == {"rank": 2}
    assert not select(suite, ["lora"]).further_references
    assert selected(suite, ["all"]) == [*usual, ("lora", True), ("gem", True)]
    with_own = [*usual[:2], ("shot", False), *usual[2:], ("lora", True), ("gem", True)]
    assert selected(suite, ["shot", "all", "gem"]) == with_own


def test_a_suite_from_when_streams_were_called_scenarios_names_the_new_key(tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(suite_files()["smoke"].read_text().replace("\nstream:", "\nscenario:"))
    with pytest.raises(BenchError, match="key 'scenario': is called 'stream' now; rename it"):
        load_suite(str(old))
