"""Networks that are no plain transformer: surgery works on them, or says why it does not apply."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench.contracts.data import DomainView
from bench.contracts.model import Block, FoundationModel
from bench.contracts.structure import WrongBlocks, distinct_blocks, require_called
from bench.errors import BenchError, Unsupported
from bench.methods.edgeta.method import EdgeTA, EdgeTAConfig
from bench.methods.lora import Lora, LoraConfig
from bench.methods.sar import lower_affine_parameters
from bench.models.compressed import Compressed, CompressedConfig
from bench.models.surgery.gates import importance, insert_gates, recorded, require_gateable
from bench.models.surgery.linear import own_head, widen_head
from bench.models.surgery.lora import fuse_lora, insert_lora
from bench.models.surgery.low_rank import factorise
from bench.models.surgery.masking import require_prunable
from bench.models.surgery.pruning import cut, strongest, strongest_heads

WIDTH, HEADS, CLASSES, TOKENS = 16, 4, 3, 5


@pytest.fixture(autouse=True)
def _seed(monkeypatch: Any, tmp_path: Any) -> None:
    torch.manual_seed(0)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))


class Attention(nn.Module):
    """Attention over (n, tokens, WIDTH); ``scale`` is "root", "none" or "constant"."""

    def __init__(
        self, scale: str = "root", kv_heads: int = HEADS, bias: bool = True, fused: str = ""
    ) -> None:
        super().__init__()
        self.scale, self.fused = scale, fused
        self.heads, self.kv_heads, self.head_width = HEADS, kv_heads, WIDTH // HEADS
        if fused:
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        else:
            self.q = nn.Linear(WIDTH, WIDTH, bias=bias)
            self.k = nn.Linear(WIDTH, kv_heads * self.head_width, bias=bias)
            self.v = nn.Linear(WIDTH, kv_heads * self.head_width, bias=bias)
        self.out = nn.Linear(WIDTH, WIDTH, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._parts(x)
        factor = {"root": self.head_width**-0.5, "none": 1.0, "constant": 0.3}[self.scale]
        weights = (q @ k.transpose(-1, -2) * factor).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def _parts(self, x: Tensor) -> list[Tensor]:
        n, t, _ = x.shape
        if self.fused == "interleaved":  # as BLOOM and GPT-NeoX: q, k and v of each head together
            parts = self.qkv(x).view(n, t, self.heads, 3, -1).unbind(3)
            return [part.transpose(1, 2) for part in parts]
        each = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        parts = [p.view(n, t, -1, self.head_width).transpose(1, 2) for p in each]
        repeats = self.heads // self.kv_heads
        return [p.repeat_interleave(self.heads // p.shape[1], 1) if repeats else p for p in parts]


class Layer(nn.Module):
    def __init__(self, activation: nn.Module | None = None, affine: bool = True, **kind: Any):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=affine)
        self.attention = Attention(**kind)
        self.norm2 = nn.LayerNorm(WIDTH, elementwise_affine=affine)
        self.fc1 = nn.Linear(WIDTH, 32, bias=kind.get("bias", True))
        self.activation = activation or nn.GELU()
        self.fc2 = nn.Linear(32, WIDTH, bias=kind.get("bias", True))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.fc2(self.activation(self.fc1(self.norm2(x))))


class Net(nn.Module):
    """Tokens (n, TOKENS) int64 to logits."""

    def __init__(self, layers: list[nn.Module], head: nn.Module | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, WIDTH)
        self.place = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES) if head is None else head

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) + self.place
        for layer in self.blocks:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=1))


class Plain(FoundationModel):
    """The blocks of `Net`; ``changes`` to what each declares."""

    def __init__(self, module: nn.Module, times: int = 1, **changes: Any) -> None:
        super().__init__(module)
        for layer in module.modules():
            if isinstance(layer, nn.Linear) and "weight" in layer._parameters:
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                if layer.bias is not None:
                    nn.init.normal_(layer.bias, std=0.3)
        self.changes, self.times = changes, times
        self.train(False)

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> Plain:
        return cls(Net([Layer(), Layer()]))

    def blocks(self) -> list[Block]:
        found = []
        for i, layer in enumerate(self.module.blocks):
            a = f"blocks.{i}.attention"
            qkv = (f"{a}.qkv",) if getattr(layer.attention, "fused", "") else (
                f"{a}.q", f"{a}.k", f"{a}.v")  # fmt: skip
            known = {"qkv": qkv, "out": f"{a}.out", "ff_in": f"blocks.{i}.fc1",
                     "ff_out": f"blocks.{i}.fc2", "heads": HEADS, "attention": a}  # fmt: skip
            found.append(Block(**{**known, **self.changes}))
        return found * self.times

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        attention: Any = self.module.get_submodule(block.attention)
        attention.heads = attention.kv_heads = heads
        attention.head_width = head_width


def samples() -> Tensor:
    return torch.randint(8, (6, TOKENS), generator=torch.Generator().manual_seed(3))


def source() -> DomainView:
    y = torch.arange(6) % CLASSES
    return DomainView("source", samples(), y, 3, torch.Generator().manual_seed(0))


def prune(model: FoundationModel) -> None:
    require_prunable(model, samples(), strongest, 2)
    require_prunable(model, samples(), strongest_heads, 2)
    cut(model, strongest(model, 2))


def adapt(model: FoundationModel) -> None:
    require_called(model, samples(), "LoRA")
    before = outputs(model)
    insert_lora(model, 2, 2.0)
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=1e-5)
    for name, p in model.module.named_parameters():
        if ".up." in name:
            nn.init.normal_(p, std=0.3)
    adapted = outputs(model)
    assert float((adapted - before).detach().abs().max()) > 1e-2
    fuse_lora(model)
    torch.testing.assert_close(outputs(model), adapted, rtol=0, atol=1e-4)


def gate(model: FoundationModel) -> None:
    require_gateable(model, samples())
    insert_gates(model, 4)
    assert len(importance(model, samples())) == len(model.blocks())


def low_rank(model: FoundationModel) -> None:
    before = outputs(model)
    factorise(model, WIDTH)
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=1e-4)


def outputs(model: FoundationModel) -> Tensor:
    with torch.no_grad():
        return model(samples())


OPERATIONS = {"pruning": prune, "LoRA": adapt, "gates": gate, "low rank": low_rank}


def shared(**kind: Any) -> Net:
    layer = Layer(**kind)
    return Net([layer, layer, layer])


# --- what works ------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ({}, {}),
        ({"fused": "in order"}, {}),
        ({"scale": "none"}, {"scaled": False}),
        ({"scale": "constant"}, {"scaled": False}),
        ({"bias": False}, {}),
        ({"affine": False}, {}),
    ],
)
def test_surgery_on_blocks_that_say_what_they_are(operation, kind, changes) -> None:
    model = Plain(Net([Layer(**kind), Layer(**kind)]), **changes)
    OPERATIONS[operation](model)
    assert outputs(model).isfinite().all()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("operation", ["pruning", "LoRA", "low rank"])
def test_a_shared_block_is_changed_once(operation, times) -> None:
    model = Plain(shared(), times)
    assert len(distinct_blocks(model, "test")) == 1
    OPERATIONS[operation](model)
    assert outputs(model).isfinite().all()


def test_a_shared_block_has_one_set_of_adapters_and_one_cut() -> None:
    assert len(insert_lora(Plain(shared(), 2), 2, 2.0)) == 6
    model = Plain(shared(), 2)
    (kept,) = strongest(model, 2)
    cut(model, [kept])
    assert model.module.blocks[2].fc1.out_features == 16
    assert model.module.blocks[2].attention.head_width == 2


def test_a_shared_block_has_one_number_of_heads() -> None:
    model = Plain(shared())
    blocks = model.blocks()
    model.blocks = lambda: [blocks[0], Block(**{**vars(blocks[0]), "heads": 2})]
    with pytest.raises(WrongBlocks, match="is listed with 4 and with 2 heads"):
        distinct_blocks(model, "test")


def test_pruning_may_leave_out_neurons_that_are_not_0_at_0() -> None:
    prune(Plain(Net([Layer(nn.Sigmoid())])))


# --- what does not apply ---------------------------------------------------------------------


class Conv1D(nn.Module):
    """As transformers' Conv1D: a linear layer whose weight is transposed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def with_parts(*parts: tuple[str, nn.Module]) -> Net:
    net = Net([Layer(), Layer()])
    for name, part in parts:
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, part)
    return net


