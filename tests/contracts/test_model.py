"""What a model says where its author guessed, and what it offers for the first guess."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.testing import TinyModel


def model(head: object = "head") -> TinyModel:
    made = TinyModel.build(None, (4,), 3)
    made.head_name = head  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(("head", "cure"), [("haed", "did you mean 'head'"), (None, "known: ")])
def test_a_wrong_name_of_the_head_is_told_with_the_names_there_are(head: object, cure: str) -> None:
    wrong = model(head)
    for ask in (lambda: wrong.head, wrong.head_parameters, wrong.body_parameters):
        with pytest.raises(BenchError) as caught:
            ask()
        text = str(caught.value)
        assert text.startswith(f"TinyModel: head_name {head!r} is no module of its network")
        assert cure in text


def test_eval_is_evaluation_mode() -> None:
    made = model()
    made.train()
    assert made.module.training
    made.eval()
    assert not made.module.training
