"""Every method on every task that it declares, on a small transformer, through a protocol."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from small_decoders import decoder
from timm.models.vision_transformer import Block as ViTBlock
from torch import Tensor, nn

from bench import registry
from bench.contracts.data import Inputs
from bench.contracts.model import ModelConfig
from bench.contracts.stream import Domain, Split, Stream, StreamConfig
from bench.errors import BenchError
from bench.models.vit import TimmViT
from bench.run.validity import require_causal
from bench.testing import run_method

CLASSES, WORDS, TOKENS, SIDE, WIDTH = 3, 20, 6, 16, 16
DENSE = ("token-classification", "segmentation", "generation")


class TaskNet(nn.Module):
    """Patches of images and embedded words, one after another, through two blocks, to a head."""

    def __init__(self, task: str, looks_ahead: bool = False, batch_norm: bool = False) -> None:
        super().__init__()
        self.task = task
        self.causal = task == "generation" and not looks_ahead
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.words = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.Sequential(*(ViTBlock(WIDTH, 2, qkv_bias=True) for _ in range(2)))
        self.norm = nn.LayerNorm(WIDTH)
        self.batch_norm = nn.BatchNorm1d(WIDTH) if batch_norm else nn.Identity()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Inputs) -> Tensor:
        image = x.get("image") if isinstance(x, dict) else x
        tokens = [] if image is None else [self.patches(image).flatten(2).transpose(1, 2)]
        if isinstance(x, dict):
            tokens.append(self.words(x["input_ids"]))
        hidden = torch.cat(tokens, dim=1)
        for block in self.blocks:
            hidden = block(hidden, is_causal=self.causal)
        hidden = self.batch_norm(self.norm(hidden).transpose(1, 2)).transpose(1, 2)
        logits = self.head(hidden if self.task in DENSE else hidden.mean(dim=1))
        if self.task == "segmentation":
            return logits.transpose(1, 2).unflatten(2, (SIDE // 4, SIDE // 4))
        return logits


def make_model(name: str, looks_ahead: bool = False, batch_norm: bool = False) -> TimmViT:
    if name == "detection":
        torch.manual_seed(0)
        detector = registry.load("model", "small-detector")
        sizes = detector.Config(patch=4, width=WIDTH, depth=2, heads=2)
        return detector.build(sizes, (3, SIDE, SIDE), CLASSES)

    class TaskModel(TimmViT):
        Config = ModelConfig
        task = name

        @classmethod
        def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> TaskModel:
            return cls(TaskNet(name, looks_ahead, batch_norm))

    torch.manual_seed(0)
    return TaskModel.build(None, (), CLASSES)


class Shifting(Stream):
    """Two target domains; what a unit is shows in its values, which shift along the stream."""

    Config = StreamConfig
    classes = CLASSES
    input_shape: ClassVar[tuple[int, ...]] = (TOKENS,)  # of one part of the inputs

    def __init__(self, task: str) -> None:
        super().__init__(StreamConfig(), 0)
        self.task = task  # type: ignore[misc]
        if task in ("segmentation", "detection"):
            self.input_shape = (3, SIDE, SIDE)  # type: ignore[misc]

    @classmethod
    def data_digest(cls, config: Any) -> str:
        return "drawn"

    def source(self) -> Domain:
        return self._domain("source", 0)

    def domain_names(self) -> list[str]:
        return ["first", "second"]

    def domain(self, name: str) -> Domain:
        return self._domain(name, 1 + self.domain_names().index(name))

    def _domain(self, name: str, place: int) -> Domain:
        return Domain(name, self._split(24, place), self._split(12, place + 10))

    def _split(self, n: int, seed: int) -> Split:
        draw = torch.Generator().manual_seed(seed)
        if self.task == "segmentation":
            y = torch.randint(CLASSES, (n, SIDE // 4, SIDE // 4), generator=draw)
            y = y.repeat_interleave(4, 1).repeat_interleave(4, 2)
            x = y.unsqueeze(1) / CLASSES + 0.1 * torch.rand(n, 3, SIDE, SIDE, generator=draw)
            y[torch.rand(y.shape, generator=draw) < 0.1] = 255
            return Split(x, y)
        if self.task == "detection":  # a box of its class's grey in an image or two
            y = torch.full((n, 1 + seed % 3, 5), -1.0)  # splits may differ in the most boxes
            x = torch.rand(n, 3, SIDE, SIDE, generator=draw) / 10
            for i in range(n):
                left, upper, c = (int(k) for k in torch.randint(CLASSES, (3,), generator=draw))
                x[i, :, upper * 4 : upper * 4 + 8, left * 4 : left * 4 + 8] += 0.3 * (1 + c)
                edges = (left / 4, upper / 4, left / 4 + 0.5, upper / 4 + 0.5)
                y[i, 0] = torch.tensor([c, *edges])
            return Split(x, y)
        ids = torch.randint(WORDS, (n, TOKENS), generator=draw)
        length = torch.randint(2, TOKENS + 1, (n, 1), generator=draw)
        mask = torch.arange(TOKENS) < length
        x = {"input_ids": ids, "attention_mask": mask.long()}
        if self.task == "classification":
            return Split(x, ids[:, 0] % CLASSES)
        if self.task in DENSE:
            return Split(x, (ids % CLASSES).masked_fill(~mask, -100))
        x["image"] = torch.rand(n, 3, SIDE, SIDE, generator=draw)
        y = nn.functional.one_hot(ids[:, 0] % CLASSES, CLASSES).float() * 0.9
        return Split(x, y)


STANDS_FOR_OTHERS = (
    "cotta", "der++", "edgeta", "ewc", "feature-alignment", "green-trainer", "lora", "shot", "tent",
)  # fmt: skip


def pairs() -> list[Any]:
    """Some methods on each of their tasks, and those that classify nothing; the others are slow."""
    found = []
    for name, entry in sorted(registry.entries("method").items()):
        tasks = entry.facts.get("tasks", ())
        always = name in STANDS_FOR_OTHERS or "classification" not in tasks
        for task in tasks:
            if task != "classification":
                marks = [] if always else [pytest.mark.slow]
                found.append(pytest.param(task, name, marks=marks))
    return found


@pytest.mark.parametrize("name", ["cotta", "rotta"])
def test_teachers_learn_from_texts(name: str) -> None:
    """The memory of RoTTA holds texts, and CoTTA's teacher sees them without some words."""
    method_class = registry.load("method", name)
    settings = {"update_every": 8} if name == "rotta" else {"augmentations": 3}
    method = method_class(method_class.Config(**settings))
    task = "classification"
    result = run_method(
        method, model=make_model(task), stream=Shifting(task), window_s=1e9, batch_size=8
    )
    assert all(stage.charges["toy"].steps >= 3 for stage in result.stages)
    weights = make_model(task).module.state_dict()
    assert any(
        not torch.equal(weights[name], value)
        for name, value in method.teacher.module.state_dict().items()
    )