def convolutions() -> Net:
    names = ("q", "k", "v", "out")
    parts = [(f"blocks.0.attention.{name}", Conv1D(WIDTH, WIDTH)) for name in names]
    return with_parts(*parts, ("blocks.0.fc1", Conv1D(WIDTH, 32)))


def one_shared_layer() -> Net:
    net = Net([Layer(), Layer()])
    net.blocks[1].fc1 = net.blocks[0].fc1
    net.blocks[1].attention.q = net.blocks[0].attention.q
    net.blocks[1].attention.out = net.blocks[0].attention.out
    return net


def tied_weights() -> Net:
    net = Net([Layer(), Layer()])
    net.other = nn.Linear(WIDTH, WIDTH)  # a part of the network that no block declares
    net.other.weight = net.blocks[0].attention.v.weight
    net.more = nn.ModuleList([net.blocks[1].fc1])
    return net


def normed() -> Net:
    net = Net([Layer()])
    for name in ("q", "out"):
        nn.utils.parametrizations.weight_norm(getattr(net.blocks[0].attention, name))
    nn.utils.parametrizations.weight_norm(net.blocks[0].fc1)
    return net


class Unused(Layer):
    """Its layers are there and the forward pass takes others."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.real(x)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("net", "changes", "part"),
    [
        (convolutions, {}, "is Conv1D, not a plain Linear"),
        (one_shared_layer, {}, "shares its weights with blocks"),
        (lambda: Net([Layer(), Layer()]), {"ff_in": "blocks.0.fc1"}, "blocks.0.fc1 shares its"),
        (
            lambda: Net([Layer(), Layer()]),
            {"qkv": ("blocks.0.attention.q", "blocks.0.attention.k", "blocks.0.attention.v")},
            "shares its weights with blocks.0.attention.q",
        ),
        (tied_weights, {}, r"shares its weights with (other\.weight|more\.0)"),
        (normed, {}, "weight"),
        (lambda: Net([Layer()]), {"ff_in": "blocks.0.fcl"}, "did you mean 'blocks.0.fc"),
        (lambda: Net([Layer()]), {"attention": "blocks.0.atention"}, "blocks.0.attention"),
        (
            lambda: Net([Layer()]),
            {"qkv": ("blocks.0.attention.q",) * 2},
            "give one fused",
        ),
        (lambda: Net([Layer()]), {"qkv": "blocks.0.attention.q"}, "give Block"),
        (lambda: Net([Layer()]), {"qkv": ("blocks.0.attention.q",) * 3}, "give one fused layer"),
        (lambda: Net([Layer()]), {"out": None}, "is no module"),
    ],
)
def test_layers_that_are_not_the_blocks_own(operation, net, changes, part) -> None:
    if operation == "gates" and net is normed:
        part = "computed"
    with pytest.raises(Unsupported, match=part):
        OPERATIONS[operation](Plain(net(), **changes))


@pytest.mark.parametrize("operation", ["pruning", "LoRA", "gates"])
def test_layers_that_no_forward_pass_calls(operation) -> None:
    with pytest.raises(WrongBlocks, match=r"q is not called in a forward pass"):
        OPERATIONS[operation](Plain(Net([Unused()])))


@pytest.mark.parametrize(
    ("kind", "changes", "part"),
    [
        ({"kv_heads": 2}, {}, r"k has 8 rows for 16 \(grouped"),
        ({"kv_heads": 1}, {}, r"k has 4 rows for 16 \(grouped"),
        ({}, {"heads": 3}, "3 heads do not divide the width 16"),
        ({}, {"heads": 0}, "0 heads do not divide"),
        ({}, {"out": "blocks.0.fc1"}, "twice in a block"),
        ({}, {"ff_out": "head"}, r"head takes 16 inputs and blocks\.0\.fc1 gives 32"),
        ({"fused": "in order"}, {"qkv": ("head",)}, "head has 3 rows, and 48 belong"),
        ({"fused": "interleaved"}, {}, "check the order of qkv"),
        ({"scale": "none"}, {}, "scaled in blocks"),
        ({"scale": "constant"}, {}, "scaled in blocks"),
        ({}, {"scaled": False}, "scaled in blocks"),
        ({}, {"heads": 2}, "heads"),
    ],
)
def test_attention_that_is_not_what_its_block_says_is_not_pruned(kind, changes, part) -> None:
    model = Plain(Net([Layer(**kind)]), **changes)
    with pytest.raises(Unsupported, match=part):
        require_prunable(model, samples(), strongest, 2)


class GatedFeedForward(Layer):
    """As SwiGLU: a third layer has the width of the neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        y = self.norm2(x)
        return x + self.fc2(nn.functional.silu(self.fc1(y)) * self.up(y))


