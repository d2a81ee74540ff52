"""What counting a method with memories costs on a vision transformer of timm, and comparing it.

Run with ``tox -e bench``. Counting takes about 0.1 ms for an operator, whatever its size: the
smaller the model, the larger its share, so that these figures are the upper end (ViT-B/16, batch 8,
24 memories, one thread: 0.76 s of a step of 36 s).
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest
import torch

from bench import registry
from bench.contracts.data import DomainView
from bench.contracts.method import Method
from bench.contracts.model import FoundationModel
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.operators.live_memory import live_bytes
from bench.run.window import Window
from bench.snapshots.content import held_content

INPUT, CLASSES, BATCH, MEMORIES, STEPS = (3, 224, 224), 7, 2, 4, 2


def images(n: int, seed: int) -> DomainView:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *INPUT, generator=generator)
    return DomainView("d", x, torch.randint(CLASSES, (n,), generator=generator), BATCH, generator)


@pytest.fixture(scope="module")
def gem() -> Method:
    """GEM on ViT-Ti/16 with random weights, which remembers the source."""
    from timm.models.vision_transformer import vit_tiny_patch16_224

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model_class = registry.load("model", "vit_base_patch16_224")
    model: FoundationModel = model_class(vit_tiny_patch16_224(num_classes=CLASSES))
    method_class = registry.load("method", "gem")
    method: Method = method_class(method_class.Config(epochs=1, patterns_per_domain=MEMORIES))
    method.prepare(model, images(MEMORIES, 0))
    return method


def test_counting_takes_a_small_part_of_a_step_with_memories(gem: Method, benchmark: Any) -> None:
    counting, whole, operators = [], [], []

    def adapt() -> None:
        tracker = make_tracker([load_device("xavier-nx")], gem.stored)
        start = time.perf_counter()
        with Window(tracker, 1e9, None, lambda: gem.model.module) as window:
            gem.adapt(images(STEPS * BATCH, 1), window)
        whole.append(time.perf_counter() - start)
        counting.append(tracker.tracing_s)
        operators.append(tracker.launches)
        assert tracker.counts == {"adapt": STEPS, "consolidation": 1}

    benchmark.pedantic(adapt, rounds=1)
    share = counting[0] / whole[0]
    benchmark.extra_info["counting / whole"] = round(share, 3)
    print(
        f"\ngem on ViT-Ti/16, {STEPS} steps and {operators[0]:.0f} launches: {whole[0]:.2f} s, "
        f"{counting[0]:.2f} s of them counting ({share:.1%})"
    )
    assert share < 0.4


def test_comparing_what_a_method_holds_takes_about_as_long_as_a_plain_digest(
    gem: Method, benchmark: Any
) -> None:
    size = live_bytes(vars(gem))
    plain = torch.zeros(size, dtype=torch.uint8).numpy()

    def seconds(call: Any) -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    digest = min(seconds(lambda: hashlib.sha256(plain)) for _ in range(3))
    held = min(seconds(lambda: held_content(gem)) for _ in range(3))
    benchmark.pedantic(held_content, args=(gem,), rounds=1)
    benchmark.extra_info["held_content / sha256"] = round(held / digest, 2)
    print(f"\nheld_content of {size / 1e6:.0f} MB: {held:.3f} s, sha256 of as much {digest:.3f} s")
    assert held < 3 * digest + 0.1
