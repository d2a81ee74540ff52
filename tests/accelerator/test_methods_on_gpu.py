"""Every method with its model and batches on a GPU, as far as that shows without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tagged_gpu import tagged_gpu

from bench import registry
from bench.conformance.method_fixture import MODEL, OTHER_MODEL, setting_of, source_model
from bench.contracts.data import take
from bench.contracts.stream import Domain, ShiftedSource, Split, Stream, StreamConfig
from bench.costs.device_profile import load_device
from bench.models.digits_vit import DigitsAppsViT, DigitsViTConfig
from bench.run.protocols.base import StreamResult
from bench.testing import run_method

ON_BATCH_NORM = ("norm", "prune-train")
SMALL = DigitsViTConfig(width=16, depth=1, heads=4)
SHORT = {
    "lora_steps": 2, "kb_steps": 2, "index_steps": 2, "augmentations": 2, "max_residual": 1e3,
    "levels": 2,
}  # fmt: skip


class Digits(Stream):
    """The first samples of real domains."""

    Config = StreamConfig
    repeats_samples = True

    def __init__(self, parts: str = "") -> None:
        super().__init__(StreamConfig(), 0)
        self.shared = setting_of(parts)
        self.classes = self.shared.classes  # type: ignore[misc]
        self.input_shape = self.shared.input_shape  # type: ignore[misc]

    @classmethod
    def data_digest(cls, config: Any) -> str:
        return "digits"

    def source(self) -> Domain:
        whole = self.shared.source
        return Domain("source", first(whole, 48), first(whole, 20))

    def domain_names(self) -> Sequence[str]:
        return [domain.name for domain in self.shared.domains]

    def domain(self, name: str) -> Domain:
        found = next(domain for domain in self.shared.domains if domain.name == name)
        return Domain(name, first(found.adaptation, 24), first(found.test, 20))


def first(split: Split, n: int) -> Split:
    """The first samples of a split."""
    return Split(take(split.x, torch.arange(n)), split.y[:n])


class Applications(Digits):
    """The samples belong to two applications in turns."""

    def source(self) -> Domain:
        return self._in_turns(super().source())

    def domain(self, name: str) -> Domain:
        return self._in_turns(super().domain(name))

    def _in_turns(self, domain: Domain) -> Domain:
        splits = (
            Split({"app": torch.arange(len(split)) % 2, "image": split.x}, split.y)
            for split in (domain.adaptation, domain.test)
        )
        return Domain(domain.name, *splits)


def built(name: str) -> tuple[Stream, Any]:
    """A method's stream and its model, made for that."""
    if own := registry.load("method", name).conformance_on:
        parts = json.dumps(own)
        model, stream = source_model(own["model"]["name"], parts).clone(), Digits(parts)
        stream.task = type(model).task  # type: ignore[misc]
        return stream, model
    if not name.startswith("apps-"):
        return Digits(), source_model(OTHER_MODEL if name in ON_BATCH_NORM else MODEL).clone()
    stream = Applications()
    torch.manual_seed(0)
    model = DigitsAppsViT.build(SMALL, stream.input_shape, stream.classes)
    return stream, model


def run(name: str, accelerator: str, **protocol: Any) -> tuple[StreamResult, Any]:
    method_class = registry.load("method", name)
    settings = {k: v for k, v in SHORT.items() if k in method_class.Config.model_fields}
    method = method_class(method_class.Config(**settings))
    labelled = "target_labels" in method.needs
    stream, model = built(name)
    if method.uses_shifted_source():
        first = stream.domain_names()[0]
        method.shifted_source = ShiftedSource("digits", lambda: [stream.domain(first)])
    result = run_method(
        method, model=model, stream=stream, labelled=labelled, accelerator=accelerator,
        device=load_device("xavier-nx"),
        batch_size=8, window_s=1e9, **protocol,
    )  # fmt: skip
    return result, method


ALWAYS = (
    "source-only", "tent", "lame", "neo", "cotta", "rotta", "shot", "feature-alignment", "edgeta",
    "elastic-tent", "lora", "fine-tune", "der++",
)  # fmt: skip
"""One of each family and of each way to hold tensors; the others are slow tests."""
UNTRIED = ("agile-nn", "all-remote", "deepcod", "early-exit")


def methods() -> list[Any]:
    """All methods, those that stand for others first."""
    found = []
    for name in sorted(registry.entries("method"), key=lambda name: name not in ALWAYS):
        marks = [] if name in ALWAYS else [pytest.mark.slow]
        if name in UNTRIED:
            marks.append(pytest.mark.skip(reason="its server is a process of its own, on the CPU"))
        found.append(pytest.param(name, marks=marks))
    return found


@pytest.mark.parametrize("name", methods())
def test_a_method_mixes_no_devices_and_gives_what_it_gives_on_the_cpu(
    name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values are those of the CPU, for its arithmetic and generators are behind the marks."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    expected, _ = run(name, "cpu")
    with tagged_gpu() as marks:
        found, method = run(name, "cuda")
        assert marks.moved > 0
        if name.startswith("apps-"):
            assert len(method.apps) == 2
        parameters = list(method.model.module.parameters())
        assert {p.device.type for p in parameters} == {"cuda"}
    assert found == expected
