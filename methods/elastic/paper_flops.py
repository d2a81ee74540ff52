"""GreenTrainer's count of fine-tuning a decoder language model, and what is executed beside it.

``python -m bench.methods.elastic.paper_flops`` prints both, the rivals' totals, and what the
resolution of the choice does. The paper counts one operation for each multiply-accumulate, of
matrix products and attention, all tokens of the padded length included, and one for each element of
a normalization or bias. Executed operations are those of `StepTracer`, on tensors without values:
two for each multiply-accumulate, and elementwise ones too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._training_count import TrainingCount

PETA = 1e15
SAMPLES, EPOCHS, BATCH, TOKENS = 1992, 5, 4, 512
"""Of SciTLDR's training, in the published settings."""
LAST_NORM = "model.decoder.final_layer_norm"


@dataclass(frozen=True)
class Decoder:
    """Shape of a decoder with a tied embedding, as OPT: blocks, widths, words."""

    blocks: int
    width: int
    inner: int
    vocabulary: int

    @property
    def matrices(self) -> int:
        """Weights of one block's q, k, v, output and two feed-forward matrices."""
        return 4 * self.width**2 + 2 * self.width * self.inner


OPT_2_7B = Decoder(32, 2560, 10240, 50272)


def forward(model: Decoder, samples: int, tokens: int) -> int:
    """Matrices and logits of each token, and attention between tokens."""
    words = samples * tokens
    attention = 2 * samples * tokens**2 * model.width
    return (
        model.blocks * (words * model.matrices + attention) + words * model.vocabulary * model.width
    )


def way(model: Decoder, samples: int, tokens: int) -> int:
    """Gradients of all inputs (t_dy): matrices, attention, two norms a block and one, logits."""
    words = samples * tokens
    attention = 4 * samples * tokens**2 * model.width
    return (
        model.blocks * (words * model.matrices + attention)
        + (2 * model.blocks + 1) * words * model.width
        + words * model.vocabulary * model.width
    )


def own(model: Decoder, samples: int, tokens: int) -> int:
    """Gradients of all tensors (t_dw): matrices, biases, norms, and the embedding as the head."""
    words = samples * tokens
    biases = 5 * model.width + model.inner
    norms = 2 * model.width
    return (
        model.blocks * words * (model.matrices + biases + norms)
        + words * model.width
        + (words + 1) * model.vocabulary * model.width
    )


def fine_tuning(model: Decoder, samples: int, epochs: int, tokens: int = 512) -> int:
    """All of fine-tuning every tensor."""
    return epochs * sum(part(model, samples, tokens) for part in (forward, way, own))


def executed(model: Decoder, samples: int, epochs: int, tokens: int = 512) -> tuple[float, float]:
    """Operations that run in the forward passes and in the backward passes; no optimizer.

    Counted for one sample: every operator of these passes does so much for each.
    """
    import torch

    from bench.costs.step_tracer import StepTracer

    network = _network(model)
    with torch.device("meta"):
        ids = torch.zeros(1, tokens, dtype=torch.int64)
    with StepTracer() as tracer:
        loss = network(input_ids=ids, labels=ids).loss
        middle = len(tracer.log)
        loss.backward()
    counts = [flops for _, (flops, _, _) in tracer.log]
    return (
        samples * epochs * sum(counts[:middle]),
        samples * epochs * sum(counts[middle:]),
    )


