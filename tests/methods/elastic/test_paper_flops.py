"""GreenTrainer's published total, and the operators of the same training."""

from __future__ import annotations

import pytest

from bench.methods.elastic.paper_flops import OPT_2_7B, PETA, Decoder, executed, fine_tuning


def test_the_total_that_the_paper_prints():
    assert fine_tuning(OPT_2_7B, samples=1992, epochs=5) / PETA == pytest.approx(41.8, rel=0.01)


def test_what_is_executed_is_twice_as_much_and_the_elementwise_work():
    small = Decoder(blocks=2, width=256, inner=1024, vocabulary=1000)
    counted = fine_tuning(small, samples=3, epochs=2, tokens=64)
    assert sum(executed(small, 3, 2, 64)) / counted == pytest.approx(2.0, rel=0.05)