SHORT = {"lora_steps": 2, "kb_steps": 2, "index_steps": 2, "steps": 2, "cost_ratio": 0.9}


@pytest.mark.parametrize(("task", "name"), pairs())
def test_a_method_runs_on_the_tasks_that_it_declares(
    task: str, name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    method_class = registry.load("method", name)
    settings = {k: v for k, v in SHORT.items() if k in method_class.Config.model_fields}
    method = method_class(method_class.Config(**settings))
    labelled = "target_labels" in method.needs
    if name == "prefix-tuning":  # of networks of transformers alone
        model = decoder()
        model.tokens = CLASSES
    else:
        model = make_model(task, batch_norm=name == "norm")  # which changes nothing else
    result = run_method(
        method, model=model, stream=Shifting(task), labelled=labelled, batch_size=8, window_s=1e6
    )
    assert [stage.name for stage in result.stages] == ["first", "second"]
    assert all(0 <= stage.after <= 1 for stage in result.stages)
    assert result.metric.name == method.model.rules.metric.name != "accuracy"
    if labelled and name not in ("bias-only", "linear-probe"):
        assert all(charge.steps > 0 for stage in result.stages for charge in stage.charges.values())


def plain_loss(task: str, outputs: Tensor, x: Inputs, y: Tensor) -> Tensor:
    """The task's loss by its definition."""
    if task == "visual-question-answering":
        p = outputs.sigmoid()
        return -(y * p.log() + (1 - y) * (1 - p).log()).sum(dim=1).mean()
    if task == "segmentation":
        outputs = nn.functional.interpolate(outputs, (SIDE, SIDE), mode="bilinear")
        outputs, counts = outputs.movedim(1, -1), y != 255
    else:
        counts = x["attention_mask"].bool()
    p = outputs[counts].softmax(dim=1)
    return -p[torch.arange(len(p)), y[counts]].log().mean()


@pytest.mark.parametrize(
    "task", ["token-classification", "segmentation", "visual-question-answering"]
)
def test_dark_experience_replay_takes_the_loss_of_the_task(
    task: str, view: Any, adapt: Any
) -> None:
    """L(f(x), y) + alpha mean (f(x') - z')^2 over units + beta L(f(x'), y'); all are remembered."""
    alpha, beta, rate = 0.7, 0.4, 0.05
    model, stream = make_model(task), Shifting(task)
    old, new = stream.source().adaptation, stream.domain("first").adaptation
    plain = make_model(task).module.eval()
    units = slice(None)
    if task == "token-classification":
        units = old.x["attention_mask"].bool()
    with torch.no_grad():
        z = plain(old.x)[units]
    for _ in range(3):
        loss = plain_loss(task, plain(new.x), new.x, new.y)
        outputs = plain(old.x)
        loss = loss + alpha * ((outputs[units] - z) ** 2).mean()
        loss = loss + beta * plain_loss(task, outputs, old.x, old.y)
        plain.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in plain.parameters():
                p -= 0 if p.grad is None else rate * p.grad
    der = registry.load("method", "der++")
    method = der(
        der.Config(alpha=alpha, beta=beta, optimizer="sgd", learning_rate=rate, memory_size=24)
    )
    method.prepare(model, view(old.x, old.y))
    adapt(method, view(new.x, new.y))
    before = make_model(task).module.state_dict()
    for name, expected in plain.state_dict().items():
        found = model.module.state_dict()[name]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not torch.equal(before["head.weight"], plain.head.weight)
    (buffer,) = method.strategy.storage_policy.buffer_groups.values()
    assert len(buffer.buffer) == 24


def test_a_learned_task_has_a_high_metric_by_any_batch_size() -> None:
    """Words whose class is their number modulo 3 are learned; padding does not count."""
    model, stream = make_model("token-classification"), Shifting("token-classification")
    optimizer = torch.optim.Adam(model.module.parameters(), 1e-2)
    source = stream.source().adaptation
    for _ in range(150):
        loss = model.loss(model(source.x), source.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = [
        run_method(
            registry.load("method", "source-only")(None), model=model, stream=stream,
            batch_size=size, window_s=1e6,
        ).stages[0].after
        for size in (1, 5, 12)
    ]  # fmt: skip
    assert scores[0] > 0.9
    assert scores == pytest.approx([scores[0]] * 3)
    assert not math.isclose(scores[0], 1 / CLASSES)


def test_a_language_model_that_looks_ahead_ends_the_run() -> None:
    """Its labels are the later words of its inputs."""
    method = registry.load("method", "source-only")(None)
    with pytest.raises(BenchError, match="outputs that depend on later tokens, which are the lab"):
        run_method(
            method, model=make_model("generation", looks_ahead=True), stream=Shifting("generation")
        )


def test_that_short_texts_are_padded_hides_no_look_ahead() -> None:
    ids = torch.randint(1, WORDS, (4, 30))
    x = {"input_ids": ids, "attention_mask": (torch.arange(30) < 6).expand(4, 30).long()}

    def predict(x: Any) -> Tensor:  # the next token, read off
        return nn.functional.one_hot(x["input_ids"].roll(-1, 1), WORDS).float()

    with pytest.raises(BenchError, match="later tokens"):
        require_causal(predict, x, predict(x), "Peeps", "a batch")
    require_causal(lambda x: predict(x).roll(1, 1), x, predict(x).roll(1, 1), "Honest", "a batch")


@pytest.mark.parametrize("task", [*DENSE, "detection"])
def test_online_the_metric_is_of_the_whole_stream(task: str) -> None:
    """Not the mean of batches: a batch of short texts counts less."""
    model, stream = make_model(task), Shifting(task)
    result = run_method(
        registry.load("method", "source-only")(None), model=model, stream=stream,
        name="online", batch_size=5, window_s=1e6,
    )  # fmt: skip
    for name, stage in zip(stream.domain_names(), result.stages, strict=True):
        arrived = stream.domain(name).adaptation
        score = model.rules.score()
        with torch.no_grad():
            score.update(model(arrived.x), arrived.y)
        assert stage.online == pytest.approx(score.compute(), abs=1e-6)
