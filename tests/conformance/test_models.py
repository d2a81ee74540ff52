"""Every check of models can fail: for each promise a model that breaks it, and how that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.conformance import CHECKS, Result, check_component, components_of_file
from bench.errors import BenchError

PLUGIN = '''
import torch
from pydantic import Field
from torch import nn

from bench import Block, FoundationModel, ModelConfig, register
from bench.models.digits_vit import DigitsViT, DigitsViTConfig


class Small(DigitsViTConfig):
    """Of two blocks."""

    width: int = Field(16, ge=8)
    depth: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)


class Base(DigitsViT):
    """A small vision transformer."""

    Config = Small
    input_shape = (1, 16, 16)


@register("model", "sound")
class Sound(Base):
    """Breaks no promise."""


@register("model", "blockless")
class Blockless(Base):
    """Declares no blocks, and says so."""

    def blocks(self):
        return []


@register("model", "rigid")
class Rigid(Base):
    """Cannot be pruned, and says so."""

    resize_attention = FoundationModel.resize_attention


# declared -----------------------------------------------------------------------------------


@register("model", "says-nothing")
class SaysNothing(Base):
    pass


class Impossible(Small):
    """Its default is refused."""

    heads: int = Field(0, ge=1)


@register("model", "impossible")
class HasImpossible(Base):
    """Cannot be built as it is."""

    Config = Impossible


@register("model", "flat")
class Flat(Base):
    """Its shape is no tuple."""

    input_shape = [1, 16, 16]


# outputs ------------------------------------------------------------------------------------


@register("model", "extra-axis")
class ExtraAxis(Base):
    """Gives (n, classes, 1)."""

    def __call__(self, x):
        return super().__call__(x).unsqueeze(-1)


@register("model", "one-column")
class OneColumn(Base):
    """Gives one number."""

    def __call__(self, x):
        return super().__call__(x)[:, :1]


@register("model", "ten-classes")
class TenClasses(Base):
    """Does not ask how many classes there are."""

    @classmethod
    def build(cls, config, input_shape, classes):
        return super().build(config, input_shape, 10)


@register("model", "not-a-number")
class NotANumber(Base):
    """Diverged."""

    def __call__(self, x):
        return super().__call__(x).sub(1e9).log()


@register("model", "decides")
class Decides(Base):
    """Gives class ids."""

    def __call__(self, x):
        return super().__call__(x).argmax(1)


@register("model", "bare")
class Bare(Base):
    """build gives the network alone."""

    @classmethod
    def build(cls, config, input_shape, classes):
        return super().build(config, input_shape, classes).module


# loss and metric ----------------------------------------------------------------------------


@register("model", "losses")
class Losses(Base):
    """A loss for each sample."""

    def loss(self, outputs, y, label_smoothing=0.0):
        return nn.functional.cross_entropy(outputs, y, reduction="none")


@register("model", "detached")
class Detached(Base):
    """A loss without a gradient."""

    def loss(self, outputs, y, label_smoothing=0.0):
        return super().loss(outputs.detach(), y)


# weights ------------------------------------------------------------------------------------


@register("model", "draws-unseeded")
class DrawsUnseeded(Base):
    """Has a generator of its own."""

    @classmethod
    def build(cls, config, input_shape, classes):
        model = super().build(config, input_shape, classes)
        own = torch.Generator()
        own.seed()
        model.module.head.weight.data.normal_(generator=own)
        return model


@register("model", "hides-weights")
class HidesWeights(Base):
    """Holds a tensor that is no buffer."""

    @classmethod
    def build(cls, config, input_shape, classes):
        model = super().build(config, input_shape, classes)
        model.shift = torch.randn(classes)
        return model

    def __call__(self, x):
        return super().__call__(x) + self.shift


# evaluation ---------------------------------------------------------------------------------


@register("model", "always-trains")
class AlwaysTrains(Base):
    """Drops out in evaluation mode."""

    def __call__(self, x):
        return nn.functional.dropout(super().__call__(x), 0.5, training=True)


@register("model", "counts-calls")
class CountsCalls(Base):
    """Remembers how often it was called."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return super().__call__(x) + self.calls


@register("model", "of-the-batch")
class OfTheBatch(Base):
    """Subtracts the mean of the batch."""

    def __call__(self, x):
        outputs = super().__call__(x)
        return outputs - 0.5 * outputs.mean(dim=0)