class NormedNeurons(Layer):
    """A normalization over the neurons: its weights have the old width after a cut."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.LayerNorm(32), nn.GELU()))


@pytest.mark.parametrize("layer", [GatedFeedForward, NormedNeurons])
def test_further_weights_of_the_old_width_are_found(layer) -> None:
    with pytest.raises(WrongBlocks, match=r"does not run with narrower blocks \(RuntimeError"):
        require_prunable(Plain(Net([layer()])), samples(), strongest, 2)


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Softplus()])
def test_neurons_that_are_not_0_at_0_are_not_gated(activation) -> None:
    with pytest.raises(WrongBlocks, match="a feed-forward neuron that is zero changes the outputs"):
        require_gateable(Plain(Net([Layer(activation)])), samples())


def test_shared_neurons_are_not_gated() -> None:
    with pytest.raises(Unsupported, match="share their weights, and a neuron matters"):
        insert_gates(Plain(shared(), 3))
    listed_once = Plain(shared())
    listed_once.blocks = lambda: Plain.blocks(listed_once)[:1]  # called three times all the same
    with pytest.raises(Unsupported, match=r"q is called 3 times in a forward pass"):
        require_gateable(listed_once, samples())
    insert_gates(listed_once)
    with pytest.raises(Unsupported, match="is called twice in a forward pass"):
        importance(listed_once, samples())


def test_importances_may_be_recorded_in_one_pass_after_another() -> None:
    model = Plain(Net([Layer()]))
    insert_gates(model)
    with recorded(model) as values, torch.no_grad():
        model(samples()[:2])
        model(samples())
        assert values["blocks.0.fc1"].shape == (6, 32)


class Raising(Plain):
    def blocks(self) -> list[Block]:
        return [Block(("q",), "o", "i", "f", self.module.config.heads)]


class Nothing(Plain):
    def blocks(self) -> Any:
        return None


class Stiff(Plain):
    resize_attention = FoundationModel.resize_attention


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (Raising, r"blocks\(\) raised AttributeError"),
        (Nothing, "declares no blocks"),
        (Stiff, "its attention cannot change width"),
    ],
)
def test_a_model_without_what_surgery_needs(model, part) -> None:
    variant = Compressed(CompressedConfig(ratio=2, steps=1))
    with pytest.raises(Unsupported, match=part):
        variant.make(model(Net([Layer()])), source())


# --- the components that operate -------------------------------------------------------------

OFFLINE = {"ratio": 2, "lora_steps": 1, "kb_steps": 1, "index_steps": 1, "checkpoints": 1,
           "index_neurons": 2, "max_residual": None}  # fmt: skip


def compress(model: FoundationModel) -> None:
    Compressed(CompressedConfig(ratio=2, steps=1)).make(model, source())


def edgeta(model: FoundationModel) -> None:
    EdgeTA(EdgeTAConfig(**OFFLINE)).prepare(model, source())


def lora(model: FoundationModel) -> None:
    Lora(LoraConfig(rank=2)).prepare(model, source())


@pytest.mark.parametrize("operate", [compress, edgeta, lora])
@pytest.mark.parametrize(
    ("net", "changes"),
    [
        (lambda: Net([Unused()]), {}),
        (one_shared_layer, {}),
    ],
)
def test_methods_and_variants_refuse_them(operate, net, changes) -> None:
    with pytest.raises(Unsupported):
        operate(Plain(net(), **changes))


@pytest.mark.parametrize("operate", [compress, edgeta])
@pytest.mark.parametrize("kind", [{"scale": "none"}, {"fused": "interleaved"}])
def test_a_wrong_cut_is_found_before_training(operate, kind) -> None:
    with pytest.raises(WrongBlocks, match="narrower blocks differs"):
        operate(Plain(Net([Layer(**kind)])))


def test_edgeta_is_refused_on_shared_blocks_and_sigmoid() -> None:
    with pytest.raises(Unsupported, match="share their weights"):
        edgeta(Plain(shared(), 2))
    with pytest.raises(Unsupported, match="as after a sigmoid"):
        edgeta(Plain(Net([Layer(nn.Sigmoid())])))


def test_sar_cannot_freeze_the_top_of_what_is_shared() -> None:
    with pytest.raises(Unsupported, match="share their weights with those below"):
        lower_affine_parameters(Plain(shared(), 2), 0.25)
    assert len(lower_affine_parameters(Plain(shared(), 2), 0.0)) == 6
    changes = {name: f"blocks.9.{name}" for name in ("out", "ff_in", "ff_out")}
    model = Plain(Net([Layer()] * 4), qkv=("blocks.9.qkv",), **changes)
    with pytest.raises(Unsupported, match=r"names layers in 'blocks\.9', which is no module"):
        lower_affine_parameters(model, 0.25)


# --- heads -----------------------------------------------------------------------------------


def tied_head() -> Plain:
    net = Net([Layer()], nn.Linear(WIDTH, 8, bias=False))
    model = Plain(net)
    net.head.weight = net.embedding.weight
    return model


def test_a_tied_head_is_not_trained_or_changed_by_itself() -> None:
    from bench.methods.bias_only import BiasOnly
    from bench.methods.edgeta.supervised import SupervisedConfig, SupervisedEdgeTA
    from bench.methods.linear_probe import LinearProbe

    tied = r"head 'head' of Plain is tied to embedding\.weight"
    with pytest.raises(Unsupported, match=tied):
        own_head(tied_head(), "test")
    with pytest.raises(Unsupported, match=tied):
        widen_head(tied_head(), {0})
    for method in (LinearProbe, BiasOnly):
        with pytest.raises(Unsupported, match=tied):
            method(method.Config()).prepare(tied_head(), source())
    with pytest.raises(Unsupported, match=tied):
        Lora(LoraConfig(rank=2, train_head=True)).prepare(tied_head(), source())
    for widen in (True, False):
        method = SupervisedEdgeTA(SupervisedConfig(**OFFLINE, widen_head=widen))
        with pytest.raises(Unsupported, match=tied):
            method.prepare(tied_head(), source())


def test_the_body_of_a_tied_head_leaves_the_embedding_out() -> None:
    model = tied_head()
    model.freeze_except(model.body_parameters())
    assert not model.module.embedding.weight.requires_grad
    assert model.clone().module.head.weight is not model.module.head.weight
    twin = model.clone().module
    assert twin.head.weight is twin.embedding.weight


def test_new_classes_of_a_detector_begin_with_the_low_scores_of_a_fresh_one() -> None:
    """Its head has the rows of a box behind those of classes; they stay."""
    detector = registry.load("model", "small-detector")
    model = detector.build(detector.Config(), (3, 16, 16), CLASSES)
    boxes = model.head.weight[CLASSES:].clone()
    known = model.head.weight[1].clone()
    assert widen_head(model, {1}) == [0, 2]
    with torch.no_grad():
        outputs = model(torch.rand(2, 3, 16, 16))
    assert torch.allclose(outputs[..., [0, 2]].sigmoid(), torch.tensor(0.01), atol=1e-6)
    assert torch.equal(model.head.weight[CLASSES:], boxes)
    assert torch.equal(model.head.weight[1], known)
    with pytest.raises(BenchError, match=r"classes \[3\] are not all among the 3 outputs"):
        widen_head(model, {CLASSES})


@pytest.mark.parametrize("head", [nn.Identity(), nn.Sequential(nn.Tanh(), nn.Flatten())])
def test_a_head_without_weights(head) -> None:
    from bench.methods.linear_probe import LinearProbe

    model = Plain(Net([Layer()], head))
    with pytest.raises(Unsupported, match="has no weights of its own"):
        LinearProbe(LinearProbe.Config()).prepare(model, source())
    with pytest.raises(Unsupported, match="only Linear widens"):
        widen_head(model, {0})
    with pytest.raises(Unsupported, match="has no weights of its own"):
        Lora(LoraConfig(rank=2, train_head=True)).prepare(model, source())
    _, features = model.with_features(samples())
    assert features.shape == (6, WIDTH)


def test_a_model_that_is_all_head_has_no_body_to_train() -> None:
    from bench.methods.shot import Shot, ShotConfig

    model = Plain(Net([Layer()]))
    model.head_name = ""
    with pytest.raises(Unsupported, match="has no parameter for this method to train"):
        Shot(ShotConfig()).prepare(model, source())
    with pytest.raises(Unsupported, match=r"is given \(6, 5\) \(torch.int64\) for 6 samples"):
        model.with_features(samples())


class ByKeyword(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(input=self.norm(self.embedding(x)).mean(dim=1))


class TakesAll(Net):
    """The head gets every token, as RoBERTa's, and the first one counts."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(x)))[:, 0]


