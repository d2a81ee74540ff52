"""Counts of a step by hand: operations, bytes, launches and live memory."""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import flop_counter
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from bench.contracts.data import DomainView
from bench.costs import step_tracer
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.errors import BenchError
from bench.operators.flop_formulas import formula_of
from bench.operators.live_memory import live_tensors
from bench.operators.operator_kinds import OPERATOR_CLASSES, operator_class

F4 = 4
"""Bytes of a float32."""


def count(work: Callable[[], Any], resident: Any = ()) -> StepTrace:
    with StepTracer(resident) as tracer:
        kept = work()
    del kept
    return tracer.trace


def flops(trace: StepTrace, kind: str) -> float:
    return sum(f * n for (k, _, f, _), n in trace.operations.items() if k == kind)


def launches(trace: StepTrace, kind: str) -> int:
    return sum(n for (k, *_), n in trace.operations.items() if k == kind)


def only(trace: StepTrace) -> tuple[str, str, float, float]:
    ((operation, times),) = trace.operations.items()
    assert times == 1
    return operation


# --- operations and bytes -------------------------------------------------------

M, K, N = 5, 7, 3


@pytest.mark.parametrize(
    ("weight", "x", "products"),
    [(True, True, 3), (True, False, 2), (False, True, 2), (False, False, 1)],
)
def test_a_linear_layer_is_2mnk_forward_and_for_each_gradient_that_is_needed(
    weight: bool, x: bool, products: int
) -> None:
    layer = nn.Linear(K, N).requires_grad_(weight)
    inputs = torch.rand(M, K, requires_grad=x)

    def step() -> None:
        loss = layer(inputs).sum()
        if loss.requires_grad:
            loss.backward()

    trace = count(step)
    assert flops(trace, "matmul") == products * 2 * M * N * K
    assert launches(trace, "matmul") == products


def test_a_linear_layers_operations_to_the_byte() -> None:
    layer, inputs = nn.Linear(K, N), torch.rand(M, K)
    with torch.no_grad():
        operation = only(count(lambda: layer(inputs)))
    size = F4 * (M * K + K * N + N + M * N)  # input, weight, bias, output
    assert operation == ("matmul", "float32", 2.0 * M * N * K, float(size))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_mode_of_autograd_does_not_change_the_count_of_a_forward_pass(mode: Any) -> None:
    net = nn.Sequential(nn.Linear(K, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, N))
    inputs = torch.rand(2, M, K)
    with torch.no_grad():
        expected = count(lambda: net(inputs))
    with mode():
        trace = count(lambda: net(inputs))
    assert trace.operations == expected.operations
    assert flops(trace, "matmul") == 2 * 2 * M * (K * 8 + 8 * N)
    assert trace.launches == 4


def test_a_frozen_first_layer_saves_its_gradients() -> None:
    net = nn.Sequential(nn.Linear(K, 8), nn.Linear(8, N))
    inputs = torch.rand(M, K)

    def step() -> None:
        net(inputs).sum().backward()

    first, second = 2 * M * K * 8, 2 * M * 8 * N
    assert flops(count(step), "matmul") == (first + second) + first + 2 * second
    net[0].requires_grad_(False)
    assert flops(count(step), "matmul") == (first + second) + second
    net[0].requires_grad_(True)
    net[1].requires_grad_(False)
    assert flops(count(step), "matmul") == (first + second) + first + second


CONV = 2 * 2 * 6 * (8 - 2) * (9 - 4) * 3 * 5
"""Operations of the convolutions below for one input channel of a group."""


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_2_operations_for_each_weight_and_output_pixel(groups: int) -> None:
    layer = nn.Conv2d(4, 6, (3, 5), groups=groups, bias=False)
    with torch.no_grad():
        trace = count(lambda: layer(torch.rand(2, 4, 8, 9)))
    assert flops(trace, "convolution") == CONV * 4 // groups


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("x", "products"), [(False, 2), (True, 3)])
def test_each_gradient_of_a_convolution_costs_what_the_convolution_does(
    groups: int, x: bool, products: int
) -> None:
    layer = nn.Conv2d(4, 6, (3, 5), groups=groups, bias=False)
    inputs = torch.rand(2, 4, 8, 9, requires_grad=x)
    trace = count(lambda: layer(inputs).sum().backward())
    assert flops(trace, "convolution") == products * CONV * 4 // groups


