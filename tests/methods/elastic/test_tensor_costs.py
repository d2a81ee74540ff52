"""What tensors cost, against the counted passes of steps that train some of them."""

from __future__ import annotations

import random

import pytest
import torch
from small_decoders import decoder, texts

from bench import BenchError, registry
from bench.costs.device_profile import device_names, load_device
from bench.costs.pricing import step_cost
from bench.costs.step_tracer import StepTrace, StepTracer, tally
from bench.methods.elastic.elastic_window import CostDevice
from bench.methods.elastic.tensor_costs import tensor_costs

NX = load_device("xavier-nx")


def built(name):
    kind = registry.load("model", name)
    torch.manual_seed(0)
    model = kind.build(kind.Config(), (1, 16, 16), 10)
    model.train()
    return model


def passes(model, x, trained):
    """Logs of a forward and a backward pass that trains these."""
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name in trained)
        parameter.grad = None
    ones = torch.ones_like(model(x))
    with StepTracer() as tracer:
        outputs = model(x)
        middle = len(tracer.log)
        outputs.backward(ones)
    return tracer.log[:middle], tracer.log[middle:]


PRICES = {
    "operations": lambda log: sum(flops for _, (flops, _, _) in log),
    "bytes": lambda log: sum(size for _, (_, size, _) in log),
    "time": lambda log: step_cost(tally(StepTrace(), log), NX).time_s,
    "energy": lambda log: step_cost(tally(StepTrace(), log), NX).energy_j,
}


# Time is mostly launches at this size, and a convolution's is one for all of its gradients
@pytest.mark.parametrize("model", ["digits-vit", "digits-resnet"])
@pytest.mark.parametrize(
    ("quantity", "close"), [("operations", 0.04), ("bytes", 0.05), ("time", 0.08), ("energy", 0.08)]
)
def test_predictions_are_what_is_counted(model, quantity, close):
    model, x = built(model), torch.rand(8, 1, 16, 16)
    names = [name for name, _ in model.module.named_parameters()]
    device = NX if quantity in ("time", "energy") else None
    costs = tensor_costs(model, x, names, quantity, device)
    assert sorted(costs.names) == sorted(names)
    draw, n = random.Random(0), len(names)
    for share in (0.2, 0.5, 0.8, 1.0):
        for of in (n, n // 2):
            chosen = sorted(draw.sample(range(of), int(share * of)))
            forward, backward = passes(model, x, {costs.names[k] for k in chosen})
            assert costs.forward == pytest.approx(PRICES[quantity](forward), rel=0.02)
            assert costs.predicted(chosen) == pytest.approx(PRICES[quantity](backward), rel=close)


def test_the_order_is_that_of_the_backward_pass_and_a_matrix_costs_its_products():
    model, x = built("digits-vit"), torch.rand(8, 1, 16, 16)
    names = [name for name, _ in model.module.named_parameters()]
    costs = tensor_costs(model, x, names)
    assert set(costs.names[:2]) == {"head.bias", "head.weight"}
    assert costs.names[-1].startswith("patch_embed")
    k = costs.names.index("head.weight")
    parameter = dict(model.module.named_parameters())["head.weight"]
    assert costs.dw[k] == pytest.approx(2 * 8 * parameter.numel(), rel=0.01)
    assert costs.before[k] == 0


def test_what_is_measured_is_near_what_is_counted_in_its_order_and_positive():
    model, x = built("digits-vit"), torch.rand(8, 1, 16, 16)
    names = [name for name, _ in model.module.named_parameters()]
    costs = tensor_costs(model, x, names, "time", repeats=2)
    assert sorted(costs.names) == sorted(names)
    assert costs.forward > 0
    assert costs.backward > 0
    assert costs.before == sorted(costs.before)


def test_nothing_is_changed_by_it():
    model, x = built("digits-resnet"), torch.rand(8, 1, 16, 16)
    names = [name for name, _ in model.module.named_parameters()][:-2]
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name in names)
        parameter.grad = torch.ones_like(parameter)
    before = {n: v.clone() for n, v in model.module.state_dict().items()}
    state = torch.get_rng_state()
    tensor_costs(model, x, names)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[n]) for n, v in model.module.state_dict().items())
    for name, parameter in model.module.named_parameters():
        assert parameter.requires_grad == (name in names)
        assert torch.equal(parameter.grad, torch.ones_like(parameter))
    assert not x.requires_grad


def test_words_have_costs_too():
    kind = registry.load("model", "bert-base")
    settings = {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32,
                "vocabulary": 40, "positions": 12}  # fmt: skip
    model = kind.build(kind.Config(**settings), (9,), 4)
    x = {"input_ids": torch.randint(1, 40, (3, 9)), "attention_mask": torch.ones(3, 9).long()}
    names = [name for name, _ in model.module.named_parameters()]
    reached = [n for n in names if "pooler" not in n]
    costs = tensor_costs(model, x, reached)
    assert sorted(costs.names) == sorted(reached)
    assert "embeddings" in costs.names[-1]


def test_a_parameter_that_no_gradient_reaches_has_no_costs():
    model = built("digits-vit")
    model.module.unused = torch.nn.Parameter(torch.zeros(3))
    x = torch.rand(2, 1, 16, 16)
    assert tensor_costs(model, x, ["head.weight", "unused"]).names == ["head.weight"]
    with pytest.raises(BenchError, match="no parameter that is trained gets a gradient"):
        tensor_costs(model, x, ["unused"])


def test_energy_needs_a_device():
    with pytest.raises(BenchError, match="cost_device"):
        tensor_costs(built("digits-vit"), torch.rand(2, 1, 16, 16), ["head.weight"], "energy")


def test_every_modelled_device_can_be_named():
    shipped = {name for name in device_names() if "@" not in name} - {"host"}
    assert set(CostDevice.__args__) == {"none", *shipped}


@pytest.mark.parametrize(
    ("name", "tied"),
    [("opt", "model.decoder.embed_tokens.weight"), ("bloom", "transformer.word_embeddings.weight"),
     ("gpt-neo", "transformer.wte.weight")],
)  # fmt: skip
def test_an_embedding_that_is_the_head_too_is_as_deep_as_its_first_use(name, tied):
    """Its cost is that of a pass down to the words, which trains it alone."""
    model = decoder(name)
    x, _ = texts(4)
    parameters = dict(model.module.named_parameters())
    costs = tensor_costs(model, x, list(parameters))
    place = costs.names.index(tied)
    # Nothing but what is looked up at the same depth, or scales it, lies behind it
    assert set(costs.names[place + 1 :]) <= {
        "model.decoder.embed_positions.weight", "transformer.wpe.weight",
    }  # fmt: skip
    for each, p in parameters.items():
        p.requires_grad_(each == tied)
    with StepTracer() as tracer:
        outputs = model(x)
        middle = len(tracer.log)
        outputs.backward(torch.ones_like(outputs))
    executed = sum(flops for _, (flops, _, _) in tracer.log[middle:])
    assert costs.predicted([place]) == pytest.approx(executed, rel=0.02)
