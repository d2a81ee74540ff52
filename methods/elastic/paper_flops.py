"""GreenTrainer's count of fine-tuning a decoder language model, and what is executed beside it.

``python -m bench.methods.elastic.paper_flops`` prints both. The paper counts one operation for each
multiply-accumulate, of matrix products and attention, all tokens of the padded length included, and
one for each element of a normalization or bias. Executed operations are those of `StepTracer`, on
tensors without values: two for each multiply-accumulate, and elementwise ones too.
"""

from __future__ import annotations

from dataclasses import dataclass

PETA = 1e15


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
    from transformers import OPTConfig, OPTForCausalLM

    from bench.costs.step_tracer import StepTracer

    config = OPTConfig(
        hidden_size=model.width, num_hidden_layers=model.blocks, ffn_dim=model.inner,
        num_attention_heads=32, vocab_size=model.vocabulary, word_embed_proj_dim=model.width,
    )  # fmt: skip
    with torch.device("meta"):
        network = OPTForCausalLM(config)
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


def main() -> None:
    """Print OPT-2.7B on SciTLDR: 1,992 samples, 5 epochs, 512 tokens."""
    counted = fine_tuning(OPT_2_7B, 1992, 5) / PETA
    passes = [part / PETA for part in executed(OPT_2_7B, 1992, 5)]
    print("| OPT-2.7B on SciTLDR, all tensors | 1e15 |")
    print("|---|---|")
    print(f"| published, multiply-accumulates | 41.8 |\n| by its formulas | {counted:.2f} |")
    print(f"| executed operations, forward | {passes[0]:.2f} |\n| backward | {passes[1]:.2f} |")
    print(f"| together | {sum(passes):.2f} |\n| half of it | {sum(passes) / 2:.2f} |")


if __name__ == "__main__":
    main()