@pytest.mark.parametrize(
    ("work", "operations", "elements"),
    [
        (lambda m, v, w: m.mv(v), 2 * 6, 6 + 3 + 2),
        (lambda m, v, w: torch.addmv(w, m, v), 2 * 6, 2 + 6 + 3 + 2),
        (lambda m, v, w: v.dot(torch.ones_like(v)), 2 * 3, 3 + 3 + 1),
    ],
)
def test_products_with_a_vector_are_2_operations_for_each_entry(
    work: Callable[..., Any], operations: int, elements: int
) -> None:
    """torch's counter has no formula for them."""
    m, v, w = torch.rand(2, 3), torch.rand(3), torch.rand(2)
    trace = count(lambda: work(m, v, w))
    expected = ("matmul", "float32", float(operations), float(F4 * elements))
    assert [op for op in trace.operations if op[0] == "matmul"] == [expected]


@pytest.mark.parametrize(
    ("work", "classes"),
    [
        (lambda x: nn.functional.gelu(x), [("elementwise", 12.0, 24), ("elementwise", 12.0, 36)]),
        (lambda x: x.softmax(1), [("reduction", 12.0, 24), ("reduction", 12.0, 36)]),
    ],
)
def test_gelu_and_softmax_forward_and_backward_by_hand(
    work: Callable[..., Any], classes: list[tuple[str, float, int]]
) -> None:
    """Backward reads the gradient and what was kept, and writes a gradient: three tensors."""
    x, gradient = torch.rand(3, 4, requires_grad=True), torch.rand(3, 4)
    trace = count(lambda: torch.autograd.grad(work(x), x, gradient))
    found = Counter({(k, f, s): n for (k, _, f, s), n in trace.operations.items()})
    assert found == Counter((kind, flops, float(F4 * size)) for kind, flops, size in classes)


def test_an_embedding_reads_the_rows_that_it_looks_up() -> None:
    table, ids = nn.Embedding(1000, 8), torch.tensor([[1, 5, 1]])
    with torch.no_grad():
        operation = only(count(lambda: table(ids)))
    assert operation == ("copy", "float32", 0.0, float(2 * F4 * 3 * 8))


def test_a_layer_norm_is_one_operation_for_each_element_that_it_writes() -> None:
    layer, inputs = nn.LayerNorm(8), torch.rand(M, 8)
    with torch.no_grad():
        operation = only(count(lambda: layer(inputs)))
    size = F4 * (M * 8 + 8 + 8 + M * 8 + M + M)  # input, scale, shift, output, mean, 1/deviation
    assert operation == ("normalisation", "float32", float(M * 8 + M + M), float(size))


@pytest.mark.parametrize(
    ("work", "kind", "operations", "elements"),
    [
        (lambda a, b: a + b, "elementwise", 6, 18),
        (lambda a, b: a.add_(b), "elementwise", 6, 12),  # in place: read and written once
        (lambda a, b: a * a, "elementwise", 6, 12),
        (lambda a, b: a + 1.0, "elementwise", 6, 12),
        (lambda a, b: a.exp(), "elementwise", 6, 12),
        (lambda a, b: a + b[:1], "elementwise", 6, 15),  # broadcast reads what there is
        (lambda a, b: a.sum(), "reduction", 6, 7),
        (lambda a, b: a.softmax(1), "reduction", 6, 12),
        (lambda a, b: a.clone(), "copy", 0, 12),
        (lambda a, b: torch.cat([a, b]), "copy", 0, 24),
    ],
)
def test_other_operators_by_hand(
    work: Callable[..., Any], kind: str, operations: int, elements: int
) -> None:
    a, b = torch.rand(2, 3), torch.rand(2, 3)
    expected = (kind, "float32", float(operations), float(F4 * elements))
    assert only(count(lambda: work(a, b))) == expected


