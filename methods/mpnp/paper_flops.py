"""The published count of mPnP-LLM's adaptation, and what is executed beside it.

``python -m bench.methods.mpnp.paper_flops`` prints both. OPT-1.3B learns from 659 samples in 8
passes; texts have 72 tokens, and LiDAR 4 more. The published count is that of `budget`: it takes
one operation for a multiply-accumulate, RangeViT as 256 tokens, and the backward pass as the
gradients of inputs alone. Executed operations are those of `StepTracer` on tensors without values,
two for each multiply-accumulate, elementwise ones and the gradients of aligners and gates included.
"""

from __future__ import annotations

from typing import Any

from .budget import Transformer, Workload, encoder

PETA = 1e15
EAGER: dict[str, Any] = {"attn_implementation": "eager"}
"""Attention as separate operators, which are counted; a keyword that is in no signature."""
SAMPLES, EPOCHS, TEXT, PREFIX, VOCABULARY = 659, 8, 72, 4, 50272
OPT_1_3B = Transformer(24, 2048, TEXT + PREFIX)
VIT = Transformer(12, 384, 256)
PATCH = 768
RANGEVIT_TOKENS = 4096
"""Of its released network, which has patches of 2 x 8."""
WORK = Workload(OPT_1_3B, OPT_1_3B.tokens * VOCABULARY * OPT_1_3B.width, encoder(VIT, PATCH))
PUBLISHED = {4: 0.68, 7: 0.74, 10: 0.81, 13: 0.87, 16: 0.93, 19: 0.99, 22: 1.05}
"""Of the paper's table 1, in 1e15."""
PUBLISHED_FULL = 1.58


def adaptation(linked: int) -> int:
    """The published count of all passes over all samples."""
    return SAMPLES * EPOCHS * WORK.step(linked)


def full() -> int:
    """The same of training the whole decoder, whose encoder the paper's figure leaves out."""
    return SAMPLES * EPOCHS * 3 * (WORK.decoder.forward + WORK.logits)


def executed(linked: int) -> tuple[float, float]:
    """Operations that run in the forward and in the backward passes over all samples.

    Counted for one sample, encoder included; no optimizer.
    """
    import torch
    from timm.models.vision_transformer import VisionTransformer
    from transformers import OPTConfig, OPTForCausalLM

    from bench.costs.step_tracer import StepTracer

    from .connection import Connector, Gates, prefix_cache, without_prefix

    sizes = OPTConfig(
        hidden_size=OPT_1_3B.width, num_hidden_layers=OPT_1_3B.blocks, ffn_dim=8192,
        num_attention_heads=32, vocab_size=VOCABULARY, word_embed_proj_dim=OPT_1_3B.width,
        **EAGER,
    )  # fmt: skip
    with torch.device("meta"):
        decoder = OPTForCausalLM(sizes).requires_grad_(False)
        vit = VisionTransformer(img_size=256, num_classes=0, embed_dim=VIT.width, num_heads=6)
        connector, gates = Connector(VIT.width, OPT_1_3B.width), Gates(linked)
        image = torch.zeros(1, 3, 256, 256)
        ids = torch.zeros(1, TEXT, dtype=torch.int64)
        seen = torch.ones(1, PREFIX + TEXT, dtype=torch.int64)
    layers = list(decoder.model.decoder.layers)
    with StepTracer() as tracer:
        with torch.no_grad():
            tokens = vit.forward_features(image)[:, 1:]
        pooled = tokens.unflatten(1, (PREFIX, -1)).mean(dim=2)
        keys, values = connector(pooled)
        cache = prefix_cache(keys, values, gates(), 32, OPT_1_3B.blocks)
        with without_prefix(layers[: OPT_1_3B.blocks - linked], PREFIX):
            loss = decoder(
                input_ids=ids, attention_mask=seen, past_key_values=cache, labels=ids
            ).loss
        middle = len(tracer.log)
        loss.backward()
    counts = [flops for _, (flops, _, _) in tracer.log]
    every = SAMPLES * EPOCHS
    return every * sum(counts[:middle]), every * sum(counts[middle:])


def main() -> None:
    """Print the column of the paper's table, and executed operations beside it."""
    print("| 1e15 | published | by its formulas | executed, forward + backward | half of it |")
    print("|---|---|---|---|---|")
    for linked, published in PUBLISHED.items():
        forward, backward = (part / PETA for part in executed(linked))
        both = forward + backward
        print(
            f"| N = {linked} | {published:.2f} | {adaptation(linked) / PETA:.3f} | "
            f"{forward:.3f} + {backward:.3f} = {both:.3f} | {both / 2:.3f} |"
        )
    print(f"| full | {PUBLISHED_FULL:.2f} | {full() / PETA:.3f} | | |")
    real = Transformer(VIT.blocks, VIT.width, RANGEVIT_TOKENS)
    ratio = encoder(real, PATCH) / WORK.decoder.forward
    print(
        f"\nRangeViT with its {RANGEVIT_TOKENS} tokens: {encoder(real, PATCH):.3g} for a sample, "
        f"{ratio:.2f} of the decoder's forward pass; counted as 256 tokens: {WORK.encoders:.3g}."
    )


if __name__ == "__main__":
    main()
