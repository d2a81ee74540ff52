"""Applications of different tasks in one stream: whose samples, inputs and labels are whose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_workloads import SEVERAL, several_streams

from bench import load
from bench.contracts.data import take
from bench.contracts.model import inputs_digest
from bench.contracts.settings import file_digests
from bench.contracts.stream import Stream
from bench.errors import BenchError
from bench.run.validity import build_stream
from bench.study.suite import load_suite
from bench.tasks.applications import own_inputs, owners

TASKS = ("classification", "token-classification", "visual-question-answering")
UNITS, CLASSES = 12, 17
"""Most tokens of a text, and most classes, those of words."""


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return several_streams(tmp_path_factory.mktemp("several"))


@pytest.fixture
def stream(choices: list[dict[str, Any]]) -> Stream:
    return made(choices)


def made(choices: list[dict[str, Any]], seed: int = 0, **settings: Any) -> Stream:
    stream_class = load("stream", "several-tasks")
    return stream_class(stream_class.Config(streams=choices, **settings), seed)


def alone(choice: dict[str, Any]) -> Stream:
    """The stream of one application by itself."""
    stream_class = load("stream", choice["name"])
    return stream_class(stream_class.Config(**{k: v for k, v in choice.items() if k != "name"}), 0)


def test_the_applications_are_told(stream: Stream) -> None:
    assert [each.task for each in stream.applications] == list(TASKS)
    shapes = [each.input_shape for each in stream.applications]
    assert shapes == [(3, 32, 32), (UNITS,), (3, 32, 32)]
    assert [each.classes for each in stream.applications] == [2, CLASSES, 4]
    assert (stream.task, stream.classes, stream.input_shape) == ("several-tasks", CLASSES, ())
    assert stream.domain_names() == ["window-1"]  # words and images have one target domain
    build_stream(stream)


@pytest.mark.parametrize("app", range(3))
@pytest.mark.parametrize("part", ["adaptation", "test"])
def test_what_an_application_has_is_what_it_has_alone(
    stream: Stream, choices: list[dict[str, Any]], app: int, part: str
) -> None:
    by_itself = alone(choices[app])
    pairs = [
        (stream.source(), by_itself.source()),
        (stream.domain("window-1"), by_itself.domain(by_itself.domain_names()[0])),
    ]
    for joined, own in ((getattr(a, part), getattr(b, part)) for a, b in pairs):
        mine = (owners(joined.x) == app).nonzero().squeeze(1)
        wanted = take(own.x, torch.arange(len(own)))
        found = take(own_inputs(joined.x, app), mine)
        every = own_inputs(take(joined.x, mine), app)
        for each in (found, every):
            if isinstance(wanted, dict):
                assert list(each) == list(wanted)
                assert all(torch.equal(each[name], wanted[name]) for name in wanted)
            else:
                assert torch.equal(each, wanted)
        y = joined.y[mine]
        assert (y[:, 0] == app).all()
        if app == 0:
            assert torch.equal(y[:, 1], own.y)
        elif app == 1:
            assert torch.equal(y[:, 1:], own.y)
        else:
            assert torch.equal(y[:, 1], own.y.argmax(dim=1))
        if app != 1:
            assert (y[:, 2:] == -100).all()
        units = take(joined.x, mine)["unit_mask"]
        assert units.shape == (len(own), UNITS)
        if app == 1:
            assert torch.equal(units, wanted["unit_mask"])
            assert torch.equal(units.bool(), own.y != -100)
        else:
            assert units.sum(dim=1).tolist() == [1] * len(own)


def test_what_a_sample_does_not_have_is_zero(stream: Stream) -> None:
    x = stream.domain("window-1").test.x
    read = take(x, torch.arange(len(x)))
    for name, part in read.items():
        if name not in ("app", "unit_mask"):
            others = part[read["app"] != int(name.partition(".")[0])]
            assert len(others)
            assert not others.any(), name
    images, words, questions = owners(x).bincount().tolist()
    pixels, ids = 3 * 32 * 32 * 4, UNITS * 8
    each = images * pixels + words * 3 * ids + questions * (pixels + 2 * ids)
    assert x.nbytes == each  # and no zeros


def test_the_applications_take_turns_in_proportion(stream: Stream) -> None:
    source = stream.source().adaptation
    app = owners(source.x)
    share = app.bincount() / len(app)
    for chosen in torch.arange(len(app)).split(24):
        if len(chosen) == 24:
            assert ((app[chosen].bincount(minlength=3) / 24 - share).abs() <= 1.5 / 24).all()


def test_equal_samples_of_two_applications_are_different_ones(
    choices: list[dict[str, Any]],
) -> None:
    twice = made([choices[0], choices[0]])
    names = twice.source().adaptation.x.sample_names()
    assert len(set(names)) == len(names)
    build_stream(twice)


def test_the_validation_stream_is_made_of_those_of_the_applications(
    choices: list[dict[str, Any]],
) -> None:
    stream_class = load("stream", "several-tasks")
    config = stream_class.Config(streams=choices)
    tuned = stream_class(stream_class.validation(config), 0)
    for app, each in enumerate(tuned.streams):
        assert each.config.part == "validation"
        known = alone(choices[app])
        assert each.domain_names() == alone(
            {"name": "domain-shift", **type(known).validation(known.config).model_dump()}
        ).domain_names()  # fmt: skip
    build_stream(tuned)


def test_identity_is_the_content_of_all_streams(
    choices: list[dict[str, Any]], tmp_path: Path
) -> None:
    stream_class = load("stream", "several-tasks")

    def both(choices: list[dict[str, Any]]) -> tuple[Any, Any]:
        config = stream_class.Config(streams=choices)
        return file_digests(config)["streams"], stream_class.data_digest(config)

    elsewhere = several_streams(tmp_path)  # equal data in other folders
    assert both(choices) == both(elsewhere)
    fewer = [{**choices[0], "samples": 8}, *choices[1:]]
    assert both(fewer)[0] != both(choices)[0]
    assert both(fewer)[1] == both(choices)[1]
    file = next(Path(elsewhere[1]["data"]["root"]).glob("*.conllu"))
    file.write_text(file.read_text().replace("works", "runs"))
    assert both(elsewhere)[1] != both(choices)[1]
    same, other = made(choices).source(), made(choices, seed=1).source()
    assert inputs_digest(same.adaptation.x) == inputs_digest(other.adaptation.x)
    assert torch.equal(same.adaptation.y, other.adaptation.y)


def test_what_is_wrong_is_said_in_a_line(choices: list[dict[str, Any]]) -> None:
    with pytest.raises(BenchError, match="windows 2: an application's stream has 1 target domains"):
        made(choices, windows=2)
    with pytest.raises(BenchError, match=r"has no domain 'x'; it has window-1"):
        made(choices).domain("x")
    arriving = {**choices[0], "arrival": {"name": "dirichlet"}}
    with pytest.raises(BenchError, match="set its arrival to mixed"):
        made([arriving, choices[1]]).domain("window-1")
    for wrong, said in (
        ([{"name": "domain-shif"}] * 2, "domain-shift"),
        ([{**choices[0], "sampels": 3}, choices[1]], "key 'sampels': unknown"),
        (choices[:1], "at least 2"),
    ):
        with pytest.raises(ValidationError, match=said):
            load("stream", "several-tasks").Config(streams=wrong)


def test_each_application_needs_a_model_of_its_task(stream: Stream) -> None:
    model_class = load("model", "several-models")

    def build(models: Any) -> Any:
        return model_class.build_for(model_class.Config(models=models), stream)

    assert [model.task for model in build(list(SEVERAL)).models] == list(TASKS)
    with pytest.raises(BenchError, match="has 2 models, and the stream 3 applications"):
        build(list(SEVERAL[:2]))
    with pytest.raises(BenchError, match="application 1 is token-classification, and small-vqa"):
        build([SEVERAL[0], SEVERAL[2], SEVERAL[1]])
    with pytest.raises(ValidationError, match="model 'small-vqa': key 'widht': unknown"):
        model_class.Config(models=[SEVERAL[0], {"name": "small-vqa", "widht": 3}])


def test_the_suite_that_ships_is_a_stream_of_real_data(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """It needs the small real data; their places are those of `--data-root`."""
    suite, _ = load_suite("mini-multi-app")
    given = suite.stream.config["streams"]
    for file in ("en_ewt-ud-dev.conllu.gz", "en_ewt-ud-test.conllu.gz"):
        (tmp_path / file).symlink_to(real_data(file))
    roots = {
        "conllu": str(tmp_path),
        "vqa-folder": str(real_data("easy_vqa.zip") / "easy_vqa"),
    }
    settings = [
        each
        if each["data"] == "digits"
        else {**each, "data": {**each["data"], "root": roots[each["data"]["name"]]}}
        for each in given
    ]
    stream = made(settings)
    assert [each.task for each in stream.applications] == list(TASKS)
    assert [each.classes for each in stream.applications] == [10, 17, 13]
    domain = stream.domain(stream.domain_names()[0])
    assert owners(domain.test.x).bincount().tolist() == [each["test_samples"] for each in given]
    assert len(stream.domain_names()) == 3