def test_attention_is_two_products_of_queries_and_keys() -> None:
    batch, heads, tokens, width = 2, 3, 5, 8
    q, k, v = torch.rand(3, batch, heads, tokens, width)
    with torch.no_grad():
        trace = count(lambda: nn.functional.scaled_dot_product_attention(q, k, v))
    assert flops(trace, "attention") == 2 * 2 * batch * heads * tokens * tokens * width
    assert trace.launches == 1


@pytest.mark.parametrize("name", ["", "_backward"])
def test_attention_on_a_cpu_is_counted_whether_torch_knows_it_or_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention_for_cpu{name}")
    q, k, v = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8), torch.rand(2, 3, 7, 8)
    given = (q, k, v) if not name else (torch.rand(2, 3, 5, 8), q, k, v)
    one = 2 * 2 * 3 * 5 * 7 * 8  # a product of queries and keys
    expected = float(one * (5 if name else 2))
    if packet in flop_counter.flop_registry:  # torch's own formula, where it has one
        assert flop_counter.flop_registry[packet](*given, out_val=q) == expected
    monkeypatch.delitem(flop_counter.flop_registry, packet, raising=False)
    formula = formula_of(packet.default)
    assert formula is not None
    assert formula(given, {}, q) == expected


def test_products_of_batches_and_of_integers_by_hand() -> None:
    a, b, c = torch.rand(4, 2, 3), torch.rand(4, 3, 5), torch.rand(2, 5)
    assert flops(count(lambda: torch.addbmm(c, a, b)), "matmul") == 2 * 4 * 2 * 3 * 5
    n = torch.ones(32, 32, dtype=torch.int8)
    assert flops(count(lambda: torch._int_mm(n, n)), "matmul") == 2 * 32**3


@torch.no_grad()
def test_layers_that_torch_fuses_in_inference_are_counted_by_their_parts() -> None:
    tokens, width, hidden, batch = 17, 64, 256, 2
    layer = nn.TransformerEncoderLayer(width, 4, hidden, batch_first=True).eval()
    x = torch.rand(batch, tokens, width)
    trace = count(lambda: layer(x))
    linear = 2 * batch * tokens * (4 * width * width + 2 * width * hidden)
    assert flops(trace, "matmul") == linear
    assert flops(trace, "attention") == 2 * 2 * batch * tokens * tokens * width
    assert torch.backends.mha.get_fastpath_enabled()  # as it was


def test_products_without_a_formula_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(flop_counter.flop_registry, torch.ops.aten.convolution)
    monkeypatch.setattr(step_tracer, "_FACTS", {})
    with pytest.raises(BenchError, match=r"operator convolution: there is no formula .* add"):
        count(lambda: nn.Conv1d(2, 2, 1)(torch.ones(1, 2, 3)))


def test_views_are_free() -> None:
    a = torch.rand(4, 6)

    def views() -> list[Any]:
        return [
            a.t(), a.view(24), a[1:], a[:, 2], a.unsqueeze(0), a.expand(2, 4, 6), a.detach(),
            a.chunk(2), a.split(3, dim=1), a.unbind(0), a.permute(1, 0), a.reshape(3, 8),
            torch.empty(5), torch.empty_like(a), a.select(0, 1), a.transpose(0, 1).flatten(0, 0),
        ]  # fmt: skip

    trace = count(views)
    assert trace.operations == {}
    assert (trace.flops, trace.bytes, trace.launches) == (0, 0, 0)


def test_a_broadcast_view_is_read_at_its_storages_size() -> None:
    a = torch.rand(1, 3)
    wide = a.expand(100, 3)
    operation = only(count(lambda: wide.clone()))
    assert operation[3] == F4 * (3 + 300)