class Bypassed(Net):
    def forward(self, x: Tensor) -> Tensor:
        pooled = self.norm(self.embedding(x)).mean(dim=1)
        return nn.functional.linear(pooled, self.head.weight, self.head.bias)


def test_features_are_what_the_head_is_given_and_one_row_a_sample() -> None:
    logits, features = Plain(ByKeyword([])).with_features(samples())
    assert (logits.shape, features.shape) == ((6, CLASSES), (6, WIDTH))
    with pytest.raises(Unsupported, match=r"is given \(6, 5, 16\) \(torch.float32\) for 6 samples"):
        Plain(TakesAll([])).with_features(samples())
    with pytest.raises(Unsupported, match="'head' was not called"):
        Plain(Bypassed([])).with_features(samples())


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("haed", "did you mean 'head'"),
        ("classifier", "blocks"),
        (None, "blocks"),
        ("head.0", "head"),
    ],
)
def test_a_wrong_head_name_is_one_line_with_the_cure(name, cure) -> None:
    from bench.errors import BenchError

    model = Plain(Net([Layer()]))
    model.head_name = name
    with pytest.raises(BenchError, match=f"head_name {name!r} is no module of its network") as told:
        model.head_parameters()
    assert cure in str(told.value)
    assert not isinstance(told.value, Unsupported)


