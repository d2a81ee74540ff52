"""The published count of operations, and how many blocks a budget links."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import BenchError
from bench.methods.mpnp import paper_flops
from bench.methods.mpnp.budget import Transformer, Workload, linked_blocks, published_blocks


def test_the_count_of_a_block_is_that_of_its_matrices_and_its_attention() -> None:
    d, n = 6, 5
    matrices = 4 * d * d + 2 * d * 4 * d  # q, k, v, out, and both of the feed-forward layer
    scores, mixed = n * n * d, n * n * d
    assert Transformer(1, d, n).block == n * matrices + scores + mixed


@given(
    blocks=st.integers(1, 30), width=st.integers(1, 50), tokens=st.integers(1, 40),
    logits=st.integers(0, 10**6), encoders=st.integers(0, 10**7),
    budget=st.floats(0.01, 1),
)  # fmt: skip
def test_a_budget_links_what_a_search_over_all_numbers_finds(
    blocks: int, width: int, tokens: int, logits: int, encoders: int, budget: float
) -> None:
    work = Workload(Transformer(blocks, width, tokens), logits, encoders)
    one = work.decoder.block
    forward = blocks * one + logits + encoders
    fits = [
        n for n in range(1, blocks + 1)
        if forward + logits + n * one <= budget * 3 * forward
    ]  # fmt: skip
    if fits:
        assert linked_blocks(work, budget) == max(fits)
    else:
        with pytest.raises(BenchError, match=r"linking one block takes \d\.\d{4} of full"):
            linked_blocks(work, budget)


def test_the_floor_that_is_named_is_enough() -> None:
    work = Workload(Transformer(6, 64, 10), 768, 2_000_000)
    with pytest.raises(BenchError, match=r"budget 0\.3: ") as caught:
        linked_blocks(work, 0.3)
    named = float(str(caught.value).split(" takes ")[1].split()[0])
    assert linked_blocks(work, named + 1e-4) == 1


def test_the_published_rule_rounds_and_takes_a_block_below_the_floor() -> None:
    work = paper_flops.WORK
    assert published_blocks(work, 0.1) == 1
    assert published_blocks(work, 1.0) == 24
    between = (work.step(12) + 0.6 * work.decoder.block) / work.full
    assert published_blocks(work, between) == 13
    assert linked_blocks(work, between) == 12


def test_the_default_budget_links_the_papers_13_of_24() -> None:
    from bench.methods.mpnp.method import MPnPConfig

    assert linked_blocks(paper_flops.WORK, MPnPConfig().budget) == 13


@pytest.mark.parametrize(("linked", "published"), paper_flops.PUBLISHED.items())
def test_the_analytic_totals_are_the_papers(linked: int, published: float) -> None:
    assert paper_flops.adaptation(linked) / 1e15 == pytest.approx(published, abs=0.0075)


def test_13_blocks_of_opt_take_0_865e15() -> None:
    assert paper_flops.adaptation(13) == pytest.approx(0.865e15, rel=0.01)
    assert paper_flops.full() == pytest.approx(1.58e15, rel=0.01)


@pytest.mark.slow
def test_half_of_what_is_executed_is_the_count_at_the_tokens_that_pass_the_matrices() -> None:
    """The paper takes 76 tokens through all matrices; 4 of them are keys and values alone.

    What is left of the difference are attention to the prefix, norms, softmax and aligners.
    """
    forward, backward = paper_flops.executed(13)
    half = (forward + backward) / 2
    assert half < paper_flops.adaptation(13)
    words = Transformer(24, 2048, paper_flops.TEXT)
    logits = paper_flops.TEXT * paper_flops.VOCABULARY * 2048
    work = Workload(words, logits, paper_flops.WORK.encoders)
    assert half == pytest.approx(659 * 8 * work.step(13), rel=0.02)
