"""What labels published layouts have: numbers of classes, regions, boxes, scores, answers."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import published_layouts as published
import pytest
import torch
from PIL import Image

from bench import BenchError, DataChoice, DataSet, load, take
from bench.contracts.dataset import data_set
from bench.datasets import _masks
from bench.datasets._vqa_answers import normalized
from bench.datasets.newsgroups import stripped
from bench.run.validity import build_stream

STREET = _masks.STREET_CLASSES
ROAD, PERSON, CAR, BUS = (STREET.index(name) for name in ("road", "person", "car", "bus"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's cache, away from that of the machine."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., DataSet]:
    """A data set of a tree that is written once."""

    def build(name: str, **changes: Any) -> DataSet:
        root = tmp_path / name.removesuffix("-cls").removesuffix("-det")
        if not root.exists():
            root.mkdir()
            published.WRITERS[name](root)
        settings = {**published.SETTINGS.get(name, {}), "root": str(root), **changes}
        return data_set(name, settings)

    return build


Build = Callable[..., DataSet]


def listing(root: Path) -> list[tuple[str, int, int]]:
    files = sorted(f for f in root.rglob("*") if f.is_file())
    return [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]


# --- masks ------------------------------------------------------------------------------------


def test_gta5_palettes_are_ids_and_its_splits_those_of_the_file(made: Build) -> None:
    data = made("gta5", size=[33, 47])
    assert {n: len(data.split("all", n)) for n in data.splits("all")} == {
        "train": 3, "val": 1, "test": 1
    }  # fmt: skip
    y = data.split("all", "train").y
    assert (y.dtype, y.shape) == (torch.uint8, (3, 33, 47))
    first = y[0]
    assert (first[3, 3], first[3, 31], first[20, 20]) == (CAR, BUS, ROAD)
    assert first[26, 6] == 255  # void, as is a licence plate
    assert set(y.unique().tolist()) == {ROAD, CAR, BUS, PERSON, 255}


def test_masks_are_resized_without_new_numbers(made: Build) -> None:
    large = made("gta5", size=[33, 47]).split("all", "train").y
    for size in ([8, 9], [70, 101]):
        small = made("gta5", size=size).split("all", "train").y
        for one, other in zip(small, large, strict=True):
            assert set(one.unique().tolist()) <= set(other.unique().tolist())


def test_cityscapes_tests_on_the_published_validation_split(made: Build) -> None:
    data = made("cityscapes", size=[33, 47])
    assert [(n, len(data.split("all", n))) for n in data.splits("all")] == [
        ("train", 4), ("test", 2)
    ]  # fmt: skip
    y = data.split("all", "train").y
    assert torch.equal(y[1] == CAR, y[3] == CAR)  # the last one has trainIds alone
    assert set(y[3].unique().tolist()) == {ROAD, CAR, PERSON, 255}
    assert made("cityscapes", faithful=True).splits("all") == ["all"]
    assert len(made("cityscapes", faithful=True).split("all", "all")) == 4
    next(data.root.glob("gtFine/val/*/*_labelIds.png")).unlink()
    with pytest.raises(BenchError, match="is not there: unpack gtFine"):
        made("cityscapes").split("all", "train")


def test_persons_are_never_taken_for_the_background(made: Build) -> None:
    persons = made("supervisely-person", size=[33, 47])
    assert persons.class_names == ("background", "person")
    assert [f.name for f in persons.files()][::2] == ["p0.jpg", "p2.png", "p1.png", "p3.png"]
    first, polygonless, _, unmarked = persons.split("all", "all").y
    assert (first[5, 5], first[8, 27], first[11, 31], first[0, 0]) == (1, 1, 0, 0)
    assert first[27, 8] == 255  # neutral
    assert int((polygonless == 1).sum()) == published.SIDE**2
    assert (unmarked[5, 5], unmarked[0, 0]) == (1, 255)  # there may be persons that are unmarked

    dark = made("baidu-person", size=[33, 47])
    assert dark.class_names == persons.class_names
    y = dark.split("all", "all").y
    assert set(y.unique().tolist()) == {0, 1}
    assert (y[0][15, 14], y[0][0, 0]) == (1, 0)
    counts = (y == 1).flatten(1).sum(dim=1)
    assert ((counts - published.SIDE**2).abs() <= 6).all()  # gray edges are cut in the middle
    released = made("baidu-person", size=[33, 47], faithful=True).split("all", "all").y
    assert int((released == 1).sum()) > int(counts.sum())
    inverted = made("baidu-person", size=[33, 47], person="dark").split("all", "all").y
    assert torch.equal(inverted, 1 - y)


def test_regions_hang_together_by_corners_and_are_large_enough() -> None:
    mask = np.full((40, 40), 255, dtype=np.uint8)
    mask[:10, :10] = mask[10:20, 10:20] = 1  # touch at a corner
    mask[30:39, 0:12] = 1  # too flat
    mask[25:38, 20:33] = 0
    found = list(_masks.regions_of(mask, {0: 5, 1: 3}, 10))
    assert found == [(3, 0, 0, 20, 20), (5, 20, 25, 33, 38)]
    diagonal = np.full((12, 12), 255, dtype=np.uint8)
    np.fill_diagonal(diagonal[:9, :9], 1)
    assert list(_masks.regions_of(diagonal, {1: 0}, 5)) == []  # 9 pixels
    np.fill_diagonal(diagonal, 1)
    assert list(_masks.regions_of(diagonal, {1: 0}, 5)) == [(0, 0, 0, 12, 12)]


def test_regions_are_crops_and_boxes_of_the_same_things(made: Build) -> None:
    crops = made("gta5-cls", classes=["bus", "car"], size=[12, 12])
    assert crops.class_names == ("bus", "car")
    split = crops.split("all", "train")
    assert split.y.tolist() == [1, 0, 1, 1, 0]
    with Image.open(crops.root / "images" / "00001.png") as image:
        expected = np.array(image.crop((2, 2, 14, 14)))
    assert np.array_equal((split.x[:1][0] * 255).round().permute(1, 2, 0).numpy(), expected)
    names = split.x.sample_names()
    assert names[0] == names[1]
    assert len(set(names)) == 3  # regions of an image stay on one side

    boxes = made("gta5-det", classes=["bus", "car"], size=[33, 47]).split("all", "train")
    assert boxes.y.shape == (3, 2, 5)
    expected = [[1, 2 / 47, 2 / 33, 14 / 47, 14 / 33], [0, 30 / 47, 2 / 33, 42 / 47, 14 / 33]]
    assert torch.allclose(boxes.y[0], torch.tensor(expected))
    assert (boxes.y[1, 1] == -1).all()
    assert len(made("gta5-det", least=224).split("all", "train")) == 3  # images stay
    with pytest.raises(BenchError, match="set 'least' to fewer"):
        made("gta5-cls", least=224).split("all", "train")
    with pytest.raises(BenchError, match="'truk' is none of the classes"):
        made("gta5-cls", classes=["truk"])


def test_what_is_derived_is_kept_in_the_cache_and_made_once(
    made: Build, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listing(made("gta5").root)
    y = made("gta5").split("all", "train").y.clone()
    rows = made("gta5-det").split("all", "train").y
    assert listing(made("gta5").root) == before
    assert len(list(cache.glob("masks/*.bin"))) == 1
    assert len(list(cache.glob("regions/*.pt"))) == 3  # one for each split

    def never(*_: Any) -> None:
        raise AssertionError("a mask is read again")

    with monkeypatch.context() as patch:
        patch.setattr("bench.datasets.gta5.read_mask", never)
        again = made("gta5").split("all", "train").y
        assert torch.equal(again, y)
        assert torch.equal(made("gta5-det").split("all", "train").y, rows)
    mapped = Path("/proc/self/maps").read_text()
    assert str(next(cache.glob("masks/*.bin"))) in mapped  # and not in the process's memory
    mask = made("gta5").root / "labels" / "00001.png"
    published.palette(mask, np.full((33, 47), published.ROAD, dtype=np.uint8))
    assert set(made("gta5").split("all", "train").y[0].unique().tolist()) == {ROAD}


# --- several ----------------------------------------------------------------------------------


def sets(tmp_path: Path, *names: str, **settings: Any) -> dict[str, Any]:
    for name in names:
        kind = name.removesuffix("-cls").removesuffix("-det")
        if not (tmp_path / kind).exists():
            published.WRITERS[name](tmp_path / kind)
    chosen = [
        {"name": name, "root": name.removesuffix("-cls").removesuffix("-det"), **settings}
        for name in names
    ]
    return {"name": "several", "root": str(tmp_path), "size": [33, 47], "sets": chosen}


def test_several_sets_match_classes_by_their_names(tmp_path: Path) -> None:
    names = ("supervisely-person", "cityscapes", "baidu-person")
    given = sets(tmp_path, *names)
    data = data_set("several", {k: v for k, v in given.items() if k != "name"})
    others = [name for name in STREET if name != "person"]
    assert data.class_names == ("background", "person", *others)
    assert list(data.domains()) == list(names)
    assert (data.task, list(data.check())) == ("segmentation", [])
    number = {name: i for i, name in enumerate(data.class_names)}
    y = data.split("cityscapes", "train").y
    assert (y.dtype, int(y[0][5, 5]), int(y[0][15, 25])) == (torch.uint8, number["car"], 1)
    assert set(data.split("baidu-person", "all").y.unique().tolist()) == {0, 1}


def test_a_stream_goes_from_some_sets_to_others(tmp_path: Path) -> None:
    given = sets(tmp_path, "gta5", "supervisely-person", "cityscapes", "baidu-person")
    stream_class = load("stream", "domain-shift")
    config = stream_class.Config(
        data=given,
        source=["gta5", "supervisely-person"],
        targets=["cityscapes", "baidu-person"],
        repeat=2,
    )
    assert stream_class.task_of(config) == "segmentation"
    built = build_stream(stream_class(config, 0))
    assert [d.name for d in built.domains] == [
        "cityscapes", "baidu-person", "cityscapes@2", "baidu-person@2"
    ]  # fmt: skip
    assert len(built.source.adaptation) == 3 + 3  # gta5's train split, and most persons
    assert len(built.source.test) == 1 + 1  # a share of the persons is held out
    assert built.classes == 20
    cls = sets(tmp_path, "gta5-cls", "supervisely-person-cls", "cityscapes-cls", least=10)
    config = stream_class.Config(
        data=cls, source=["gta5-cls", "supervisely-person-cls"], targets="cityscapes-cls"
    )
    assert build_stream(stream_class(config, 0)).classes == 19  # person is one class
    det = sets(tmp_path, "gta5-det", "baidu-person-det", "coco2017")
    det["sets"][0] |= {"classes": ["car", "bus"], "least": 10}
    det["sets"][1] |= {"least": 10}
    data = DataChoice.model_validate(det).build()
    assert data.class_names == ("car", "bus", "person", "bottle")
    y = data.split("coco2017", "train").y
    assert set(y[..., 0].unique().tolist()) == {-1.0, 0.0, 2.0, 3.0}


def test_several_sets_count_with_their_contents_and_not_with_their_place(tmp_path: Path) -> None:
    given = sets(tmp_path / "here", "gta5", "baidu-person")
    digest = DataChoice.model_validate(given).content_digest()
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    elsewhere = {**given, "root": str(tmp_path / "there")}
    assert DataChoice.model_validate(elsewhere).content_digest() == digest
    whole = [{**each, "root": str(tmp_path / "there" / each["root"])} for each in given["sets"]]
    assert (
        DataChoice.model_validate({**given, "root": ".", "sets": whole}).content_digest() == digest
    )
    other = [{**given["sets"][0]}, {**given["sets"][1], "faithful": True}]
    assert DataChoice.model_validate({**given, "sets": other}).content_digest() != digest
    published.picture(tmp_path / "there" / "baidu-person" / "clean_images/images/0.jpg", 77)
    assert DataChoice.model_validate(elsewhere).content_digest() != digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["sets"].append(s["sets"][0]), "'gta5' is there twice"),
        (lambda s: s["sets"][0].update(name="gta6"), "gta6"),
        (lambda s: s["sets"][0].update(least=5), "least"),
        (lambda s: s["sets"].append({"name": "gta5-cls", "root": "gta5"}), "join sets of one task"),
        (lambda s: s.pop("sets"), "missing"),
    ],
)
def test_sets_that_do_not_fit_are_named(
    change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path
) -> None:
    given = sets(tmp_path, "gta5", "baidu-person")
    change(given)
    with pytest.raises((BenchError, ValueError), match=said):
        DataChoice.model_validate(given).build()


def test_sets_of_other_sizes_need_a_common_one(tmp_path: Path) -> None:
    given = sets(tmp_path, "gta5", "baidu-person")
    del given["size"]
    given["sets"][0]["size"] = 32
    with pytest.raises(BenchError, match=r"samples of gta5 are .*: set 'size'"):
        DataChoice.model_validate(given).build()


# --- a class each -----------------------------------------------------------------------------


def test_images_of_cifar_10_c_are_learned_and_tested_apart(made: Build) -> None:
    data = made("cifar10", size=32)
    assert list(data.domains())[:3] == ["clean", "blur-1", "blur-2"]
    array = np.load(data.root / "CIFAR-10-C" / "fog.npy")
    split = data.split("fog-3", "test")
    assert split.y.tolist() == [7, 8, 9]
    pixels = (take(split.x, torch.tensor([1])) * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(pixels[0], array[28])
    learned = data.split("blur-1", "train").x.sample_names()
    assert not set(learned) & set(split.x.sample_names())
    assert data.split("blur-5", "test").x.sample_names() == split.x.sample_names()
    stream_class = load("stream", "domain-shift")
    config = stream_class.Config(
        data={"name": "cifar10", "root": str(data.root)}, targets=["fog-5", "blur-1"]
    )
    built = build_stream(stream_class(config, 0))
    assert [(len(d.adaptation), len(d.test)) for d in built.domains] == [(7, 3)] * 2

    clean = data.split("clean", "test")
    folder = data.root / "cifar-10-batches-py"
    binary = data.root.parent / "bin" / "cifar-10-batches-bin"
    binary.mkdir(parents=True)
    for file in folder.iterdir():
        content = pickle.loads(file.read_bytes())
        labels = np.array(content[b"labels"], dtype=np.uint8)[:, None]
        np.concatenate([labels, content[b"data"]], axis=1).tofile(binary / f"{file.name}.bin")
    whole = data_set("cifar10", {"root": str(binary.parent)}).split("clean", "test")
    assert whole.x.sample_names()[7:] == clean.x.sample_names()
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": shutil.rmtree, b"labels": []}))
    with pytest.raises(BenchError, match=r"is no batch of CIFAR-10 \(it names shutil"):
        data.split("clean", "test")


def test_folders_of_imagenet_c_are_domains(made: Build) -> None:
    data = made("imagenet-c")
    assert (list(data.domains()), data.class_names) == (
        ["clean", "fog-1", "fog-5", "frost-3"], ("n00", "n01")
    )  # fmt: skip
    shutil.move(data.root / "frost" / "3", data.root / "frost" / "7")
    with pytest.raises(BenchError, match="root"):
        data_set("imagenet-c", {"root": str(data.root / "clean")})


def test_spoken_digits_are_spectrograms_of_speakers(made: Build) -> None:
    data = made("spoken-digits", size=[24, 20])
    assert {d: data.splits(d) for d in data.domains()} == {
        "george": ["train", "test"], "theo": ["train", "test"]
    }  # fmt: skip
    split = data.split("theo", "train")
    assert split.y.tolist() == list(range(10))
    x = take(split.x, torch.arange(10))
    assert x.shape == (10, 1, 24, 20)
    assert (float(x.min()) >= 0, float(x.max()) <= 1) == (True, True)
    loudest = x.mean(dim=3).squeeze(1).argmax(dim=1)
    assert (loudest.diff() <= 0).all()  # higher digits have higher tones, which are above
    assert int(loudest[0]) > int(loudest[-1]) + 10


# --- boxes and questions ----------------------------------------------------------------------


def test_coco_has_categories_without_gaps_and_no_crowds(made: Build) -> None:
    data = made("coco2017", size=[20, 30])
    assert data.class_names == ("person", "car", "bottle")
    y = data.split("all", "train").y
    assert y.shape == (4, 2, 5)
    assert torch.allclose(y[0, 0], torch.tensor([0, 5.2 / 60, 0.1, 25.2 / 60, 34.5 / 40]))
    assert y[:3, 0, 0].tolist() == [0, 1, 2]
    assert (y[3] == -1).all()  # an image without boxes stays
    crops = made("coco2017-cls", least=10, size=[8, 8])
    split = crops.split("all", "train")
    assert split.y.tolist() == [0, 1, 2]  # boxes of 5 pixels are left out
    assert made("coco2017-cls", least=10, classes=["car"]).split("all", "test").y.tolist() == [0]
    assert len(list(crops.files())) == 2 + 8


def test_answers_are_normalized_as_in_the_official_evaluation() -> None:
    cases = {
        "The Cat.": "cat", "two": "2", "none": "0", "dont": "don't", "isn't": "isn't",
        "1,000": "1000", "3.5 ft.": "3.5 ft", "yes, it is": "yes it is", "t-shirt": "t shirt",
        "youd've": "you'd've", "an apple": "apple", "hot-dog ,": "hot dog", "$5": "$5", "a": "",
        "Im": "im", "oclock": "o'clock", "whats": "what's",
    }  # fmt: skip
    assert {given: normalized(given) for given in cases} == cases


def test_scores_are_thirds_of_equal_answers_and_answers_are_chosen_by_frequency(
    made: Build, tmp_path: Path
) -> None:
    data = made("vqav2", answers=4)
    assert data.class_names == ("yes", "2", "cat", "no")
    split = data.split("all", "test")
    assert split.y.dtype == torch.float32
    assert split.y.tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert data.described(split, 2) == "what 2 ? 2"
    rest = made("vqav2", first=3, answers=2)
    assert rest.class_names == ("cat", "no")
    assert len(rest.split("all", "train")) == 2
    (tmp_path / "list.txt").write_text("Yes\nthing 3\n", encoding="utf-8")
    own = made("vqav2", answer_list=str(tmp_path / "list.txt"))
    assert own.class_names == ("yes", "thing 3")
    assert torch.allclose(own.split("all", "train").y[-1], torch.tensor([0, 1 / 3]))
    with pytest.raises(BenchError, match="set 'first' to a lower place"):
        _ = made("vqav2", first=99).class_names


def test_questions_come_under_all_19_corruptions_of_imagenet_c(made: Build) -> None:
    pytest.importorskip("imagecorruptions")
    data = made("vqav2", size=[40, 48])
    names = data.corruptions("test", "imagenet-c-19")
    assert len(names) == 19 * 5
    assert {"elastic_transform-5", "speckle_noise-5"} <= set(names)
    assert not set(names) & set(data.corruptions("validation", "imagenet-c-19"))
    stream_class = load("stream", "domain-shift")
    kinds = ["elastic_transform-5", "speckle_noise-5"]
    config = stream_class.Config(
        data={"name": "vqav2", "root": str(data.root), "size": [40, 48], "answers": 4},
        corruptions=kinds,
        test=0.5,
    )
    stream = stream_class(config, 0)
    assert list(stream.domain_names()) == kinds
    clean, changed = stream.source().adaptation, stream.domain(kinds[0]).adaptation
    assert len(clean) > 0
    assert take(changed.x, torch.arange(1))["image"].shape == (1, 3, 40, 48)
    held_out = data.corruptions("validation", "imagenet-c-19")
    assert held_out == ["gamma-1", "illumination-1", "gamma-2", "illumination-2"]
    split = data.split("all", "train")
    made_so = data.corrupted(split, "imagenet-c-19/gamma-2", "key")
    assert not torch.equal(made_so.x[:1]["image"], split.x[:1]["image"])


def test_new_answers_come_as_tasks(made: Build) -> None:
    data = made("vqav2")
    stream_class = load("stream", "class-incremental")
    settings = {"name": "vqav2", "root": str(data.root), "size": [24, 32], "answers": 3}
    config = stream_class.Config(data=settings, source_classes=2, per_task=1)
    built = build_stream(stream_class(config, 0))
    assert built.source.adaptation.y.argmax(dim=1).tolist() == [0, 0, 1]
    assert [d.adaptation.y.argmax(dim=1).tolist() for d in built.domains] == [[2]]


def test_new_classes_may_come_from_another_set(tmp_path: Path) -> None:
    given = sets(tmp_path, "gta5-cls", "coco2017-cls", least=10)
    stream_class = load("stream", "class-incremental")
    config = stream_class.Config(
        data=given, source=["gta5-cls", "coco2017-cls"], source_classes=19, per_task=1
    )
    built = build_stream(stream_class(config, 0))
    assert [d.name for d in built.domains] == ["classes-19"]  # the bottle
    assert built.domains[0].adaptation.y.tolist() == [19]


# --- texts ------------------------------------------------------------------------------------


def test_reviews_of_all_collections_have_their_published_splits(made: Build) -> None:
    data = made("absa-reviews")
    assert {d: data.splits(d) for d in data.domains()} == {
        "Nokia6610": ["all"], "Speaker": ["train", "dev", "test"], "rest": ["all"]
    }  # fmt: skip
    assert data.split("Speaker", "dev").y.tolist() == [1, 0]  # in words
    assert data.split("Speaker", "test").y.tolist() == [1, 0, 1]
    texts = data.split("Nokia6610", "all")
    assert [" ".join(t.words) for t in texts.x.texts] == [
        "good é on the whole",
        "too dear",
        "fine zoom",
    ]
    assert data.split("rest", "all").y.tolist() == [1, 0]  # neutral and conflict are left out
    joined = made("absa-reviews", splits="joined")
    assert joined.splits("Speaker") == ["all"]
    assert len(joined.split("Speaker", "all")) == 6 + 2 + 3


def test_posts_do_not_name_their_group(made: Build) -> None:
    data = made("20newsgroups")
    assert data.class_names == ("alt.atheism", "sci.space")
    split = data.split("all", "train")
    assert split.y.tolist() == [0, 0, 1, 1]  # of which nothing is left is left out
    texts = [" ".join(text.words) for text in split.x.texts]
    assert texts[0] == f"café number 0 of train and {ord('a')}"
    assert not any("sci.space" in text or "alt.atheism" in text for text in texts)
    faithful = made("20newsgroups", faithful=True).split("all", "train")
    assert len(faithful) == 6
    assert all("Newsgroups:" in text.words for text in faithful.x.texts)


def test_posts_are_stripped_as_by_scikit_learn(made: Build) -> None:
    from sklearn.datasets import _twenty_newsgroups as reference

    posts = [
        "From: a\n\nsome text\n> quoted\nmore\n\n-- \nme\n", "From: a\n\nfirst\n\nlast\n",
        "no header", "H: x\n\nbob writes:\n| a\nwell\n----\nme", "H: x\n\n\n\none\n",
        "H: x\n\n--\nme",
    ]  # fmt: skip
    for post in posts:
        expected = reference.strip_newsgroup_header(post)
        expected = reference.strip_newsgroup_footer(expected)
        assert stripped(post) == reference.strip_newsgroup_quoting(expected)


def test_the_cache_of_scikit_learn_reads_as_the_folders(made: Build, tmp_path: Path) -> None:
    import codecs
    import pickle

    from sklearn.datasets import load_files

    folders = made("20newsgroups")
    loaded = {
        part: load_files(str(folders.root / f"20news-bydate-{part}"), encoding="latin1")
        for part in ("train", "test")
    }
    root = tmp_path / "cache"
    root.mkdir()
    packed = codecs.encode(pickle.dumps(loaded), "zlib_codec")
    (root / "20news-bydate_py3.pkz").write_bytes(packed)
    data = data_set("20newsgroups", {"root": str(root)})
    assert data.class_names == folders.class_names
    for part in ("train", "test"):
        ours, theirs = (each.split("all", part) for each in (data, folders))
        assert sorted(ours.x.sample_names()) == sorted(theirs.x.sample_names())
    (root / "20news-bydate_py3.pkz").write_bytes(packed[:50])
    (problem,) = data_set("20newsgroups", {"root": str(root)}).check()
    assert "20news-bydate_py3.pkz: cannot be read" in problem


def test_each_answer_of_the_assistant_is_a_sample(made: Build) -> None:
    data = made("no-robots")
    assert data.splits("all") == ["train", "test"]
    split = data.split("all", "train")
    assert [data.described(split, i) for i in range(3)] == [
        "who is train? -> a split", "who is train? -> a split", "and more? -> no more"
    ]  # fmt: skip


def test_the_right_option_is_not_told_by_the_question(made: Build) -> None:
    data = made("medicine-tasks", tasks=["usmle"])
    rows = [row for name in ("train", "test") for row in data.pairs("all", name)]
    assert sorted(rows)[:2] == [
        ("what is 0?\n- a pill\n- a leaf", "a pill"), ("what is 1?\n- a pill\n- a leaf", "a leaf")
    ]  # fmt: skip
    told = made("medicine-tasks", tasks=["MedQs"])
    assert told.pairs("all", "test") == [("the cure of 3 is", "more rest indeed")] * 2
    assert told.pairs("all", "train") == []  # equal questions are on one side
    law = made("law-tasks")
    assert law.pairs("all", "test")[0][0].startswith("case ")
    assert "- " not in law.pairs("all", "test")[0][0]  # the question has its options
    assert law.pairs("all", "test") == made("law-tasks").pairs("all", "test")
    every = [json.dumps(row) for n in ("train", "test") for row in law.pairs("all", n)]
    assert len(set(every)) == 5
