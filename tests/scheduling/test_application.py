"""What is known of an application: its accuracy model, its probe and its file."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import BenchError
from bench.scheduling.application import load_applications

GOOD = """
min_iterations: 5
applications:
  - name: detect
    sparsities: [0.0, 0.5]
    seconds_per_iteration: [0.2, 0.1]
    memory_bytes: [2.0e9, 1.0e9]
    accuracy: [0.9, 0.8]
    start: [0.5, 0.4]
    half_iterations: 100
    probe: {sparsity: 0.5, accuracy: 0.3}
"""


def test_accuracy_closes_half_of_the_gap_at_half_iterations(make_application):
    a = make_application()
    assert a.accuracy_after(0, [0, 100, 300]) == pytest.approx([0.5, 0.7, 0.8], abs=1e-12)
    column = a.accuracy_after(1, np.array([[100], [0]]))
    assert column.shape == (2, 1)
    assert column[:, 0] == pytest.approx([0.6, 0.4], abs=1e-12)


def test_retraining_below_the_start_brings_and_costs_nothing(make_application):
    a = make_application(accuracy=(0.3, 0.8))
    assert a.accuracy_after(0, [0, 1000]) == pytest.approx([0.5, 0.5])


def test_a_probe_shifts_every_level_and_stays_in_bounds(make_application):
    a = make_application()
    assert a.corrected(0.6, 0.5).start == pytest.approx((0.7, 0.6))
    assert a.corrected(1.0, 0.5).start == (1.0, 1.0)
    assert a.corrected(0.0, 0.0).start == (0.0, 0.0)
    with pytest.raises(BenchError, match=r"probed at sparsity 0\.3.*probe one of 0\.0, 0\.5"):
        a.corrected(0.6, 0.3)
    with pytest.raises(BenchError, match="probed accuracy 60"):
        a.corrected(60, 0.5)


def test_a_file_is_read_and_its_probe_applied(tmp_path):
    path = tmp_path / "apps.yaml"
    path.write_text(GOOD)
    file = load_applications(path)
    assert (file.min_iterations, file.min_share) == (5, 0.05)
    (a,) = file.applications
    assert a.start == pytest.approx((0.4, 0.3))
    assert a.probe is None


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("min_iterations:", "min_iteration:", ["'min_iteration'", "did you mean 'min_iterations'"]),
        ("half_iterations: 100", "half_iterations: 0", ["half_iterations", "0", "greater than 0"]),
        ("half_iterations: 100", "half_iterations: .inf", ["half_iterations", "finite"]),
        ("    accuracy: [0.9, 0.8]", "    accuracy: [0.9]", ["accuracy", "the 2 sparsities"]),
        ("sparsities: [0.0, 0.5]", "sparsities: [0.5, 0.0]", ["sparsities", "must rise"]),
        ("sparsities: [0.0, 0.5]", "sparsities: [0.5, 1.0]", ["sparsities", "less than 1"]),
        ("start: [0.5, 0.4]", "start: [50, 40]", ["start", "50"]),
        ("{sparsity: 0.5,", "{sparsity: 0.7,", ["probe", "must be one of [0.0, 0.5]"]),
        ("    half_iterations: 100\n", "", ["applications.0.half_iterations", "missing"]),
        ("[0.2, 0.1]", "[0.2, 0]", ["seconds_per_iteration.1", "0"]),
        ("detect", '"two\\nlines"', ["name", "one line"]),
        (GOOD, "[]", ["mapping with keys applications"]),
        (GOOD, "applications: []", ["applications", "at least 1"]),
    ],
)
def test_a_bad_file_is_named_with_key_and_cure_in_one_line(tmp_path, old, new, parts):
    path = tmp_path / "apps.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(BenchError) as error:
        load_applications(path)
    for part in [str(path), *parts]:
        assert part in str(error.value)
    assert len(str(error.value)) < 300


def test_a_name_given_twice_is_refused(tmp_path):
    path = tmp_path / "apps.yaml"
    path.write_text(GOOD + GOOD[GOOD.index("  - name") :])
    with pytest.raises(BenchError, match="two applications are called 'detect'"):
        load_applications(path)