def test_data_types_are_told_apart() -> None:
    a = torch.rand(2, 3)
    trace = count(lambda: (a.half() + 1, a.double() + 1, a.long() + 1))
    assert {k[1] for k in trace.operations if k[0] == "elementwise"} == {
        "float16", "float64", "float32",
    }  # fmt: skip


def test_every_class_is_one_that_profiles_know() -> None:
    names = ["mm", "_softmax", "native_layer_norm", "convolution_backward", "gelu", "cat",
             "_scaled_dot_product_flash_attention", "linalg_vector_norm",
             "no_such_operator"]  # fmt: skip
    assert {operator_class(name) for name in names} <= set(OPERATOR_CLASSES)
    assert operator_class("native_batch_norm_backward") == "normalisation"
    assert operator_class("linalg_vector_norm") == "reduction"


def test_drawing_normal_numbers_is_not_normalization() -> None:
    a = torch.empty(2, 3)
    assert only(count(lambda: a.normal_()))[0] != "normalisation"


# --- the optimizer ---------------------------------------------------------------


def chain(layers: int, width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(layers)])


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p),
        lambda p: torch.optim.AdamW(p),
    ],
)
def test_an_optimizer_launches_once_for_each_operator_whatever_the_number_of_parameters(
    optimizer: Callable[[Any], torch.optim.Optimizer],
) -> None:
    def steady_step(layers: int) -> StepTrace:
        net = chain(layers)
        made = optimizer(net.parameters())
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        made.step()
        return count(made.step)

    small, large = steady_step(1), steady_step(5)
    assert {k[0] for k in small.operations} == {"optimiser"}
    assert small.launches == large.launches >= 1
    assert large.flops == pytest.approx(5 * small.flops)
    assert large.bytes == pytest.approx(5 * small.bytes)


