"""Curves of measured speeds: which points a kind gets, and how sizes in between are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F

from bench.costs.device_profile import PROFILES, ModelledDevice, load_device, profile_digest
from bench.costs.pricing import MemoryFootprint, step_cost
from bench.costs.speed_curves import Curve, Curves, Speed
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.errors import BenchError

WHY = "a round number, for a test"


def quantity(value: float) -> dict[str, Any]:
    return {"value": value, "source": WHY, "confidence": "measured"}


def curves(**kinds: tuple[str, list[tuple[float, float, float]]]) -> dict[str, Any]:
    return {
        "source": WHY,
        "confidence": "measured",
        "kinds": {
            name.replace("_dot_", "."): {"of": of, "points": {"float32": points}}
            for name, (of, points) in kinds.items()
        },
    }


# --- between the points ---------------------------------------------------------------


def test_every_point_is_met() -> None:
    points = [(1e6, 1e5, 2e-4), (1e7, 2e6, 1e-3), (1e9, 3e6, 5e-2), (5e8, 9e6, 9e-2)]
    speed = Speed(points, 1e11, 1e10)
    for flops, size, seconds in points:
        assert speed.seconds(flops, size) == pytest.approx(seconds, rel=1e-9)


def test_on_a_line_it_is_linear_in_logarithms() -> None:
    # Seconds grow as bytes to the power of 1.5 between the two: log-log linear.
    speed = Speed([(0.0, 1e4, 1e-5), (0.0, 1e6, 1e-2)], 1e11, 1e10)
    for size in (2e4, 1e5, 7e5):
        expected = 1e-5 * (size / 1e4) ** 1.5
        assert speed.seconds(0.0, size) == pytest.approx(expected, rel=1e-9)


def test_beyond_the_ends_the_rate_stays_and_no_call_is_shorter_than_the_shortest() -> None:
    speed = Speed([(0.0, 1e4, 1e-5), (0.0, 1e6, 1e-2)], 1e11, 1e10)
    assert speed.seconds(0.0, 1e8) == pytest.approx(1.0, rel=1e-9)  # 1e8 bytes/s as the last
    assert speed.seconds(0.0, 10.0) == 1e-5


def test_in_the_plane_it_stays_within_the_measured_shares() -> None:
    points = [(1e6, 1e6, 1e-3), (1e8, 1e6, 5e-3), (1e8, 1e8, 8e-2), (1e10, 1e7, 0.3)]
    peak, bandwidth = 1e11, 1e10
    speed = Speed(points, peak, bandwidth)

    def share(flops: float, size: float, seconds: float) -> float:
        return max(flops / peak, size / bandwidth) / seconds

    measured = [share(*point) for point in points]
    for flops in (1e5, 1e7, 1e9, 1e12):
        for size in (1e5, 1e7, 1e9):
            reached = share(flops, size, speed.seconds(flops, size))
            assert reached <= max(measured) * (1 + 1e-9)
            assert reached >= min(measured) * (1 - 1e-9) or speed.seconds(flops, size) == 1e-3


def test_points_in_one_place_are_averaged() -> None:
    speed = Speed([(1e6, 1e6, 1e-3), (1e6, 1e6, 4e-3)], 1e11, 1e10)
    assert speed.seconds(1e6, 1e6) == pytest.approx(2e-3)  # the geometric mean


def test_a_single_point_gives_one_share() -> None:
    speed = Speed([(1e9, 1e6, 1e-1)], 1e11, 1e10)
    assert speed.seconds(2e9, 1e6) == pytest.approx(2e-1)


# --- which points -----------------------------------------------------------------------


def test_a_kind_without_a_curve_is_read_from_its_relatives_then_from_its_class() -> None:
    one, two, three = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0)
    given = Curves.model_validate(
        curves(mm_dot_nn=("matmul", [one]), mm_dot_tn=("matmul", [two]), mmx=("matmul", [three]))
    )
    assert given.find("mm.tn", "matmul", "float32") == [two]
    assert given.find("mm.tt", "matmul", "float32") == [one, two]
    assert given.find("addmm.nt", "matmul", "float32") == [one, two, three]
    assert given.find("mm.tn", "matmul", "bfloat16") == []
    assert given.find("add", "elementwise", "float32") == []


def details(*calls: tuple[str, str, str, float, float], **more: Any) -> StepTrace:
    operations = Counter((of, dtype, flops, size) for _, of, dtype, flops, size in calls)
    return StepTrace(operations, details=Counter(calls), **more)


def calibrated(make_device: Callable[..., Any], **changes: Any) -> ModelledDevice:
    board = make_device(launch=0.25, flops=1000.0, bandwidth=100.0).model_dump()
    return ModelledDevice.model_validate({**board, **changes})


def test_work_comes_from_the_curve_and_dispatch_is_added(make_device: Callable[..., Any]) -> None:
    device = calibrated(
        make_device,
        dispatch="added",
        curves=curves(mm_dot_nn=("matmul", [(1e4, 100.0, 20.0), (1e6, 1000.0, 2000.0)])),
    )
    trace = details(
        ("mm.nn", "matmul", "float32", 1e5, 10**2.5),  # halfway: 200 s
        ("add", "elementwise", "float32", 100.0, 500.0),  # no curve: 5 s of roofline
    )
    assert step_cost(trace, device).time_s == pytest.approx(200.25 + 5.25)


def test_overlapped_dispatch_is_the_least_that_a_call_takes(
    make_device: Callable[..., Any],
) -> None:
    given = curves(add=("elementwise", [(10.0, 100.0, 0.125)]))
    trace = details(("add", "elementwise", "float32", 10.0, 100.0))
    assert step_cost(trace, calibrated(make_device, curves=given)).time_s == 0.25
    added = calibrated(make_device, curves=given, dispatch="added")
    assert step_cost(trace, added).time_s == pytest.approx(0.375)


def test_an_optimizers_curve_holds_its_dispatch(make_device: Callable[..., Any]) -> None:
    given = curves(optimizer=("optimiser", [(10.0, 100.0, 0.125)]))
    device = calibrated(make_device, curves=given, dispatch="added")
    trace = details(("optimiser", "optimiser", "float32", 10.0, 100.0))
    assert step_cost(trace, device).time_s == pytest.approx(0.125)


def test_a_trace_without_details_is_priced_by_class(make_device: Callable[..., Any]) -> None:
    given = curves(mm_dot_nn=("matmul", [(1e4, 100.0, 20.0)]))
    device = calibrated(make_device, curves=given, dispatch="added")
    trace = StepTrace(Counter({("matmul", "float32", 1e4, 100.0): 2}))
    assert step_cost(trace, device).time_s == pytest.approx(2 * 20.25)


def test_resident_memory_by_hand(make_device: Callable[..., Any]) -> None:
    known = {"stored": quantity(1.5), "step": quantity(2.0), "convolution": quantity(0.5),
             "added": quantity(7.0)}  # fmt: skip
    device = calibrated(make_device, resident_memory=known)
    trace = details(
        ("convolution.dense", "convolution", "float32", 1.0, 40.0),
        ("convolution.dense", "convolution", "float32", 1.0, 60.0),
        ("add", "elementwise", "float32", 1.0, 900.0),
        peak_bytes=300,
        resident_bytes=100,
    )
    holding, resident = MemoryFootprint.of(trace), 1.5 * 100 + 2.0 * 200 + 0.5 * 60 + 7
    assert holding == MemoryFootprint(stored=100, step=200, convolution=60)
    assert holding.resident_bytes(device) == holding.needed_bytes(device) == resident
    plain = calibrated(make_device)
    assert (holding.resident_bytes(plain), holding.needed_bytes(plain)) == (None, 300)


# --- in a profile -----------------------------------------------------------------------


def board(**changes: Any) -> dict[str, Any]:
    content = yaml.safe_load((PROFILES / "raspberry-pi-5.yaml").read_text())
    return {**content, **changes}


def test_a_profile_with_curves_is_read_and_differs_by_its_numbers_alone(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"

    def digest(**changes: Any) -> str:
        path.write_text(yaml.safe_dump(board(**changes)))
        return profile_digest(load_device(str(path)))

    given = curves(mm_dot_nn=("matmul", [(1e4, 100.0, 20.0)]))
    plain, with_curves = digest(), digest(curves=given)
    assert plain == profile_digest(load_device("raspberry-pi-5"))
    assert with_curves != plain
    assert digest(curves={**given, "source": "other words, as long as these"}) == with_curves
    faster = curves(mm_dot_nn=("matmul", [(1e4, 100.0, 19.0)]))
    others = [{"curves": faster}, {"dispatch": "added"}, {"threads": 2}, {"accelerator": "cpu"}]
    found = [digest(**{"curves": given, **other}) for other in others]
    assert len({plain, with_curves, *found}) == 6
    assert digest(dispatch="overlapped") == plain


@pytest.mark.parametrize(
    ("kinds", "part"),
    [
        ({"mm.nn": {"of": "matmull", "points": {"float32": [[1, 1, 1]]}}},
         "curves.kinds.mm.nn.of: 'matmull' is no class of operators: did you mean 'matmul'?"),
        ({"mm.nn": {"of": "matmul", "points": {"float32": [[1, 1, 0]]}}}, "greater than 0"),
        ({"mm.nn": {"of": "matmul", "points": {"float32": []}}}, "at least 1"),
        ({"mm.nn": {"of": "matmul", "points": {"float32": [[1, 1]]}}}, "points.float32.0.2"),
    ],
)  # fmt: skip
def test_a_bad_curve_is_named(tmp_path: Path, kinds: dict[str, Any], part: str) -> None:
    path = tmp_path / "my.yaml"
    given = {"source": WHY, "confidence": "measured", "kinds": kinds}
    path.write_text(yaml.safe_dump(board(curves=given)))
    with pytest.raises(BenchError) as caught:
        load_device(str(path))
    assert part in str(caught.value)


def test_curves_are_of_one_power_mode(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    modes = {"slow": {"title": "half the clock", "flops": {"float32": quantity(1e9)}}}
    given = curves(mm_dot_nn=("matmul", [(1e4, 100.0, 20.0)]))
    path.write_text(yaml.safe_dump(board(curves=given, default_mode="fast", modes=modes)))
    with pytest.raises(BenchError, match=r"modes\.slow: .* calibrate each mode into a file"):
        load_device(str(path))


def test_a_curve_keeps_its_points() -> None:
    curve = Curve.model_validate({"of": "matmul", "points": {"float32": [[1, 2, 3]]}})
    assert curve.points == {"float32": [(1.0, 2.0, 3.0)]}


# --- kinds --------------------------------------------------------------------------------


def kinds(work: Callable[[], Any]) -> Counter[str]:
    with StepTracer() as tracer:
        work()
    found: Counter[str] = Counter()
    for (kind, *_), count in tracer.trace.details.items():
        found[kind] += count
    return found


def test_products_are_told_apart_by_what_is_transposed() -> None:
    a, b = torch.rand(4, 3), torch.rand(4, 5)
    assert kinds(lambda: torch.mm(a.t(), b)) == {"mm.tn": 1}
    ones, weight, bias = torch.ones(2, 4), torch.rand(2, 3), torch.rand(2)
    assert kinds(lambda: torch.mm(ones, b)) == {"mm.nn": 1}
    assert kinds(lambda: F.linear(a, weight, bias)) == {"addmm.nt": 1}
    assert kinds(lambda: torch.bmm(a[None], a[None].transpose(1, 2))) == {"bmm.nt": 1}


@pytest.mark.parametrize(
    ("weight", "settings", "shape"),
    [
        ((6, 4, 3, 3), {}, "dense"),
        ((6, 4, 1, 1), {}, "pointwise"),
        ((4, 1, 3, 3), {"groups": 4}, "depthwise"),
        ((4, 2, 3, 3), {"groups": 2}, "grouped"),
        ((6, 4, 3, 3), {"stride": 2}, "dense.strided"),
    ],
)
def test_convolutions_are_told_apart_by_shape_and_by_gradients(
    weight: tuple[int, ...], settings: dict[str, Any], shape: str
) -> None:
    x, w = torch.rand(2, 4, 8, 8), torch.rand(weight)
    assert set(kinds(lambda: F.conv2d(x, w, **settings))) == {f"convolution.{shape}"}
    for of_x, of_w, made in ((True, True, "both"), (True, False, "input"), (False, True, "weight")):
        x.requires_grad_(of_x)
        w.requires_grad_(of_w)
        out = F.conv2d(x, w, **settings)
        found = kinds(lambda out=out: out.backward(torch.ones_like(out)))  # type: ignore[misc]
        name, _, strided = shape.partition(".")
        kind = f"convolution_backward.{name}.{made}" + (f".{strided}" if strided else "")
        assert kind in found


def test_norms_are_told_apart_by_statistics_and_gradients() -> None:
    norm = torch.nn.BatchNorm2d(4)
    x = torch.rand(2, 4, 3, 3)
    (training,) = kinds(lambda: norm(x)) - Counter({"add_": 1})
    assert training.endswith(".train")
    out = F.layer_norm(torch.rand(2, 4, requires_grad=True), (4,), torch.rand(4))
    assert "native_layer_norm_backward.input" in kinds(lambda: out.sum().backward())


def test_details_hold_the_calls_of_an_optimizer_one_by_one() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, foreach=False)
    x = torch.rand(5, 3)
    with StepTracer([net]) as tracer:
        net(x).sum().backward()
        optimizer.step()
    trace = tracer.trace
    calls = {key: n for key, n in trace.details.items() if key[1] == "optimiser"}
    merged = {key: n for key, n in trace.operations.items() if key[0] == "optimiser"}
    assert {key[0] for key in calls} == {"optimiser"}
    assert sum(calls.values()) == 4 * sum(merged.values())
    assert sum(key[4] * n for key, n in calls.items()) == sum(key[3] for key in merged)
    others = Counter({key: n for key, n in trace.operations.items() if key[0] != "optimiser"})
    by_class: Counter[Any] = Counter()
    for (_, *operation), n in trace.details.items():
        if operation[0] != "optimiser":
            by_class[tuple(operation)] += n
    assert by_class == others


def test_places_at_equal_distances_weigh_alike() -> None:
    e = math.e
    speed = Speed([(e, e, 1.0), (e**3, e, 2.0), (e, e**3, 2.0)], 1.0, 1.0)
    assert speed.seconds(e**2, e) == pytest.approx(speed.seconds(e, e**2))
