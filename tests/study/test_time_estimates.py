"""Reference times are scaled by a calibration that is kept for a day."""

from __future__ import annotations

import os
import time

from bench.study import time_estimates


def test_a_calibration_is_made_once_a_day_and_again_if_it_is_of_another_torch(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    made = iter([0.5, 0.25, 2.0, 3.0])
    monkeypatch.setattr(time_estimates, "calibrate", lambda: next(made))
    assert [time_estimates.calibrated() for _ in range(3)] == [0.5] * 3
    file = tmp_path / "cache" / "calibration.json"
    old = time.time() - time_estimates.KEPT_S - 1
    os.utime(file, (old, old))
    assert [time_estimates.calibrated() for _ in range(2)] == [0.25] * 2
    monkeypatch.setattr(time_estimates, "version", lambda _: "99.0")
    assert [time_estimates.calibrated() for _ in range(2)] == [2.0] * 2
    file.write_text("{}")
    assert time_estimates.calibrated() == 3.0


def test_times_are_scaled_by_it(tmp_path, monkeypatch):
    monkeypatch.setattr(time_estimates, "calibrated", lambda: 0.5)
    text = "machine: other\ncalibration_s: 0.25\nmethods: {tent: 3.0}\n"
    (tmp_path / "mine.times.yaml").write_text(text)
    assert time_estimates.scaled_times(tmp_path / "mine.yaml") == {"tent": 6.0}
    assert time_estimates.scaled_times(tmp_path / "none.yaml") == {}