# --- networks of transformers ----------------------------------------------------------------


class Albert(FoundationModel):
    head_name = "classifier"
    names = "albert.encoder.albert_layer_groups.0.albert_layers.0"

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> Albert:
        from transformers import AlbertConfig, AlbertForSequenceClassification

        sizes = AlbertConfig(
            vocab_size=8, embedding_size=8, hidden_size=16, num_hidden_layers=3,
            num_attention_heads=4, intermediate_size=32, max_position_embeddings=8, num_labels=3,
        )  # fmt: skip
        return cls(AlbertForSequenceClassification(sizes))

    def blocks(self) -> list[Block]:
        a = f"{self.names}.attention"
        qkv = (f"{a}.query", f"{a}.key", f"{a}.value")
        ff = (f"{self.names}.ffn", f"{self.names}.ffn_output")
        return [Block(qkv, f"{a}.dense", *ff, heads=4, attention=a)] * 3

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        attention: Any = self.module.get_submodule(block.attention)
        attention.num_attention_heads, attention.attention_head_size = heads, head_width
        attention.all_head_size, attention.scaling = heads * head_width, head_width**-0.5

    def __call__(self, x: Any) -> Tensor:
        return self.module(x).logits


class GptNeo(Albert):
    head_name = "score"
    scaled = False

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> GptNeo:
        from transformers import GPTNeoConfig, GPTNeoForSequenceClassification

        sizes = GPTNeoConfig(
            vocab_size=8, hidden_size=16, num_layers=2, attention_types=[[["global", "local"], 1]],
            num_heads=4, max_position_embeddings=8, window_size=4, num_labels=3, pad_token_id=0,
            bos_token_id=1, eos_token_id=1,
        )  # fmt: skip
        return cls(GPTNeoForSequenceClassification(sizes))

    def blocks(self) -> list[Block]:
        found = []
        for i in range(2):
            a, mlp = f"transformer.h.{i}.attn.attention", f"transformer.h.{i}.mlp"
            qkv = (f"{a}.q_proj", f"{a}.k_proj", f"{a}.v_proj")
            ff = (f"{mlp}.c_fc", f"{mlp}.c_proj")
            found.append(Block(qkv, f"{a}.out_proj", *ff, 4, a, scaled=self.scaled))
        return found

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        attention: Any = self.module.get_submodule(block.attention)
        attention.num_heads, attention.head_dim = heads, head_width