def _network(model: Decoder, **more: Any) -> Any:
    """OPT of transformers, without values."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        hidden_size=model.width, num_hidden_layers=model.blocks, ffn_dim=model.inner,
        num_attention_heads=32, vocab_size=model.vocabulary, word_embed_proj_dim=model.width,
        **more,
    )  # fmt: skip
    with torch.device("meta"):
        return OPTForCausalLM(config)


def counted(model: Decoder) -> tuple[TrainingCount, list[str]]:
    """The count of each of an OPT's tensors, and their names."""
    import torch

    from bench import load

    from .._training_count import TrainingCount

    made = load("model", "opt")(_network(model, attn_implementation="eager"))
    made.tokens = model.vocabulary
    with torch.device("meta"):
        ids = torch.zeros(1, 4, dtype=torch.int64)
        count = TrainingCount.of(made, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return count, [name for name, _ in made.module.named_parameters()]


def rivals(count: TrainingCount, names: list[str]) -> Iterator[tuple[str, float | None, float]]:
    """What is trained, its published total for OPT-2.7B on SciTLDR, and its total here, in 1e15."""
    behind = [f"{LAST_NORM}.weight", f"{LAST_NORM}.bias"]
    blocks = [n for n in names if "layers.30." in n or "layers.31." in n]
    trained = {
        "all tensors": (41.8, names),
        "FT-Top2: embedding (tied to the head), last norm": (
            29.0, ["model.decoder.embed_tokens.weight", *behind],
        ),
        "LoRA": (27.9, ["adapter"]),
        "prefix tuning": (27.9, ["prefix"]),
        "biases (BitFit)": (None, [n for n in names if n.endswith("bias")]),
        "last 2 blocks, last norm": (None, [*blocks, *behind]),
    }  # fmt: skip
    for what, (published, chosen) in trained.items():
        steps = EPOCHS * SAMPLES // BATCH
        yield what, published, steps * count.operations(chosen, BATCH, TOKENS) / PETA


def achieved(
    count: TrainingCount, ratio: float, resolution: int, seed: int = 0
) -> tuple[float, float]:
    """Share of a whole step's operations that a choice takes, and the seconds that it took.

    Importances are drawn uniformly, as those of the published network are not known here.
    """
    import numpy as np

    from .elastic_window import choose
    from .tensor_costs import TensorCosts

    words, pairs = BATCH * TOKENS, BATCH * TOKENS**2
    names, dw, before, way = [], [], [], 0
    for part in reversed(count.parts):
        if part.own:
            names.append(part.tensor)
            dw.append(float(words * part.own + part.once))
            before.append(float(way))
        way += words * part.way + pairs * part.pairs_way
    costs = TensorCosts(names, dw, before, float(count.operations([], BATCH, TOKENS)))
    importance = np.random.default_rng(seed).uniform(size=len(names)).tolist()
    begun = time.perf_counter()
    chosen = choose(costs, importance, ratio, "exact", resolution)
    seconds = time.perf_counter() - begun
    whole = costs.forward + costs.backward
    return (costs.forward + costs.predicted(chosen)) / whole, seconds


def main() -> None:
    """Print OPT-2.7B on SciTLDR: 1,992 samples, 5 epochs, 512 tokens."""
    by_formulas = fine_tuning(OPT_2_7B, SAMPLES, EPOCHS) / PETA
    passes = [part / PETA for part in executed(OPT_2_7B, SAMPLES, EPOCHS)]
    print("| OPT-2.7B on SciTLDR, all tensors | 1e15 |")
    print("|---|---|")
    print(f"| published, multiply-accumulates | 41.8 |\n| by its formulas | {by_formulas:.2f} |")
    print(f"| executed operations, forward | {passes[0]:.2f} |\n| backward | {passes[1]:.2f} |")
    print(f"| together | {sum(passes):.2f} |\n| half of it | {sum(passes) / 2:.2f} |")
    count, names = counted(OPT_2_7B)
    print("\n| trained | published | by its formulas |\n|---|---|---|")
    for what, published, total in rivals(count, names):
        print(f"| {what} | {'' if published is None else published} | {total:.2f} |")
    print(
        "\n| resolution T_q | share of a step at an asked 0.5 | seconds to choose |\n|---|---|---|"
    )
    for resolution in (10, 100, 1000, 10_000, 100_000):
        share, seconds = achieved(count, 0.5, resolution)
        print(f"| {resolution} | {share:.3f} | {seconds:.4f} |")


if __name__ == "__main__":
    main()
