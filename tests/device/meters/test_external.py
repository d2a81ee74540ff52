"""An external meter's log: a window cut out by time, and logs that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from bench.device.meters.errors import MeterError
from bench.device.meters.external import ExternalMeter

HEADER = "time_s,voltage_v,power_w\n"


def lines(samples: Iterable[tuple[float, float]]) -> str:
    return "".join(f"{t!r},5.0,{w!r}\n" for t, w in samples)


def steps(first: float, last: float, every: float = 0.25) -> list[float]:
    return [first + i * every for i in range(int((last - first) / every) + 1)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "meter.csv"
    path.write_text(HEADER)
    return path


@pytest.fixture
def meter(log: Path, clock: Any, lock: Any) -> Callable[..., ExternalMeter]:
    def make(**options: Any) -> ExternalMeter:
        return ExternalMeter(log, clock=clock, sleep=clock.sleep, lock=lock, **options)

    return make


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def refusal(external: ExternalMeter) -> str:
    with pytest.raises(MeterError) as caught:
        external.end()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_window_is_cut_out_by_time(log: Path, clock: Any, meter: Any) -> None:
    # the clock begins at 1000; power is 2 W per second since then, plus 1
    external = meter()
    append(log, lines((t, 1 + 2 * (t - 999)) for t in steps(999.0, 1000.0)))
    external.begin()
    clock.sleep(3.0)
    append(log, lines((t, 1 + 2 * (t - 999)) for t in steps(1000.25, 1004.0)))
    energy = external.end()
    assert energy.joules == pytest.approx(3.0 * (3.0 + 9.0) / 2)
    assert (energy.seconds, energy.samples) == (3.0, 13)
    assert energy.how == (f"external meter (what it feeds: {log}), trapezoidal rule over its log")


def test_ends_between_two_samples_are_interpolated(log: Path, clock: Any, meter: Any) -> None:
    external = meter()
    external.begin()
    clock.sleep(3.0)
    # a slope of 4 W/s through 10 W at the beginning of the window, sampled beside its ends
    append(log, lines((t, 10 + 4 * (t - 1000)) for t in steps(998.9, 1003.4)))
    assert external.end().joules == pytest.approx(3.0 * (10.0 + 22.0) / 2)


def test_the_end_waits_for_the_log(
    log: Path, clock: Any, meter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    external = meter()
    append(log, lines((t, 5.0) for t in steps(999.0, 1001.0)))
    external.begin()
    clock.sleep(2.0)
    slept = clock.sleep

    def sleep(seconds: float) -> None:  # the logger writes while the meter waits
        slept(seconds)
        if 1002.5 < clock() < 1002.7:
            append(log, lines((t, 5.0) for t in steps(1001.25, 1002.5)))

    monkeypatch.setattr(external, "_sleep", sleep)
    assert external.end().joules == pytest.approx(10.0)
    assert clock() == pytest.approx(1002.6)


def test_a_line_in_the_writing_is_read_when_it_is_whole(log: Path, clock: Any, meter: Any) -> None:
    external = meter()
    whole = lines((t, 5.0) for t in steps(999.0, 1003.0))
    append(log, whole[:-4])
    external.begin()
    clock.sleep(2.0)
    append(log, whole[-4:])
    assert external.end().joules == pytest.approx(10.0)


def test_windows_follow_each_other(log: Path, clock: Any, meter: Any) -> None:
    external = meter()
    append(log, lines((t, t - 990) for t in steps(999.0, 1010.0)))
    joules = []
    for _ in range(3):
        external.begin()
        clock.sleep(2.0)
        joules.append(external.end().joules)
    assert joules == pytest.approx([2 * 11, 2 * 13, 2 * 15])


@pytest.mark.parametrize(
    ("first", "last", "span"),
    [
        (1000.25, 1004.0, "covers 1000.250 to 1004.000"),
        (999.0, 1001.75, "covers 999.000 to 1001.750"),
        (900.0, 950.0, "covers 900.000 to 950.000"),
        (1.0, 0.0, "covers nothing"),
    ],
)
def test_a_log_that_does_not_cover_the_window(
    log: Path, clock: Any, meter: Any, first: float, last: float, span: str
) -> None:
    external = meter()
    external.begin()
    clock.sleep(2.0)
    append(log, lines((t, 5.0) for t in steps(first, last)))
    text = refusal(external)
    assert span in text
    assert "not the window from 1000.000 to 1002.000 (Unix seconds)" in text
    assert clock() <= 1002.0 + 5.0 + 0.3  # patience


def test_a_log_with_a_pause(log: Path, clock: Any, meter: Any) -> None:
    external = meter()
    external.begin()
    clock.sleep(6.0)
    times = [*steps(999.0, 1002.0), *steps(1004.0, 1007.0)]
    append(log, lines((t, 5.0) for t in times))
    assert "has no sample for 2 s within the window" in refusal(external)


def test_a_slow_log(log: Path, clock: Any, meter: Any) -> None:
    external = meter()
    external.begin()
    clock.sleep(4.0)
    append(log, lines((t, 5.0) for t in steps(999.5, 1005.0, every=1.0)))
    assert "has 6 samples for the window, at least 8 are needed" in refusal(external)


@pytest.mark.parametrize(("watts", "why"), [(0.0, "reads 0 W"), (-5.0, "-5 W"), (2e4, "20000 W")])
def test_a_power_that_makes_no_sense(
    log: Path, clock: Any, meter: Any, watts: float, why: str
) -> None:
    external = meter()
    external.begin()
    clock.sleep(3.0)
    append(log, lines((t, watts if t == 1001.5 else 5.0) for t in steps(999.0, 1004.0)))
    assert why in refusal(external)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1001.0,5.0,many\n", "line 2: power_w is 'many', not a number"),
        ("1001.0,5.0,nan\n", "line 2: power_w is 'nan', not a number"),
        ("1001.0\n", "line 2: power_w is '', not a number"),
        ("noon,5.0,5.0\n", "line 2: time_s is 'noon', not a number"),
        ("1001.0,5.0,5.0\n1001.0,5.0,5.0\n", "line 3: time 1001.0 is not after 1001.0"),
    ],
)
def test_a_line_that_makes_no_sense(log: Path, meter: Any, line: str, why: str) -> None:
    append(log, line)
    with pytest.raises(MeterError, match="external meter") as caught:
        meter()
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("header", "column"),
    [("", "time_s"), ("time,power_w\n", "time_s"), ("time_s,watts\n", "power_w")],
)
def test_a_log_without_its_columns(log: Path, meter: Any, header: str, column: str) -> None:
    log.write_text(header)
    with pytest.raises(MeterError, match=f"lacks the column {column} in its first line"):
        meter()


def test_a_header_may_be_marked_and_spaced(log: Path, clock: Any, meter: Any) -> None:
    log.write_text("\ufeffpower_w, time_s\n" + "".join(f"5.0,{t}\n" for t in steps(999, 1003)))
    external = meter()
    external.begin()
    clock.sleep(2.0)
    assert external.end().joules == pytest.approx(10.0)


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match=r"no\.csv: No such file or directory; start its logger"):
        ExternalMeter(tmp_path / "no.csv")


def test_a_short_window_is_refused_for_being_short(log: Path, clock: Any, meter: Any) -> None:
    external = meter()
    append(log, lines((t, 5.0) for t in steps(999.0, 1004.0)))
    external.begin()
    clock.sleep(0.1)
    assert "a window of 0.1 s is too short" in refusal(external)
