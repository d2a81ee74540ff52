"""Domain shift over any data set: who learns and tests what, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

from bench import BenchError, add_plugin, load
from bench.contracts.settings import file_digests
from bench.contracts.stream import Split
from bench.datasets._samples import divide, sample_names
from bench.run.validity import BuiltStream, build_stream
from bench.testing import isolated_registry

PLUGIN = Path(__file__).resolve().parents[2] / "plugins" / "toy_dataset.py"


@pytest.fixture
def numbers(tmp_path: Path) -> Any:
    """Settings of a data set of 20 numbers in each of three domains, in a folder."""
    root = tmp_path / "numbers"
    root.mkdir()
    for d, domain in enumerate(("a", "b", "c")):
        lines = [f"{100 * d + i} {i % 2}" for i in range(20)]
        (root / f"{domain}.txt").write_text("\n".join(lines))
    with isolated_registry():
        add_plugin(PLUGIN)
        yield {"name": "toy-numbers", "root": str(root)}


def stream(seed: int = 0, **settings: Any) -> Any:
    stream_class = load("stream", "domain-shift")
    return stream_class(stream_class.Config(**settings), seed)


def values(split: Split) -> list[float]:
    return split.x.flatten().tolist()


def every(built: BuiltStream) -> tuple[list[float], list[float]]:
    """All that is learned anywhere, and all that is tested."""
    domains = [built.source, *built.domains]
    return (
        [v for d in domains for v in values(d.adaptation)],
        [v for d in domains for v in values(d.test)],
    )


def test_the_first_domain_is_the_source_and_the_others_follow(numbers: Any) -> None:
    built = build_stream(stream(data=numbers))
    assert [d.name for d in built.domains] == ["b", "c"]
    assert sorted(values(built.source.adaptation) + values(built.source.test)) == list(range(20))
    assert [len(d.test) for d in built.domains] == [6, 6]  # three of each class
    assert built.domains[0].test.y.tolist().count(1) == 3


def test_targets_come_as_listed_and_sources_may_be_several(numbers: Any) -> None:
    made = stream(data=numbers, source="b", targets=["c", "a"])
    assert made.domain_names() == ["c", "a"]
    both = build_stream(stream(data=numbers, source=["a", "b"]))
    assert [d.name for d in both.domains] == ["c"]
    assert len(both.source.adaptation) == 28


def test_the_seed_divides_targets_and_leaves_the_source(numbers: Any) -> None:
    first, same, other = (build_stream(stream(seed, data=numbers)) for seed in (0, 0, 1))
    assert every(first) == every(same)
    assert values(first.source.adaptation) == values(other.source.adaptation)
    assert values(first.domains[0].test) != values(other.domains[0].test)
    orders = {tuple(stream(s, data=numbers, order="shuffled").domain_names()) for s in range(9)}
    assert orders == {("b", "c"), ("c", "b")}


def test_a_split_of_another_name_is_no_training_data(
    numbers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stream(data=numbers)
    monkeypatch.setattr(type(made.data), "splits", lambda *_: ("train", "Test"))
    with pytest.raises(BenchError, match="has a split 'Test': a data set calls its splits train"):
        made.source()


def test_samples_are_limited_where_asked(numbers: Any) -> None:
    limits = {"source_samples": 9, "samples": 5, "test_samples": 4}
    built = build_stream(stream(data=numbers, **limits))
    assert (len(built.source.adaptation), len(built.source.test)) == (9, 4)
    assert [(len(d.adaptation), len(d.test)) for d in built.domains] == [(5, 4), (5, 4)]


def test_equal_samples_of_several_domains_are_learned_or_tested_not_both(numbers: Any) -> None:
    root = Path(numbers["root"])
    (root / "c.txt").write_text((root / "a.txt").read_text() + "\n999 0\n998 1\n997 0\n996 1")
    built = build_stream(stream(data=numbers))
    learned, tested = every(built)
    assert not set(learned) & set(tested)
    source = set(values(built.source.adaptation))
    assert not source & set(values(built.domains[1].test))
    assert source & set(values(built.domains[1].adaptation))  # learned twice is no leak


def test_equal_samples_of_a_domain_stay_together() -> None:
    names = [str(i // 3) for i in range(30)]
    rest, held = divide(names, torch.zeros(30, dtype=torch.int64), 0.3, np.random.default_rng(0))
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(30))
    assert len(held) == 9
    assert not {names[i] for i in rest} & {names[i] for i in held}


def test_corruptions_of_one_domain_share_their_division(image_folder: Path) -> None:
    data = {"name": "image-folder", "root": str(image_folder), "size": 16}
    built = build_stream(
        stream(data=data, source="near", corruptions=["contrast", "noise-2"], test=0.5)
    )
    assert [d.name for d in built.domains] == ["contrast-1", "contrast-2", "noise-2"]
    sides = [[d.adaptation.x.sample_names(), d.test.x.sample_names()] for d in built.domains]
    assert sides[0] == sides[1] == sides[2]
    assert not set(sides[0][0] + sides[0][1]) & set(built.source.adaptation.x.sample_names())
    assert built.source.test.x.sample_names() == sides[0][1]
    assert [len(built.source.adaptation), *map(len, sides[0])] == [12, 4, 4]
    dull, lively = (d.test.x[torch.arange(4)].std() for d in built.domains[1:])
    assert dull < lively


def test_the_validation_stream_is_made_of_what_the_source_model_learns(image_folder: Path) -> None:
    stream_class = load("stream", "domain-shift")
    data = {"name": "image-folder", "root": str(image_folder), "size": 16}
    config = stream_class.Config(data=data, source="near", targets="far")
    reported = build_stream(stream_class(config, 0))
    tuned = build_stream(stream_class(stream_class.validation(config), 0))
    learned = set(reported.source.adaptation.x.sample_names())
    domains = [tuned.source, *tuned.domains]
    used = [set(p.x.sample_names()) for d in domains for p in (d.adaptation, d.test)]
    assert set().union(*used) == learned
    kinds = {d.name.rpartition("-")[0] for d in tuned.domains}
    test = {n.rpartition("-")[0] for n in stream_class(config, 0).data.corruptions("test")}
    assert len(kinds) == 6
    assert not kinds & test


def test_the_identity_has_the_content_of_the_data_and_not_their_place(
    numbers: Any, tmp_path: Path
) -> None:
    config_class = load("stream", "domain-shift").Config
    config = config_class(data=numbers)
    moved = tmp_path / "moved"
    Path(numbers["root"]).rename(moved)
    other = config_class(data={**numbers, "root": str(moved)})
    digests = file_digests(other)
    assert list(digests) == ["data"]
    (moved / "a.txt").rename(Path(moved / "z.txt"))
    assert file_digests(other) != digests
    (moved / "z.txt").rename(moved / "a.txt")
    moved.rename(numbers["root"])
    assert file_digests(config) == digests


def test_names_of_tensors_are_digests_of_their_values() -> None:
    x = {"a": torch.tensor([[1, 2], [1, 2], [2, 1]]), "b": torch.zeros(3)}
    first, same, other = sample_names(x)
    assert first == same != other


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "d"}, "source: toy-numbers in .* has no domain 'd'; known: a, b, c"),
        ({"source": "a", "targets": ["bb"]}, "targets: .* no domain 'bb'; did you mean 'b'"),
        ({"source": "a", "targets": "a"}, "domain 'a' is source and target: name it once"),
        ({"corruptions": "blur"}, "corruptions: toy-numbers has none: name target"),
    ],
)
def test_domains_that_are_not_there_are_refused(
    numbers: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(BenchError, match=said):
        stream(data=numbers, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data": "toy-numbers"}, "data set 'toy-numbers': key 'root': missing; add it"),
        ({"data": {"name": "toy-numberz", "root": "x"}}, "did you mean 'toy-numbers'"),
        ({"data": {"name": "toy-numbers", "root": "x", "rot": 1}}, "key 'rot': unknown; did you"),
        ({"data": {"name": "digits", "size": 2}}, "key 'size': 2 is not allowed"),
        ({"targets": ["a"], "corruptions": ["blur"]}, "give one of them"),
        ({"targets": ["a", "a"]}, "names a thing twice"),
    ],
)
def test_settings_that_are_wrong_are_named(
    numbers: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        load("stream", "domain-shift").Config(**settings)


def test_an_unknown_corruption_is_named_with_the_nearest() -> None:
    with pytest.raises(BenchError, match="'blurr' is none of this data set's; did you mean 'blur'"):
        stream(corruptions="blurr")


def test_a_data_set_of_one_file_says_what_is_wrong_with_it(numbers: Any) -> None:
    file = Path(numbers["root"]) / "b.txt"
    file.write_text("1 0\n2 7\n")
    data_class = load("dataset", "toy-numbers")
    data = data_class(data_class.Config(root=numbers["root"]))
    assert list(data.check()) == [f"{file}:2: class '7': write 0 or 1"]