# images -------------------------------------------------------------------------------------


@register("model", "in-place")
class InPlace(Base):
    """Normalizes the caller's images."""

    def __call__(self, x):
        return super().__call__(x.sub_(0.5))


@register("model", "truncates")
class Truncates(Base):
    """Takes whole numbers."""

    def __call__(self, x):
        return super().__call__(x.byte().float())


@register("model", "takes-logarithms")
class TakesLogarithms(Base):
    """Its preprocessing has no value for black."""

    def __call__(self, x):
        return super().__call__(x.log())


@register("model", "augments-to-double")
class AugmentsToDouble(Base):
    """Changes the type of its inputs."""

    def augment(self, x):
        return super().augment(x).double()


# head, blocks, clone ------------------------------------------------------------------------


@register("model", "headless")
class Headless(Base):
    """Its head has another name."""

    head_name = "haed"


@register("model", "bypasses-its-head")
class BypassesItsHead(Base):
    """Names a layer that is never called."""

    head_name = "spare"

    @classmethod
    def build(cls, config, input_shape, classes):
        model = super().build(config, input_shape, classes)
        model.module.spare = nn.Linear(16, classes)
        return model


def changed(**changes):
    def blocks(self):
        block = Base.blocks(self)[0]
        return [Block(**{**block.__dict__, **changes})]

    return blocks


@register("model", "misspelt")
class Misspelt(Base):
    """A layer that is not there."""

    blocks = changed(ff_in="blocks.0.mlp.fc")


@register("model", "not-linear")
class NotLinear(Base):
    """A layer that is not linear."""

    blocks = changed(ff_in="blocks.0.mlp.act")


@register("model", "three-heads")
class ThreeHeads(Base):
    """Heads that do not divide the width."""

    blocks = changed(heads=3)


@register("model", "one-head")
class OneHead(Base):
    """Another number of heads than its network has."""

    blocks = changed(heads=1)


@register("model", "unscaled")
class Unscaled(Base):
    """Says that scores are not scaled."""

    blocks = changed(scaled=False)


@register("model", "shares-its-weights")
class SharesItsWeights(Base):
    """A clone is the model itself."""

    def clone(self):
        twin = type(self)(self.module)
        return twin
