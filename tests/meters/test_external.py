"""An external meter's log: a window cut out by time, and logs that cannot be used."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.meters.base import MeterError
from bench.meters.external import ExternalMeter
from bench.meters.measurement import measure

HEADER = "time_s,voltage_v,power_w\n"


def lines(samples: Iterable[tuple[float, float]]) -> str:
    return "".join(f"{t!r},5.0,{w!r}\n" for t, w in samples)


def steps(first: float, last: float, every: float = 0.125) -> list[float]:
    return [first + i * every for i in range(int((last - first) / every) + 1)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "meter.csv"
    path.write_text(HEADER)
    return path


BEFORE = [998.0, 998.25, 998.375, 998.5]
"""Times of samples from before the meter is made: most of them an eighth of a second apart."""


@pytest.fixture
def meter(log: Path, clock: Any, lock: Any) -> Callable[..., ExternalMeter]:
    def make(before: Iterable[float] = BEFORE, watts: float = 5.0, **options: Any) -> ExternalMeter:
        append(log, lines((t, watts) for t in before))
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
    append(log, lines((t, 1 + 2 * (t - 999)) for t in steps(1000.125, 1004.0)))
    energy = external.end()
    assert energy.joules == pytest.approx(3.0 * (3.0 + 9.0) / 2)
    assert (energy.seconds, energy.samples) == (3.0, 25)
    assert energy.how == (f"external meter (what it feeds: {log}), trapezoidal rule over its log")


def test_samples_within_the_window_hold_to_its_ends(log: Path, clock: Any, meter: Any) -> None:
    external = meter()
    external.begin()
    clock.sleep(3.0)
    # at rest before and after; a line to those samples would take 0.5 J from the work
    append(log, lines((t, 8.0 if 1000 <= t <= 1003 else 3.0) for t in steps(998.9, 1003.4)))
    energy = external.end()
    assert energy.joules == pytest.approx(3.0 * 8.0)
    assert set(energy.watts) == {8.0}


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
            append(log, lines((t, 5.0) for t in steps(1001.125, 1002.5)))

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
        (1000.25, 1001.5, "covers 998.500 to 1001.500"),
        (999.0, 1001.75, "covers 998.500 to 1001.750"),
        (1.0, 0.0, "covers 998.500 to 998.500"),
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


@pytest.mark.parametrize(
    ("every_s", "minimum_s"), [(1.0, 9.0), (1.001, 9.1), (0.5, 4.5), (0.1, 1.0), (0.01, 1.0)]
)
def test_the_shortest_window_is_that_of_the_logs_rate(
    meter: Any, every_s: float, minimum_s: float
) -> None:
    before = [*steps(0.0, 5.0), *steps(900.0, 999.0, every_s)]  # it was faster once, and paused
    assert meter(before).minimum_s == minimum_s


def test_the_whole_protocol_with_a_logger_of_1_hz(log: Path, clock: Any, meter: Any) -> None:
    external = meter(steps(990.0, 1000.0, 1.0), watts=3.0)
    watts = 3.0

    def logger() -> None:
        append(log, lines([(clock(), watts)]))

    clock.ticker(logger, itertools.count(0.9, 1.0))

    def work() -> None:
        nonlocal watts
        watts = 8.0
        clock.sleep(0.25)

    def sleep(seconds: float) -> None:
        nonlocal watts
        watts = 3.0
        clock.sleep(seconds)

    found = measure(work, external, clock=clock, sleep=sleep)  # the default of 5 s gave 6 samples
    assert found.gross_j.mean == pytest.approx(8.0 * 0.25)
    assert found.above_idle_j.mean == pytest.approx(5.0 * 0.25)
    assert [r.work.seconds for r in found.repeats] == [9.0] * 5


def test_a_protocol_too_short_for_the_log_is_refused_before_the_work(meter: Any) -> None:
    external = meter(steps(990.0, 1000.0, 1.0))
    why = "minimum_s=5 is shorter than external meter can measure; use at least 9"
    with pytest.raises(BenchError, match=why):
        measure(lambda: pytest.fail("it ran"), external, minimum_s=5.0)


def test_a_log_too_short_to_tell_its_rate(meter: Any) -> None:
    with pytest.raises(MeterError, match="has 2 samples, too few to tell how often it is written"):
        meter([998.0, 999.0])


def test_a_log_that_is_too_slow(meter: Any) -> None:
    why = r"has a sample every 2 s, at most 1\.5 s are allowed; log faster"
    with pytest.raises(MeterError, match=why):
        meter(steps(980.0, 999.0, 2.0))
    assert meter([], gap_s=2.5).minimum_s == 18.0


def test_a_log_that_slows_down(log: Path, clock: Any, meter: Any) -> None:
    external = meter()
    external.begin()
    clock.sleep(4.0)
    append(log, lines((t, 5.0) for t in steps(999.5, 1005.0, every=1.0)))
    assert "has 4 samples for the window, at least 8 are needed" in refusal(external)


def test_a_log_in_milliwatts(log: Path, clock: Any, meter: Any) -> None:
    with pytest.raises(MeterError) as caught:
        meter(watts=5200.0)
    assert str(caught.value) == (
        f"external meter: {log}: power_w is 5200 W, above the ceiling of 1000 W; log watts, not "
        "milliwatts, or give a higher ceiling_w if it draws as much"
    )
    external = meter([], ceiling_w=6000.0)
    external.begin()
    clock.sleep(2.0)
    append(log, lines((t, 5200.0) for t in steps(999.0, 1003.0)))
    assert external.end().power_w == pytest.approx(5200.0)


@pytest.mark.parametrize(
    ("watts", "why"), [(0.0, "reads 0 W"), (-5.0, "-5 W"), (2e4, "power_w is 20000 W")]
)
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
    external = meter([])
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