class T5(FoundationModel):
    scaled = False

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> T5:
        from transformers import T5Config, T5EncoderModel

        module = nn.Module()
        sizes = T5Config(vocab_size=8, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4)
        module.encoder, module.head = T5EncoderModel(sizes), nn.Linear(16, classes)
        return cls(module)

    def blocks(self) -> list[Block]:
        found = []
        for i in range(2):
            a = f"encoder.encoder.block.{i}.layer.0.SelfAttention"
            ff = f"encoder.encoder.block.{i}.layer.1.DenseReluDense"
            qkv = (f"{a}.q", f"{a}.k", f"{a}.v")
            found.append(Block(qkv, f"{a}.o", f"{ff}.wi", f"{ff}.wo", 4, a, scaled=self.scaled))
        return found

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        attention: Any = self.module.get_submodule(block.attention)
        attention.n_heads, attention.key_value_proj_dim = heads, head_width
        attention.inner_dim = heads * head_width

    def __call__(self, x: Any) -> Tensor:
        hidden = self.module.encoder(input_ids=x).last_hidden_state
        return self.module.head(hidden.mean(dim=1))


def made(kind: type[FoundationModel]) -> FoundationModel:
    model = kind.build(None, (TOKENS,), CLASSES)
    for layer in model.module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    model.train(False)
    return model


