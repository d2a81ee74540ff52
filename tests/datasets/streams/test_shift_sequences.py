"""Domain shift in other orders: recurring, gradual, overlapping, of few classes, and not mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

from bench import BenchError, load
from bench.contracts.protocol import protocol_config
from bench.contracts.stream import Domain
from bench.datasets.streams._arrivals import Dirichlet, Markov, dirichlet_order, markov_states
from bench.run.arrivals import arrivals
from bench.run.validity import build_stream

SMALL = {"data": {"name": "digits", "size": 16}}
PROTOCOL = protocol_config({"name": "online", "batch_size": 10})


def stream(seed: int = 0, **settings: Any) -> Any:
    stream_class = load("stream", "domain-shift")
    return stream_class(stream_class.Config(**{**SMALL, **settings}), seed)


def test_domains_that_recur_have_the_same_samples_under_another_name() -> None:
    made = stream(corruptions=["blur-1", "noise-1"], repeat=2)
    assert made.domain_names() == ["blur-1", "noise-1", "blur-1@2", "noise-1@2"]
    first, again = made.domain("noise-1"), made.domain("noise-1@2")
    assert again.name == "noise-1@2"
    assert torch.equal(first.adaptation.x, again.adaptation.x)
    assert torch.equal(first.test.x, again.test.x)


def test_gradual_change_rises_and_falls_by_kind() -> None:
    made = stream(corruptions=["blur", "noise-2"], change="gradual")
    assert made.domain_names() == ["blur-1", "blur-2", "blur-1@2", "noise-2"]


def test_severity_rises_within_a_domain_as_samples_arrive() -> None:
    made = stream(corruptions=["contrast"], change="within")
    assert made.domain_names() == ["contrast"]
    domain = made.domain("contrast")
    assert domain.ordered
    assert build_stream(made).on(torch.device("cpu")).domains[0].ordered
    half = len(domain.adaptation) // 2
    early, late = domain.adaptation.x[:half], domain.adaptation.x[-half:]
    assert late.std() < 0.8 * early.std()  # severity 1 leaves 0.6 of the contrast, 2 leaves 0.4
    classes = domain.adaptation.y[:half].unique()
    assert len(classes) == 10  # the order of classes does not change with the severity
    build_stream(made)


def test_a_severity_within_a_domain_is_tested_on_all_classes(image_folder: Path) -> None:
    data = {"name": "image-folder", "root": str(image_folder), "size": 16}
    settings = {"data": data, "source": "near", "change": "within"}
    made = stream(corruptions=["contrast", "noise-2"], source_share=0.2, test=0.5, **settings)
    test = made.domain("contrast").test  # as files lie, cats come first
    assert sorted(test.y.tolist()) == [0] * 4 + [1] * 4
    assert [sorted(set(half.tolist())) for half in test.y.split(4)] == [[0, 1], [0, 1]]
    assert torch.equal(test.y, made.domain("contrast").test.y)


def test_overlapping_corruptions_are_given_together() -> None:
    made = stream(corruptions=["inversion-1+contrast-2"])
    (name,) = made.domain_names()
    both = made.domain(name).test.x
    alone = stream(corruptions=["inversion-1"]).domain("inversion-1").test.x
    assert both.shape == alone.shape
    assert both.std() == pytest.approx(0.4 * float(alone.std()), rel=0.1)


def test_few_classes_are_adapted_on_and_all_are_tested() -> None:
    built = build_stream(stream(corruptions=["blur-1"], classes=[3, 5]))
    (domain,) = built.domains
    assert domain.adaptation.y.unique().tolist() == [3, 5]
    assert len(domain.test.y.unique()) == len(built.source.adaptation.y.unique()) == 10


# --- samples in an order --------------------------------------------------------------------------


def changes(y: Any) -> int:
    """How often the class changes from a sample to the next."""
    return int((np.diff(np.asarray(y)) != 0).sum())


def test_a_dirichlet_order_is_a_permutation_that_keeps_classes_together() -> None:
    y = np.arange(400) % 10
    rng = np.random.default_rng(0)
    order = dirichlet_order(y, Dirichlet(name="dirichlet", concentration=0.1), rng)
    assert sorted(order.tolist()) == list(range(400))
    assert changes(y[order]) < 100  # of 399
    slots = Dirichlet(name="dirichlet", concentration=1000.0, slots=40)
    mixed = dirichlet_order(y, slots, np.random.default_rng(0))
    assert changes(y[mixed]) > 300


def test_samples_arrive_in_the_order_of_the_stream_and_no_other() -> None:
    domain = stream(corruptions=["blur-1"], arrival="dirichlet").domain("blur-1")
    arrived, _ = arrivals(domain, PROTOCOL, 3)
    assert torch.equal(arrived.y, domain.adaptation.y)
    assert changes(arrived.y) < len(arrived) // 3
    plain = Domain(domain.name, domain.adaptation, domain.test)
    assert changes(arrivals(plain, PROTOCOL, 3)[0].y) > len(arrived) // 2


def test_a_markov_chain_stays_and_is_imbalanced_as_it_says() -> None:
    arrival = Markov(name="markov", domain_stay=0.9, class_stay=0.5, class_imbalance=4.0)
    domains, classes = markov_states(2, 3, arrival, 20_000, np.random.default_rng(0))
    # It changes with probability (1 - stay) x (1 - the chance of drawing the same again).
    assert changes(domains) / 20_000 == pytest.approx(0.1 * 0.5, abs=0.006)
    shares = np.bincount(classes) / 20_000
    assert shares == pytest.approx(np.array([4, 2, 1]) / 7, abs=0.03)
    assert changes(classes) / 20_000 == pytest.approx(0.5 * (1 - (16 + 4 + 1) / 49), abs=0.02)


def test_a_matrix_says_what_follows_what() -> None:
    cycle = ((0.0, 1.0), (1.0, 0.0))
    arrival = Markov(name="markov", domain_matrix=cycle)
    domains, _ = markov_states(2, 1, arrival, 10, np.random.default_rng(0))
    assert changes(domains) == 9


def test_windows_are_of_one_sequence_over_domains_and_classes() -> None:
    arrival = {"name": "markov", "windows": 3, "domain_stay": 0.98, "class_stay": 0.9}
    made = stream(corruptions=["inversion-2", "contrast-2"], arrival=arrival, samples=60)
    built = build_stream(made)
    assert [d.name for d in built.domains] == ["window-1", "window-2", "window-3"]
    assert [len(d.adaptation) for d in built.domains] == [60, 60, 60]
    assert all(d.ordered for d in built.domains)
    assert changes(torch.cat([d.adaptation.y for d in built.domains])) < 40
    assert all(len(d.test.y.unique()) == 10 for d in built.domains)
    again = stream(corruptions=["inversion-2", "contrast-2"], arrival=arrival, samples=60)
    assert torch.equal(again.domain("window-2").adaptation.x, built.domains[1].adaptation.x)


def test_a_stream_with_transitions_of_its_domains_can_be_tuned() -> None:
    cycle = [[0.0, 1.0], [1.0, 0.0]]
    classes = [[0.1] * 10] * 10
    arrival = {"name": "markov", "windows": 2, "domain_matrix": cycle, "class_matrix": classes}
    reported = stream(corruptions=["inversion-2", "contrast-2"], arrival=arrival, samples=20)
    config = type(reported).validation(reported.config)
    assert config.arrival.class_matrix == reported.config.arrival.class_matrix
    built = build_stream(type(reported)(config, 0))
    assert [len(d.adaptation) for d in built.domains] == [20, 20]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": ["a"], "change": "gradual"}, "change: gradual is of corruptions"),
        ({"arrival": "markov", "repeat": 2}, "orders the domains itself"),
        ({"arrival": {"name": "markov", "class_matrix": [[0.5, 0.4], [0, 1]]}}, "row 1 has 2"),
        ({"arrival": "markow"}, "arrival"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        load("stream", "domain-shift").Config(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": ["ten"]}, "classes: digits has no class 'ten'; known: 0, 1"),
        ({"corruptions": ["blur+noise-1"]}, "give 'blur' a severity, as blur-1"),
        ({"corruptions": ["blur-1+noise-1"], "change": "within"}, "give corruptions one by one"),
        ({"family": "imagenet-d"}, "family: 'imagenet-d' is unknown"),
        (
            {"arrival": {"name": "markov", "class_matrix": [[0, 1], [1, 0]]}},
            "class_matrix has 2 rows, and the stream 10 class states",
        ),
    ],
)
def test_what_the_data_do_not_have_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        stream(**settings)
