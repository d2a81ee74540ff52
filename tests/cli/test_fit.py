"""``bench fit``: the table, what is unavailable, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner, Result
from warm_bench import warm_subprocess

from bench import registry
from bench.accelerator.determinism import as_in_a_run, seed_everything
from bench.cli import app, main
from bench.contracts.data import DomainView
from bench.costs.device_profile import PROFILES, load_device
from bench.costs.factory import make_tracker
from bench.io import subprocess_call
from bench.run.window import Window

PLUGIN = '''
import os

from bench import Method, register


@register("method", "fit-aborts")
class Aborts(Method):
    """Takes its process with it."""

    def adapt(self, domain, window):
        os.abort()
'''


pytestmark = pytest.mark.usefixtures("empty_registry", "quick_processes")


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes in which methods are counted have imported torch already."""
    monkeypatch.setattr(subprocess_call, "subprocess", warm_subprocess)


def fit(*more: str) -> Result:
    return CliRunner().invoke(app, ["fit", "--model", "digits-vit", *more])


def rows(output: str, device: str) -> dict[str, list[str]]:
    """The cells of each method on a device."""
    lines = output[output.index(f"\n{device}: ") :].strip().splitlines()[2:]
    table = lines[: lines.index("")]
    cells = ([cell for cell in line.split() if cell != "~"] for line in table)
    return {name: numbers for name, *numbers in cells}


def real(name: str, batch: int, samples: int) -> tuple[float, float, float, int]:
    """Megabytes, seconds and joules of a step, and steps in 60 s, from a run on real tensors."""
    method_class = registry.load("method", name)
    model_class = registry.load("model", "digits-vit")

    def view(n: int, labelled: bool = True) -> DomainView:
        y = torch.arange(n) % 10 if labelled else None
        return DomainView("d", torch.rand(n, 1, 32, 32), y, batch, torch.Generator())

    with as_in_a_run():
        seed_everything(0)
        method = method_class(method_class.Config())
        method.prepare(model_class.build(model_class.Config(), (1, 32, 32), 10), view(batch))
        device: Any = load_device("xavier-nx")
        tracker = make_tracker([device], method.stored)
        tracker.start()
        for n in (batch, samples):
            with Window(tracker, 60.0, None, lambda: method.model.module) as window:
                method.adapt(view(n, "target_labels" in method.needs), window)
        with torch.no_grad():
            tracker.inference(batch, partial(method.predict, view(batch).x))
        tracker.finish()
    (device,) = tracker.devices
    memory = (device.peak_bytes + device.runtime_bytes) / 1e6
    step_s = device.expected_s(("adapt", (batch, 1, 32, 32)))
    assert step_s is not None
    assert device.window.energy_j is not None
    step_j = device.window.energy_j / device.window.steps
    return memory, step_s, step_j, int(60 / step_s)


def test_the_numbers_are_those_of_a_run(tmp_path: Path) -> None:
    """And on a smaller device, with a method that crashes and methods that are left to a run."""
    plugin = tmp_path / "aborts.py"
    plugin.write_text(PLUGIN)
    profile = yaml.safe_load((PROFILES / "xavier-nx.yaml").read_text())
    profile["memory_for_applications"]["value"] = 1.4055e9  # 5.5 MB beside the runtime
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump(profile))
    names = ["tent", "fit-aborts", "fine-tune", "eata", "edgeta"]
    done = fit(
        "--batch", "16", "--methods", ",".join(names), "--plugin", str(plugin),
        "--device", "xavier-nx", "--device", "xavier-nx@10w", "--device", str(small),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(
        "digits-vit: batches of 16 samples of 1x32x32, 64 samples in a domain, 10 classes; "
        "window 60 s\n"
    )
    table = rows(done.stdout, "xavier-nx")
    assert list(table) == ["tent", "fine-tune", "eata", "edgeta"]
    assert "  eata ~ " in done.stdout
    assert "  edgeta ~ " not in done.stdout
    for name in ("tent", "fine-tune"):
        cells = table[name]
        memory, step_s, step_j, steps = real(name, 16, 64)
        assert cells == [
            "yes", f"{memory:.0f}", "15519", f"{step_s:.3g}", f"{step_j:.3g}", "-", str(steps),
        ]  # fmt: skip
    slower = rows(done.stdout, "xavier-nx@10w")
    assert all(float(slower[name][3]) > float(table[name][3]) for name in table)
    limited = rows(done.stdout, str(small))
    assert limited["tent"][0] == "yes"
    assert limited["fine-tune"] == ["no", table["fine-tune"][1], "1406", "-", "-", "-", "-"]
    told = done.stdout[done.stdout.index("unavailable on every device:") :].splitlines()[1:2]
    assert [line.split(maxsplit=1) for line in told] == [
        ["fit-aborts", "counting it ended the process (SIGABRT); a run counts it"],
    ]
    assert "All modelled: device profile x counted step" in done.stdout


def test_a_batch_that_is_too_large_is_told_with_both_numbers() -> None:
    done = fit("--batch", "100000", "--methods", "tent", "--device", "raspberry-pi-4b")
    assert done.exit_code == 0, done.output
    (cells,) = rows(done.stdout, "raspberry-pi-4b").values()
    answer, needed, given, *rest = cells
    assert (answer, given, rest) == ("no", "7877", ["-"] * 4)
    # 16 tokens and a class token of width 64 in 4 blocks, tens of values each: tens of kilobytes
    assert 10_000 < int(needed) < 50_000


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--model", "digit-vit"], "unknown model 'digit-vit': did you mean 'digits-vit'"),
        (["--methods", "tnt"], "unknown method 'tnt': did you mean 'tent'?"),
        (["--methods", ","], "--methods ',': names no method; write a,b"),
        (["--device", "xavier"], "unknown device 'xavier': did you mean 'xavier-nx'"),
        (["--device", "xavier-nx@9w"], "unknown power mode '9w' of device 'xavier-nx'"),
        (["--device", "host"], "--device host: its costs are measured where a run is"),
        (["--shape", "3,x"], "--shape '3,x': give whole numbers above 0, as 3,224,224"),
        (["--window", "0"], "--window 0: give seconds above 0, as 60"),
        (["--window", "inf"], "--window inf: give seconds above 0, as 60"),
        (["--plugin", "none.py"], "plugin none.py: no such file"),
        (
            ["--shape", "1,33", "--methods", "tent"],
            "model 'digits-vit' cannot be built for samples of shape 1,33: ValueError",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(given, said, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "fit", "--model", "digits-vit", *given])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"bench: {said}")
    assert captured.err.count("\n") == 1


def test_the_command_is_read_without_torch() -> None:
    code = "import bench.cli.fit, bench.estimate.fit, sys; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