@pytest.mark.parametrize("kind", [Albert, GptNeo, T5])
@pytest.mark.parametrize("operation", ["narrower", "LoRA", "gates"])
def test_networks_of_transformers(kind, operation) -> None:
    model = made(kind)
    if operation == "narrower":
        require_prunable(model, samples(), strongest, 2)
        compress(model)
    elif operation == "LoRA":
        adapt(model)
    elif kind is Albert:
        with pytest.raises(Unsupported, match=r"called 3 times .* by layers that share it"):
            gate(model)
    else:
        gate(model)


@pytest.mark.parametrize("kind", [GptNeo, T5])
def test_attention_that_they_do_not_scale_must_be_declared(kind, monkeypatch) -> None:
    monkeypatch.setattr(kind, "scaled", True)
    with pytest.raises(WrongBlocks, match="scaled in blocks"):
        compress(made(kind))


def test_a_compressed_model_is_made_anew_for_other_blocks(tmp_path) -> None:
    model = made(Albert)
    compress(model)
    one = list((tmp_path / "compressed").glob("*.pt"))
    model.blocks = lambda: Albert.blocks(model)[:1]
    compress(model)
    assert (len(one), len(list((tmp_path / "compressed").glob("*.pt")))) == (1, 2)


def test_heads_of_t5_cannot_be_cut_for_its_positions_have_as_many() -> None:
    with pytest.raises(WrongBlocks, match="does not run with narrower blocks"):
        require_prunable(made(T5), samples(), strongest_heads, 2)


def test_the_head_of_gpt_neo_gets_every_token() -> None:
    with pytest.raises(Unsupported, match=r"'score' is given \(6, 5, 16\)"):
        made(GptNeo).with_features(samples())