'''


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("plugin") / "bad_models.py"
    path.write_text(PLUGIN)
    with registry.isolated():
        registry.add_plugin(path)
        yield path


def the_result(model: str, check: str) -> Result:
    (result,) = check_component("model", model, [check])
    return result


def test_a_sound_model_passes_every_check() -> None:
    results = list(check_component("model", "sound"))
    assert [result.line for result in results if not result.passed] == []
    assert [result.name for result in results] == list(CHECKS["model"])
    said = {result.name: result.did for result in results}
    assert said["blocks"] == "2 blocks: 2 heads of 8, 64 neurons"
    assert said["pruning"] == "by the variant compressed"
    assert said["proxy"] == said["low-rank"] == "by the method edgeta"


BROKEN = [
    ("says-nothing", "declared", ["no docstring"]),
    ("impossible", "declared", ["'heads'", "greater than or equal to 1"]),
    ("flat", "declared", ["input_shape is [1, 16, 16]"]),
    ("extra-axis", "outputs", ["(4, 3, 1) for 4 samples and 3 classes, not (4, 3)"]),
    ("one-column", "outputs", ["(4, 1) for 4 samples", "return logits"]),
    ("ten-classes", "outputs", ["(4, 10) for 4 samples and 3 classes"]),
    ("not-a-number", "outputs", ["not all finite"]),
    ("decides", "outputs", ["(4,) for 4 samples"]),
    ("bare", "outputs", ["build gave VisionTransformer", "cls(module)"]),
    ("losses", "loss", ["(4,)", "finite scalar"]),
    ("detached", "loss", ["no gradient"]),
    ("draws-unseeded", "same-seed", ["global generator"]),
    ("hides-weights", "weights", ["parameters and buffers"]),
    ("always-trains", "evaluation", ["random numbers"]),
    ("counts-calls", "evaluation", ["hidden state"]),
    ("of-the-batch", "batch-size", ["with the batch that it is in"]),
    ("in-place", "images", ["changes its inputs in place"]),
    ("truncates", "images", ["outputs of black or white ones", "floats in [0, 1]"]),
    ("takes-logarithms", "images", ["outputs of black images are not finite"]),
    ("augments-to-double", "augment", ["float64"]),
    ("headless", "head", ["head_name 'haed' is no module", "did you mean 'head'?"]),
    ("bypasses-its-head", "head", ["'spare' was not called"]),
    ("misspelt", "blocks", ["'blocks.0.mlp.fc'", "did you mean 'blocks."]),
    ("not-linear", "blocks", ["is GELU, not a plain Linear"]),
    ("three-heads", "blocks", ["3 heads do not divide the width 16"]),
    ("shares-its-weights", "clone", ["changing a clone changes the model"]),
    ("one-head", "pruning", ["differs by up to", "heads and scaled in blocks()"]),
    ("unscaled", "pruning", ["differs by up to", "scaled"]),
    ("misspelt", "lora", ["'blocks.0.mlp.fc'"]),
    ("unscaled", "proxy", ["differs by up to"]),
    ("misspelt", "low-rank", ["did you mean"]),
]


@pytest.mark.parametrize(("model", "check", "parts"), BROKEN)
def test_a_broken_promise_is_found_and_explained(model, check, parts) -> None:
    result = the_result(model, check)
    assert not result.passed, result.line
    assert result.line.startswith(f"FAIL {check}: ")
    for part in parts:
        assert part in result.why
    assert "\n" not in result.why


def test_every_check_has_a_model_that_breaks_it() -> None:
    assert {check for _, check, _ in BROKEN} == set(CHECKS["model"])


@pytest.mark.parametrize("check", ["pruning", "lora", "proxy", "low-rank"])
def test_surgery_that_does_not_apply_is_no_failure(check) -> None:
    result = the_result("blockless", check)
    assert result.passed
    assert result.did.startswith("does not apply (")
    assert "declares no blocks" in result.did
    result = the_result("rigid", check)
    assert result.passed
    assert ("cannot change width" in result.did) == (check != "lora")


def test_a_check_leaves_no_weights_in_the_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert the_result("sound", "pruning").passed
    assert list(tmp_path.iterdir()) == []


def test_a_file_gives_its_models(plugin: Path) -> None:
    found = components_of_file(plugin, ["model"])
    assert {entry.kind for entry in found} == {"model"}
    assert "sound" in [entry.name for entry in found]
    with pytest.raises(BenchError, match="registers no stream"):
        components_of_file(plugin, ["stream"])


def command(*arguments: str) -> Any:
    from typer.testing import CliRunner

    from bench.cli import app

    return CliRunner().invoke(app, ["check", *arguments])


def test_the_command_checks_models_and_methods_side_by_side() -> None:
    done = command("--model", "sound", "tent", "--model", "losses", "--only", "loss", "--only",
                   "skip")  # fmt: skip
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "method tent"
    assert lines[1].startswith("ok   skip: ")
    assert lines[3] == "model sound"
    assert lines[4].startswith("ok   loss: ")
    assert lines[6] == "model losses"
    assert lines[7].startswith("FAIL loss: ")
    assert lines[8].startswith("losses: 1 of 1 checks failed in ")


def test_a_file_has_all_that_it_registers_checked(tmp_path: Path) -> None:
    file = tmp_path / "both.py"
    file.write_text(
        "from bench import Method, register\nfrom bench.testing import TinyModel\n\n\n"
        '@register("method", "idle")\nclass Idle(Method):\n    """Does nothing."""\n\n\n'
        '@register("model", "small")\nclass Tiny(TinyModel):\n    """Is small."""\n\n'
        "    input_shape = (2,)\n"
    )
    with registry.isolated():
        done = command(str(file), "--only", "outputs", "--only", "skip")
        assert done.exit_code == 0
        assert "idle: 2 checks passed" in done.stdout
        assert "small: 1 checks passed" in done.stdout
        done = command("--model", str(file), "--only", "outputs")
        assert (done.exit_code, done.stdout.count("1 checks passed")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--model", "sond"), "did you mean 'sound'"),
        (("--model", "sound", "--only", "outptus"), "did you mean 'outputs'"),
        (("--stream", "digits-shft"), "did you mean 'digits-shift'"),
        (("--model", "missing.py"), "no such file"),
    ],
)
def test_unknown_names_are_errors_of_one_line(arguments, part) -> None:
    done = command(*arguments)
    assert isinstance(done.exception, BenchError)  # main() prints it and exits with 2
    assert part in str(done.exception)
