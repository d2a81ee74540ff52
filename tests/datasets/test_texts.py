"""Texts as numbers of tokens, where they come from, and what corruptions do to them."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import BenchError, DataSet, load, take
from bench.contracts.stream import Split
from bench.datasets.text_corruptions import CORRUPTIONS, KEEP_WORDS, change_words
from bench.run.validity import build_stream

Build = Callable[..., DataSet]
WORDS = ("the", "quick", "brown", "foxes", "jumped", "over", "some", "lazy", "dogs", "again")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """ROOT/books.csv and ROOT/films.csv with ``text`` and ``label``."""
    for domain in ("books", "films"):
        rows = [f'"a {domain} text, number {i}",{("bad", "good")[i % 2]}' for i in range(8)]
        (tmp_path / f"{domain}.csv").write_text("\n".join(["text,label", *rows]))
    return tmp_path


def ids(split: Split, row: int = 0) -> list[int]:
    found: list[int] = take(split.x, torch.tensor([row]))["input_ids"][0].tolist()
    return found


# --- tables ---------------------------------------------------------------------------------


def test_each_file_is_a_domain_and_labels_are_sorted(reviews: Path, data_set: Build) -> None:
    data = data_set("text-table", reviews, tokens=12)
    assert (list(data.domains()), data.class_names) == (["books", "films"], ("bad", "good"))
    assert data.input_shape == (12,)
    split = data.split("books", "all")
    assert split.y.tolist() == [0, 1] * 4
    x = take(split.x, torch.arange(8))
    assert (x["input_ids"].shape, x["input_ids"].dtype) == ((8, 12), torch.int64)
    # the first of a text, then: a books text , number 0
    assert x["attention_mask"][0].tolist() == [1] * 7 + [0] * 5
    assert x["input_ids"][0, 7:].tolist() == [0] * 5
    assert x["input_ids"][:, :6].unique(dim=0).shape[0] == 1
    assert x["input_ids"][:, 6].unique().numel() == 8


def test_hashes_are_of_words_and_the_same_everywhere(reviews: Path, data_set: Build) -> None:
    data = data_set("text-table", reviews, hashes=64)
    books, films = ids(data.split("books", "all")), ids(data.split("films", "all"))
    assert [a == b for a, b in zip(books, films, strict=True)].count(False) == 1
    assert max(books) < 64


def test_long_texts_are_cut(reviews: Path, data_set: Build) -> None:
    x = take(data_set("text-table", reviews, tokens=4).split("books", "all").x, torch.arange(2))
    assert x["attention_mask"].tolist() == [[1] * 4] * 2


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".json"])
def test_other_tables_give_the_same(
    suffix: str, reviews: Path, data_set: Build, tmp_path: Path
) -> None:
    rows = [
        {"text": f"a books text, number {i}", "label": ("bad", "good")[i % 2]} for i in range(8)
    ]
    text = {
        ".tsv": "text\tlabel\n" + "\n".join(f"{r['text']}\t{r['label']}" for r in rows),
        ".jsonl": "\n".join(map(json.dumps, rows)),
        ".json": json.dumps({str(i): row for i, row in enumerate(rows)}),
    }[suffix]
    other = tmp_path / "other" / f"books{suffix}"
    other.parent.mkdir()
    other.write_text(text)
    first = data_set("text-table", reviews).split("books", "all")
    second = data_set("text-table", other.parent).split("books", "all")
    assert first.x.digest() == second.x.digest()
    assert torch.equal(first.y, second.y)


def test_folders_are_domains_and_their_files_splits(tmp_path: Path, data_set: Build) -> None:
    for domain in ("a", "b"):
        for split in ("train", "dev", "test"):
            file = tmp_path / domain / f"{split}.csv"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"text,label\n{domain} {split} x,0\n{domain} {split} y,1\n")
    data = data_set("text-table", tmp_path)
    assert list(data.domains()) == ["a", "b"]
    assert list(data.splits("a")) == ["dev", "test", "train"]
    stream_class = load("stream", "domain-shift")
    chosen = {"name": "text-table", "root": str(tmp_path)}
    built = build_stream(stream_class(stream_class.Config(data=chosen), 0))
    assert built.source.test.x.sample_names() == data.split("a", "test").x.sample_names()
    assert built.domains[0].adaptation.x.sample_names() == data.split("b", "train").x.sample_names()


def test_a_column_may_name_the_domain_and_texts_be_of_several(
    tmp_path: Path, data_set: Build
) -> None:
    (tmp_path / "all.csv").write_text("q,a,label,where\nx,y,0,home\nx z,y,1,home\nx,y,0,work\n")
    data = data_set("text-table", tmp_path, text=["q", "a"], domain="where", hashes=64)
    assert list(data.domains()) == ["home", "work"]
    assert ids(data.split("home", "all"))[:3] == ids(data.split("work", "all"))[:3]
    assert sum(i > 0 for i in ids(data.split("home", "all"), 1)) == 4


def test_a_vocabulary_in_a_file_gives_its_numbers(
    reviews: Path, data_set: Build, tmp_path: Path
) -> None:
    vocabulary = tmp_path / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "book", "##s", "text", ",", "0"]
    vocabulary.write_text("\n".join(tokens))
    data = data_set("text-table", reviews, vocabulary=str(vocabulary), tokens=16)
    # [CLS] a book ##s text , number=[UNK] 0 [SEP]
    assert ids(data.split("books", "all"))[:9] == [2, 5, 6, 7, 8, 9, 1, 10, 3]

    from tokenizers import BertWordPieceTokenizer

    BertWordPieceTokenizer(str(vocabulary)).save(str(tmp_path / "tokenizer.json"))
    same = data_set("text-table", reviews, vocabulary=str(tmp_path / "tokenizer.json"), tokens=16)
    assert ids(same.split("books", "all")) == ids(data.split("books", "all"))


# --- words with tags ------------------------------------------------------------------------


def sentence(sent_id: str, words: str, tags: str) -> str:
    rows = [
        "\t".join([str(i), word, word, tag, *"______"])
        for i, (word, tag) in enumerate(zip(words.split(), tags.split(), strict=True), start=1)
    ]
    return "\n".join([f"# sent_id = {sent_id}", "# text = not read", *rows, "", ""])


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    """Two genres, one of them in a packed file."""
    text = "".join(
        sentence(f"blog-{i}", f"Dogs number {i} bark", "NOUN NOUN NUM VERB") for i in range(4)
    )
    (tmp_path / "a.conllu").write_text(text)
    packed = sentence("mail-x-1", "We saw 3 dogs", "PRON VERB NUM NOUN").replace(
        "3\t3", "2-3\tsaw3\t_\t_\t_\t_\t_\t_\t_\t_\n3\t3"
    )
    (tmp_path / "b.conllu.gz").write_bytes(gzip.compress(packed.encode()))
    return tmp_path


def test_a_tag_stands_at_its_word_and_nothing_elsewhere(treebank: Path, data_set: Build) -> None:
    data = data_set("conllu", treebank, tokens=6)
    assert (data.task, list(data.domains())) == ("token-classification", ["blog", "mail"])
    tags = list(data.class_names)
    split = data.split("mail", "all")
    assert split.y.tolist() == [
        [-100, *map(tags.index, ("PRON", "VERB", "NUM", "NOUN")), -100]
    ]  # fmt: skip
    assert take(split.x, torch.tensor([0]))["attention_mask"].tolist() == [[1] * 5 + [0]]
    assert list(data_set("conllu", treebank, domain="file").domains()) == ["a", "b"]


def test_only_the_first_piece_of_a_word_has_its_tag(
    treebank: Path, data_set: Build, tmp_path: Path
) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nwe\nsaw\n3\ndog\n##s")
    data = data_set("conllu", treebank, tokens=8, vocabulary=str(tmp_path / "vocab.txt"))
    split = data.split("mail", "all")
    assert ids(split) == [2, 4, 5, 6, 7, 8, 3, 0]
    tags = list(data.class_names)
    kept = list(map(tags.index, ("PRON", "VERB", "NUM", "NOUN")))
    assert split.y.tolist() == [[-100, *kept, -100, -100, -100]]


def test_corrupted_words_keep_their_tags(treebank: Path, data_set: Build) -> None:
    data = data_set("conllu", treebank)
    assert not {n.rpartition("-")[0] for n in data.corruptions("test")} - KEEP_WORDS
    clean = data.split("blog", "all")
    changed = data.corrupted(clean, "typos-2", "0/x")
    assert torch.equal(changed.y, clean.y)
    assert changed.x.sample_names() == clean.x.sample_names()
    assert changed.x.digest() != clean.x.digest()


# --- corruptions ----------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_corruption_changes_its_share_of_words(part: str) -> None:
    for name in CORRUPTIONS[part]:
        changed = []
        for severity in (1, 2):
            pairs = []
            for i in range(200):
                after = change_words(name, severity, WORDS, random.Random(i))
                if name in KEEP_WORDS:
                    assert len(after) == len(WORDS)
                pairs.append(sum(a not in WORDS for a in after) + len(WORDS) - len(after))
            changed.append(sum(pairs) / 200)
        if name != "word-swaps":
            assert 1.0 < changed[0] < 1.8, name
            assert 2.4 < changed[1] < 3.3, name
        else:
            assert changed == [0, 0]


def test_what_corruptions_do_to_a_word() -> None:
    def all_of(name: str) -> set[str]:
        found = {change_words(name, 2, ("house",), random.Random(i))[0] for i in range(300)}
        return found - {"house"}

    assert all_of("capitals") == {"HOUSE"}
    assert all_of("clipping") == {"hs"}
    assert all_of("stretching") == {
        "hhhouse",
        "hooouse",
        "houuuse",
        "houssse",
        "houseee",
    }
    assert {"ohuse", "huse", "hhouse"} <= all_of("typos")
    assert all(4 <= len(word) <= 6 for word in all_of("typos"))
    swapped = change_words("word-swaps", 2, WORDS, random.Random(1))
    assert sorted(swapped) == sorted(WORDS)
    assert swapped != WORDS


def test_a_stream_of_one_domain_of_texts_has_corruptions(reviews: Path) -> None:
    (reviews / "films.csv").unlink()
    stream_class = load("stream", "domain-shift")
    chosen = {"name": "text-table", "root": str(reviews)}
    stream = stream_class(stream_class.Config(data=chosen, source_share=0.4, test=0.5), 0)
    assert list(stream.domain_names()) == ["typos-1", "word-drops-1", "typos-2", "word-drops-2"]
    build_stream(stream)


def test_joined_texts_are_corrupted_as_those_of_one_set(reviews: Path, data_set: Build) -> None:
    sets = {}
    for name in ("books", "films"):
        (reviews / name).mkdir()
        (reviews / f"{name}.csv").rename(reviews / name / f"{name}.csv")
        sets[name] = {"name": "text-table", "root": name}
    joined = {"name": "several", "root": str(reviews), "sets": sets}
    stream_class = load("stream", "domain-shift")
    chosen = {"source": ["books", "films"], "corruptions": ["typos-2"], "source_share": 0.4}
    stream = stream_class(stream_class.Config(data=joined, test=0.5, **chosen), 0)
    built = build_stream(stream)
    test = built.domains[0].test.x
    words = [test.texts[i].words for i in test.positions.tolist()]
    # Of both sets: a misspelt word has lost one letter at most.
    assert {"films" if {"l", "m"} & set(each[1]) else "books" for each in words} == set(sets)
    assert any("text" not in each for each in words)
    tuned = stream_class(stream_class.Config(data=joined, part="validation", **chosen), 0)
    assert {n.rpartition("-")[0] for n in tuned.domain_names()} == set(CORRUPTIONS["validation"])


def test_joined_texts_are_numbered_in_one_way(reviews: Path, data_set: Build) -> None:
    sets = {
        "a": {"name": "text-table", "root": "."},
        "b": {"name": "text-table", "root": ".", "hashes": 64},
    }
    with pytest.raises(BenchError, match="a and b number words in different ways: give each"):
        data_set("several", reviews, sets=sets)


# --- bad input ------------------------------------------------------------------------------


def complaint(data_set: Build, name: str, root: Path, **settings: Any) -> str:
    try:
        (line,) = list(data_set(name, root, **settings).check())
    except BenchError as error:
        return str(error)
    return str(line)


@pytest.mark.parametrize(
    ("table", "settings", "said"),
    [
        ("text,label\na,0\nb", {}, "books.csv:3: has fewer fields than the 2 titles"),
        ("text,label\na,0\nb,c,d", {}, "books.csv:3: has more fields than the 2 titles"),
        ("text,label\na,0\n ,1", {}, "books.csv:3: column 'text' is ' ': give a text"),
        ("texts,label\na,0\nb,1", {}, "has no column 'text'; did you mean 'texts'"),
        ("text,label\na,0\nb,2", {"classes": ["0", "1"]}, "label '2' is none of the classes 0, 1"),
        ("text,label\na,0\nb,0", {}, "all rows have the label '0' in column 'label'"),
        ("text,label", {}, "books.csv: has no rows: add some, or remove the file"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(
    table: str, settings: Any, said: str, tmp_path: Path, data_set: Build
) -> None:
    (tmp_path / "books.csv").write_text(table)
    assert said in complaint(data_set, "text-table", tmp_path, **settings)


def test_wrong_files_are_named(tmp_path: Path, data_set: Build) -> None:
    assert "has no tables: this layout is" in complaint(data_set, "text-table", tmp_path)
    file = tmp_path / "books.jsonl"
    file.write_text('{"text": "a", "label": 0}\n{"text": ')
    assert f"{file}:2: is not JSON" in complaint(data_set, "text-table", tmp_path)
    file.write_text("[1, 2]")
    assert f"{file}:1: is [1, 2]: give an object" in complaint(data_set, "text-table", tmp_path)
    file.write_bytes(b"\xff\xfe\x00")
    assert f"{file}: is not UTF-8 text" in complaint(data_set, "text-table", tmp_path)


def test_a_vocabulary_that_is_none_is_named(reviews: Path, data_set: Build, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("a\nb\n")
    line = complaint(data_set, "text-table", reviews, vocabulary=str(tmp_path / "v.txt"))
    assert f"vocabulary {tmp_path / 'v.txt'}: is neither a tokenizer.json nor a vocab.txt" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("NUM", "NUMB"), "tag 'NUMB' is no universal part of speech; did you mean 'NUM'"),
        (("NUM\t_", "NUM _"), "a.conllu:5: has 9 fields, and a word of CoNLL-U has 10"),
        (("sent_id", "id"), "has no sent_id that begins with a genre: set domain: file"),
    ],
)
def test_a_wrong_line_of_a_treebank_is_named(
    change: tuple[str, str], said: str, treebank: Path, data_set: Build
) -> None:
    file = treebank / "a.conllu"
    file.write_text(file.read_text().replace(*change))
    assert said in complaint(data_set, "conllu", treebank)


def test_files_of_published_splits_may_be_kept_apart(tmp_path: Path, data_set: Build) -> None:
    for part in ("train", "dev", "test"):
        line = f"1\t{part}\tword\tNOUN\tNN\t_\t0\troot\t_\t_"
        (tmp_path / f"en_ewt-ud-{part}.conllu").write_text(f"# sent_id = web-{part}\n{line}\n\n")
    joined = data_set("conllu", tmp_path)
    assert (joined.splits("web"), len(joined.split("web", "all"))) == (["all"], 3)
    apart = data_set("conllu", tmp_path, splits="published")
    assert sorted(apart.splits("web")) == ["dev", "test", "train"]
    (text,) = apart.split("web", "test").x.texts
    assert text.words == ("test",)
    assert data_set("conllu", tmp_path, splits="published", domain="file").domains() == [
        "en_ewt-ud"
    ]
    (tmp_path / "other.conllu").write_text("")
    (problem,) = data_set("conllu", tmp_path, splits="published").check()
    assert "other.conllu: split 'other' is none of train" in problem


def test_a_damaged_packed_file_is_named(treebank: Path, data_set: Build) -> None:
    file = treebank / "b.conllu.gz"
    file.write_bytes(file.read_bytes()[:30])
    assert f"{file}: cannot be read" in complaint(data_set, "conllu", treebank)


# --- customer reviews and real data -----------------------------------------------------------


def test_the_class_of_a_review_is_the_sign_of_its_opinions(tmp_path: Path, data_set: Build) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "phone.txt").write_text(
        "* a head\n[t]a title\nsize[+2],weight[-1]##good on the whole\n##nothing said\n"
        "price[-3][u]##too dear\nscreen[+1],case[-1]##even\n"
    )
    data = data_set("customer-reviews", tmp_path)
    split = data.split("shop", "all")
    assert split.y.tolist() == [1, 0]
    assert [" ".join(text.words) for text in split.x.texts] == ["good on the whole", "too dear"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("a line\n##another\n")
    assert "none: has no sentence with opinions" in complaint(
        data_set, "customer-reviews", tmp_path
    )


def test_reviews_of_three_collections_are_a_stream(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in ("product_reviews_1", "product_reviews_2", "liu3_aspect_sentiment"):
        (tmp_path / name).symlink_to(real_data(f"{name}.zip"))
    stream_class = load("stream", "domain-shift")
    chosen = {"name": "customer-reviews", "root": str(tmp_path)}
    config = stream_class.Config(data=chosen, source="product_reviews_1")
    built = build_stream(stream_class(config, 0))
    assert [d.name for d in built.domains] == ["liu3_aspect_sentiment", "product_reviews_2"]
    assert len(built.source.adaptation) + len(built.source.test) > 1500


def test_liu3_is_a_table(real_data: Callable[[str], Path], data_set: Build) -> None:
    root = real_data("liu3_aspect_sentiment.zip")
    data = data_set("text-table", root, text=["sentence", "term"], label="polarity")
    assert (list(data.domains()), data.class_names) == (
        ["Computer", "Router", "Speaker"], ("+", "-")
    )  # fmt: skip
    assert list(data.check()) == []


def test_ewt_has_five_genres(
    real_data: Callable[[str], Path], data_set: Build, tmp_path: Path
) -> None:
    for part in ("dev", "test"):
        file = real_data(f"en_ewt-ud-{part}.conllu.gz")
        (tmp_path / file.name).symlink_to(file)
    data = data_set("conllu", tmp_path)
    assert list(data.domains()) == ["answers", "email", "newsgroup", "reviews", "weblog"]
    assert sum(len(data.split(d, "all")) for d in data.domains()) == 2001 + 2077