def test_plain_sgd_by_hand() -> None:
    net = chain(3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    elements = 3 * (4 * 4 + 4)
    operation = ("optimiser", "float32", float(elements), float(F4 * 2 * elements))
    assert only(count(optimizer.step)) == operation


def test_work_before_and_after_an_optimizer_step_is_not_the_optimizers() -> None:
    p = nn.Parameter(torch.rand(3))
    p.grad = torch.ones(3)
    optimizer = torch.optim.SGD([p], lr=0.1)

    def step() -> None:
        torch.ones(3).exp()
        optimizer.step()
        torch.ones(3).exp()

    trace = count(step)
    assert launches(trace, "optimiser") == 1
    assert launches(trace, "elementwise") == 2


def test_the_forward_pass_inside_an_optimizers_closure_is_counted_as_what_it_is() -> None:
    net, inputs = chain(2), torch.rand(3, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(inputs).sum()
        loss.backward()
        return loss

    inside = count(lambda: optimizer.step(closure))
    apart = count(lambda: (closure(), optimizer.step()))
    assert flops(apart, "matmul") > 0
    assert flops(inside, "matmul") == flops(apart, "matmul")


def test_an_optimizer_step_inside_another_loses_no_work() -> None:
    """As sharpness-aware minimisation does: its step moves the weights and calls a base step."""

    class Outer(torch.optim.Optimizer):
        def __init__(self, parameters: Iterable[Tensor]) -> None:
            super().__init__(parameters, {})
            self.base = torch.optim.SGD(self.param_groups[0]["params"], lr=0.1)

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for p in self.param_groups[0]["params"]:
                p.mul_(2.0)
            self.base.step()
            for p in self.param_groups[0]["params"]:
                p.mul_(0.5)

    p = nn.Parameter(torch.rand(100))
    p.grad = torch.ones(100)
    assert count(Outer([p]).step).flops == 300


# --- no effect on the step ---------------------------------------------------------


def train(steps: int, traced: bool) -> tuple[dict[str, Tensor], list[float]]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 3)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        x, y = torch.rand(5, 6), torch.randint(0, 3, (5,))
        tracer = StepTracer([net, optimizer]) if traced else None
        if tracer is not None:
            tracer.__enter__()
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if tracer is not None:
            tracer.__exit__(None, None, None)
        losses.append(loss.item())
    return net.state_dict(), losses


def test_counting_changes_no_bit_of_a_training() -> None:
    plain, plain_losses = train(3, traced=False)
    traced, traced_losses = train(3, traced=True)
    assert traced_losses == plain_losses
    assert all(torch.equal(traced[k], plain[k]) for k in plain)


def test_nothing_stays_on_the_mode_stack_or_in_the_hooks() -> None:
    p = nn.Parameter(torch.rand(3))
    p.grad = torch.ones(3)
    optimizer = torch.optim.SGD([p], lr=0.1)
    with StepTracer() as tracer:
        assert len(_get_current_dispatch_mode_stack()) == 1
        torch.ones(3)
    assert _get_current_dispatch_mode_stack() == []
    counted = copy.copy(tracer.trace.operations)
    optimizer.step()
    torch.ones(3) + 1
    assert tracer.trace.operations == counted


def test_an_exception_leaves_nothing_on_the_mode_stack() -> None:
    with pytest.raises(RuntimeError, match="must match the size"), StepTracer():
        torch.ones(3) + torch.ones(4)
    assert _get_current_dispatch_mode_stack() == []


# --- live memory ------------------------------------------------------------------


def resident(*things: Any) -> int:
    return StepTracer(list(things)).trace.resident_bytes


def test_peak_of_a_chain_without_gradients_is_two_activations() -> None:
    widths = [4, 16, 8, 32, 2]
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    net, batch = nn.Sequential(*layers), 10
    inputs = torch.rand(batch, 4)
    parameters = sum(a * b + b for a, b in pairwise(widths))
    with torch.no_grad():
        trace = count(lambda: net(inputs), net)
    assert trace.resident_bytes == F4 * parameters
    both = max(a + b for a, b in pairwise(widths[1:]))
    assert trace.peak_bytes == F4 * (parameters + batch * (4 + both))


def test_peak_of_a_chain_with_gradients_keeps_every_activation() -> None:
    widths = [4, 16, 8, 32, 2]
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    net, batch = nn.Sequential(*layers), 10
    inputs = torch.rand(batch, 4)
    parameters = sum(a * b + b for a, b in pairwise(widths))
    trace = count(lambda: net(inputs), net)
    assert trace.peak_bytes == F4 * (parameters + batch * sum(widths))


def test_a_backward_pass_holds_gradients_by_hand() -> None:
    layer, inputs = nn.Linear(64, 1, bias=False), torch.rand(2, 64)

    def step() -> None:
        layer(inputs).sum().backward()

    # weight 64, input 2 x 64, output 2, loss 1, its gradient 1 (expanded, not stored), weight
    # gradient 64; the output is not kept for a sum
    trace = count(step, layer)
    assert trace.resident_bytes == F4 * 64
    assert trace.peak_bytes >= F4 * (64 + 128 + 64)
    assert trace.peak_bytes <= F4 * (64 + 128 + 64 + 2 + 1 + 1)


def test_what_is_freed_in_a_step_is_not_live() -> None:
    def step() -> None:
        for _ in range(10):
            torch.ones(1000)

    assert count(step).peak_bytes == F4 * 1000
    assert count(lambda: [torch.ones(1000) for _ in range(10)]).peak_bytes == 10 * F4 * 1000


@pytest.mark.parametrize("steps_before", [0, 1])
def test_the_peak_of_a_training_step_agrees_with_torchs_memory_tracker(
    steps_before: int,
) -> None:
    tracker = pytest.importorskip("torch.distributed._tools.mem_tracker")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)
    )
    optimizer = torch.optim.Adam(net.parameters())
    x, y = torch.rand(16, 32), torch.randint(0, 8, (16,))

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(steps_before):
        step(net, optimizer)
    net2, optimizer2 = copy.deepcopy((net, optimizer))
    trace = count(lambda: step(net, optimizer), [net, optimizer])
    memory = tracker.MemTracker()
    memory.track_external(net2, optimizer2, x, y)
    with memory:
        step(net2, optimizer2)
    expected = memory.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert trace.peak_bytes == pytest.approx(expected, rel=0.01)


