"""Questions with answers to be generated: what is predicted of what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import BenchError, DataSet, load, take
from bench.run.validity import build_stream

Build = Callable[..., DataSet]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    root = tmp_path / "answers"
    root.mkdir()
    for domain in ("health", "sums"):
        rows = [{"question": f"What is {i} ?", "answer": f"{i} is {domain}."} for i in range(8)]
        (root / f"{domain}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def named(data: DataSet, numbers: torch.Tensor) -> list[str]:
    return [data.class_names[i] if i >= 0 else "" for i in numbers.tolist()]


def test_the_label_of_a_token_is_the_next_of_the_answer(answers: Path, data_set: Build) -> None:
    data = data_set("question-answer", answers, tokens=12)
    assert (data.task, list(data.domains())) == ("generation", ["health", "sums"])
    split = data.split("sums", "all")
    x = take(split.x, torch.tensor([3]))
    words = ["[question]", "what", "is", "3", "?", "[answer]", "3", "is", "sums", ".", "[end]"]
    assert named(data, x["input_ids"][0]) == [*words, "[padding]"]
    assert x["attention_mask"][0].tolist() == [1] * 11 + [0]
    assert x["prompt_mask"][0].tolist() == [1] * 6 + [0] * 6
    assert named(data, split.y[3]) == [*[""] * 5, "3", "is", "sums", ".", "[end]", "", ""]
    assert split.y.dtype == torch.int64


def test_frequent_words_have_numbers_and_others_are_unknown(answers: Path, data_set: Build) -> None:
    data = data_set("question-answer", answers, words=16)
    assert len(data.class_names) == 5 + 14  # is ? what health sums . 0 to 7 and nothing else
    assert data.class_names[5] == "is"
    (answers / "more.jsonl").write_text('{"question": "rare words", "answer": "rarer ones"}')
    data = data_set("question-answer", answers, words=16)
    assert len(data.class_names) == 5 + 16
    assert "[unknown]" in named(data, data.split("more", "all").y[0])


def test_long_questions_leave_room_for_the_answer(answers: Path, data_set: Build) -> None:
    (answers / "sums.jsonl").write_text(
        json.dumps({"question": "a " * 50 + "?", "answer": "b " * 50})
    )
    data = data_set("question-answer", answers, tokens=10)
    split = data.split("sums", "all")
    ids = named(data, take(split.x, torch.tensor([0]))["input_ids"][0])
    assert ids == ["a", "a", "a", "?", "[answer]", *"bbbbb"]
    assert named(data, split.y[0]) == [*[""] * 4, *"bbbbb", ""]


def test_corruptions_change_the_question_alone(answers: Path, data_set: Build) -> None:
    data = data_set("question-answer", answers, tokens=16)
    clean = data.split("sums", "all")
    changed = data.corrupted(clean, "word-drops-2", "0")
    for split in (clean, changed):
        told = [[w for w in named(data, y) if w] for y in split.y]
        assert told == [[str(i), "is", "sums", ".", "[end]"] for i in range(8)]
    before, after = (take(s.x, torch.arange(8))["input_ids"] for s in (clean, changed))
    assert not torch.equal(before, after)


def test_a_tokenizer_gives_its_numbers(answers: Path, data_set: Build, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[UNK]": 0, "What": 1, "is": 2, "3": 3, "?": 4, "sums": 5, ".": 6, "</s>": 7}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    given = str(tmp_path / "tokenizer.json")
    data = data_set("question-answer", answers, tokens=12, vocabulary=given)
    split = data.split("sums", "all")
    assert take(split.x, torch.tensor([3]))["input_ids"][0, :9].tolist() == [
        1, 2, 3, 4, 3, 2, 5, 6, 7
    ]  # fmt: skip
    assert split.y[3].tolist() == [-100] * 3 + [3, 2, 5, 6, 7] + [-100] * 4
    assert len(data.class_names) == 8


def test_domains_are_a_stream(answers: Path) -> None:
    stream_class = load("stream", "domain-shift")
    chosen = {"name": "question-answer", "root": str(answers)}
    stream = stream_class(stream_class.Config(data=chosen, source="health"), 0)
    built = build_stream(stream)
    assert [d.name for d in built.domains] == ["sums"]
    assert built.domains[0].test.y.shape == (2, 64)


def test_a_row_without_an_answer_is_named(answers: Path, data_set: Build) -> None:
    file = answers / "sums.jsonl"
    file.write_text(file.read_text() + '\n{"question": "why?", "answer": ""}')
    with pytest.raises(BenchError, match=r"sums\.jsonl:9: column 'answer' is '': give a text"):
        data_set("question-answer", answers).split("sums", "all")


def test_medquad_and_gsm8k_are_read(real_data: Callable[[str], Path], data_set: Build) -> None:
    data = data_set("question-answer", real_data("generation_qa.zip"))
    assert len(list(data.domains())) == 5
    assert len(data.split("gsm8k_train_1000", "all")) == 1000
    assert list(data.check()) == []
