"""The controls of the offline stage: nothing is retrained, and each draw has a stage of its own."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
import torch

from bench.contracts.data import take
from bench.contracts.method import search_space
from bench.contracts.model import weights_digest
from bench.methods.edgeta.config import EdgeTAConfig
from bench.methods.edgeta.method import EdgeTA
from bench.methods.edgeta.offline import STAGES, offline, weights_of
from bench.methods.edgeta.offline_only import EdgeTAOffline, OfflineOnlyConfig
from bench.models.surgery.gates import set_sparsity


@pytest.fixture
def config(settings: dict[str, Any]) -> OfflineOnlyConfig:
    offline_only = {k: v for k, v in settings.items() if k not in ("learning_rate", "epochs")}
    return OfflineOnlyConfig(**{**offline_only, "importance": "first", "sparsity": 0.7})


def test_its_proxies_are_cut_for_each_domain_and_nothing_is_trained(
    build, source, domain, adapt, config
) -> None:
    method = EdgeTAOffline(config)
    method.prepare(build("vit"), source("vit"))
    before = {n: t.clone() for n, t in method.kb.module.state_dict().items()}
    fm = {n: t.clone() for n, t in weights_of(method.fm).items()}
    target = domain("vit", 20, seed=2)
    adapt(method, target)
    assert all(torch.equal(t, before[n]) for n, t in method.kb.module.state_dict().items())
    assert all(torch.equal(t, fm[n]) for n, t in weights_of(method.fm).items())
    proxy, _ = method.generate(target.x)
    sample = take(target.x, torch.tensor([0]))
    with torch.no_grad():
        set_sparsity(method.kb, 0.7)
        torch.testing.assert_close(proxy(sample), method.kb(sample), rtol=0, atol=1e-4)


def test_before_the_stream_it_predicts_as_edgeta_does(build, source, domain, settings) -> None:
    kept = {k: v for k, v in settings.items() if k not in ("learning_rate", "epochs")}
    x = domain("vit", 20, seed=2).x
    found = []
    for method in (EdgeTAOffline(OfflineOnlyConfig(**kept)), EdgeTA(EdgeTAConfig(**settings))):
        method.prepare(build("vit"), source("vit"))
        found.append(method.predict(x))
    assert torch.equal(*found)
    assert EdgeTAOffline.offline_settings(OfflineOnlyConfig(**kept)) == EdgeTA.offline_settings(
        EdgeTAConfig(**settings)
    )


def test_it_has_nothing_to_search_and_refuses_what_would_have_no_effect() -> None:
    assert list(search_space(OfflineOnlyConfig)) == []
    for name, value in (
        ("learning_rate", 1e-3), ("epochs", 1), ("iterations", 100), ("qkv_bias", False),
        ("feedback", "direct"), ("kb_to_fm", 0.1), ("fm_to_kb", 0.1),
        ("model_feedback", "replace"), ("max_residual", 0.1), ("feedback_biases", False),
    ):  # fmt: skip
        with pytest.raises(pydantic.ValidationError, match=name):
            OfflineOnlyConfig(**{name: value})


def test_each_draw_has_an_offline_stage_of_its_own(
    build, source, settings, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    weights = []
    for draw in (0, 1, 1, 0):
        data = source("vit")
        data.draw = draw
        weights.append(
            weights_digest(offline(EdgeTAConfig(**settings), build("vit"), data).kb.module)
        )
    assert weights[0] == weights[3] != weights[1] == weights[2]
    assert len(list((tmp_path / "edgeta").glob("*.pt"))) == 2 * len(STAGES)