# --- what a method keeps ------------------------------------------------------------


def test_a_module_is_its_parameters_and_buffers() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert resident(net) == F4 * (12 + 3 + 3 + 3 + 3 + 3) + 8  # the batch counter is an int64


def test_shared_storage_counts_once() -> None:
    a = torch.rand(100)
    net = nn.Linear(10, 10, bias=False)
    tied = nn.Linear(10, 10, bias=False)
    tied.weight = net.weight
    assert resident(a, a, a[:50], {"view": a.view(10, 10)}) == F4 * 100
    assert resident(net, tied, [net.weight]) == F4 * 100


def test_a_slice_keeps_its_whole_storage() -> None:
    assert resident(torch.rand(100)[:1]) == F4 * 100


def test_gradients_and_optimizer_state_count() -> None:
    net = nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.Adam(net.parameters())
    assert resident(net, optimizer) == F4 * 100
    net(torch.rand(2, 10)).sum().backward()
    assert resident(net) == F4 * 200
    optimizer.step()
    assert resident(net, optimizer) == F4 * 400 + F4  # two moments, and the count of steps
    optimizer.zero_grad()
    assert resident(optimizer) == F4 * 300 + F4  # the optimizer holds its parameters


@dataclass
class Plain:
    kept: Any


@dataclass(slots=True)
class Slotted:
    kept: Any


CONTAINERS: dict[str, Callable[[Tensor], Any]] = {
    "a list": lambda t: [[t]],
    "a tuple": lambda t: (t,),
    "a dict": lambda t: {"a": {"b": t}},
    "a set": lambda t: {t},
    "an object": Plain,
    "an object in an object": lambda t: Plain(Plain([t])),
    "an object with slots": Slotted,
    "a deque": lambda t: deque([t], maxlen=3),
    "a batch": lambda t: (
        next(DomainView("d", t.view(10, 10), None, 10, torch.Generator()).batches(shuffle=False)).x
    ),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_tensors_are_found_wherever_a_method_may_keep_them(name: str) -> None:
    assert resident(CONTAINERS[name](torch.rand(100))) == F4 * 100


def test_a_replay_memory_of_batches_counts() -> None:
    view = DomainView("d", torch.rand(8, 25), None, 4, torch.Generator())
    assert resident({"memory": list(view.batches())}) >= F4 * 200


def test_a_domain_view_is_storage_and_not_memory() -> None:
    view = DomainView("d", torch.rand(100), torch.zeros(100).long(), 4, torch.Generator())
    assert resident(view, {"source": [view]}, Plain(view)) == 0


def test_a_batch_drawn_from_a_view_inside_a_step_does_not_bring_the_whole_view_to_memory() -> None:
    """The source batch beside a target batch: the view lies on storage, one batch is read."""
    view = DomainView("source", torch.rand(1000, 50), None, 4, torch.Generator())
    batches = view.infinite()
    next(batches)
    trace = count(lambda: next(batches).x * 2)
    assert trace.peak_bytes < view.nbytes / 2
    assert trace.bytes < view.nbytes / 2


def test_cycles_and_shared_objects_are_walked_once() -> None:
    a: dict[str, Any] = {"t": torch.rand(5)}
    a["self"] = a
    b = Plain(a)
    a["b"] = b
    assert len(list(live_tensors([a, b, a]))) == 1


def test_looking_at_what_a_method_keeps_copies_nothing() -> None:
    t = torch.rand(5)
    assert next(iter(live_tensors({"t": t}))) is t
