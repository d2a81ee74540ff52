"""Tiny data of every task in folders of published layouts, and a tiny foundation model for each.

``WORKLOADS``: by name what writes the data, the data set's settings, the stream's, and the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from bench import registry

SIDE = 32
DOMAINS = ("studio", "street")


def _pictures(folder: Path, n: int, seed: int) -> list[tuple[Path, int, tuple[int, int]]]:
    """Noisy images with a bright square; which color it has, and where its corner is."""
    draw = np.random.default_rng(seed)
    made = []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        color, (x, y) = i % 2, (int(v) for v in draw.integers(0, SIDE - 16, 2))
        pixels = draw.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[y : y + 16, x : x + 16, 2 * color] = 250
        file = folder / f"{i:03}.png"
        Image.fromarray(pixels).save(file)
        made.append((file, color, (x, y)))
    return made


def images(root: Path) -> None:
    for d, domain in enumerate(DOMAINS):
        for file, color, _ in _pictures(root / "all", 48, d):
            place = root / domain / ("red", "blue")[color]
            place.mkdir(parents=True, exist_ok=True)
            file.rename(place / file.name)
    (root / "all").rmdir()


def boxes(root: Path) -> None:
    root.mkdir()
    (root / "names.yaml").write_text("names: [red, blue]\n")
    for d, domain in enumerate(DOMAINS):
        labels = root / domain / "labels"
        labels.mkdir(parents=True)
        for file, color, (x, y) in _pictures(root / domain / "images", 40, d):
            middle = f"{(x + 8) / SIDE} {(y + 8) / SIDE}"
            (labels / f"{file.stem}.txt").write_text(f"{color} {middle} 0.5 0.5\n")


def masks(root: Path) -> None:
    for d, domain in enumerate(DOMAINS):
        labels = root / domain / "labels"
        labels.mkdir(parents=True)
        for file, color, (x, y) in _pictures(root / domain / "images", 40, d):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[y : y + 16, x : x + 16] = 1 + color
            Image.fromarray(mask).save(labels / file.name)


def _sentence(i: int, domain: int) -> tuple[str, str]:
    thing = (("screen", "battery", "camera"), ("drill", "saw", "hammer"))[domain][i % 3]
    good = i % 2 == 0
    said = ("works well", "is great") if good else ("is broken", "gets hot")
    return f"this {thing} {said[i // 2 % 2]} says customer {i}", "good" if good else "bad"


def texts(root: Path) -> None:
    root.mkdir()
    for d, domain in enumerate(DOMAINS):
        rows = [",".join(_sentence(i, d)) for i in range(48)]
        (root / f"{domain}.csv").write_text("\n".join(["text,label", *rows]) + "\n")


def tags(root: Path) -> None:
    kinds = {"this": "DET", "works": "VERB", "is": "AUX", "gets": "VERB", "says": "VERB"}
    root.mkdir()
    for d, domain in enumerate(DOMAINS):
        lines = []
        for i in range(48):
            lines.append(f"# sent_id = {domain}-{i}")
            for k, word in enumerate(_sentence(i, d)[0].split(), start=1):
                tag = kinds.get(word, "NUM" if word.isdecimal() else "NOUN")
                lines.append("\t".join([str(k), word, word, tag, *["_"] * 6]))
            lines.append("")
        (root / f"{domain}.conllu").write_text("\n".join(lines) + "\n")


def questions(root: Path) -> None:
    for d, part in enumerate(("train", "test")):
        made = _pictures(root / part / "images", 60, d)
        rows = []
        for i, (file, color, _) in enumerate(made):
            file.rename(file.with_name(f"{i}.png"))
            rows.append(["what color is the square", ("red", "blue")[color], i])
            rows.append(["is it red", ("yes", "no")[color], i])
        (root / part / "questions.json").write_text(json.dumps(rows))
    (root / "answers.txt").write_text("blue\nno\nred\nyes\n")


def dialogues(root: Path) -> None:
    root.mkdir()
    for d, domain in enumerate(DOMAINS):
        pairs = [_sentence(i, d) for i in range(48)]
        rows = [json.dumps({"question": text, "answer": f"it is {label}"}) for text, label in pairs]
        (root / f"{domain}.jsonl").write_text("\n".join(rows) + "\n")


@dataclass(frozen=True)
class Workload:
    """Data and a model of one task."""

    write: Callable[[Path], None]
    data: dict[str, Any]
    model: dict[str, Any]
    stream: dict[str, Any]


def _tiny(name: str, **more: Any) -> dict[str, Any]:
    """A registered model with its settings for conformance tests."""
    settings = registry.load("model", name).conformance_config
    return {"name": name, **settings, **more}


BERT = {
    "hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64, "vocabulary": 200,
    "positions": 16,
}  # fmt: skip
REAL: dict[str, Any] = {"source": DOMAINS[0]}
TOKENS = {"tokens": 12, "hashes": 120}


def workloads() -> dict[str, Workload]:
    """All of them by name."""
    image = {"name": "image-folder", "size": SIDE}
    mask = {"name": "segmentation-pairs", "size": SIDE, "classes": 3}
    sentences = {"name": "text-table", **TOKENS}
    answers = {"name": "question-answer", "tokens": 20, "hashes": 60}
    box = {"name": "yolo-boxes", "size": 64}
    return {
        "vit": Workload(images, image, _tiny("hf-images"), REAL),
        "clip": Workload(images, image, _tiny("clip"), REAL),
        "vit-detector": Workload(boxes, box, _tiny("vit-detector"), REAL),
        "vit-segmenter": Workload(masks, mask | {"size": 64}, _tiny("vit-segmenter"), REAL),
        "sam": Workload(masks, mask, _tiny("sam"), REAL),
        "sam-prompted": Workload(
            masks,
            {"name": "box-prompts", "data": {**mask, "root": "."}, "classes": ["1", "2"]},
            _tiny("sam-prompted"),
            REAL,
        ),
        "bert": Workload(texts, sentences, {"name": "bert-base", **BERT}, REAL),
        "roberta": Workload(
            texts, sentences, {"name": "roberta-base", **BERT, "positions": 20}, REAL
        ),
        "bert-tags": Workload(
            tags, {"name": "conllu", **TOKENS}, {"name": "bert-base-tokens", **BERT}, REAL
        ),
        "vilt": Workload(
            questions,
            {"name": "vqa-folder", "size": SIDE, **TOKENS},
            _tiny("hf-vqa"),
            {"corruptions": ["noise-1"]},
        ),
        "gpt-neo": Workload(dialogues, answers, _tiny("gpt-neo"), REAL),
    }  # fmt: skip


def _small(name: str, depth: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "width": 16, "depth": depth, "heads": 2, **more}


WORDS = {"vocabulary": 128, "words": 16}
SEVERAL = (
    _small("small-classifier", 1), _small("small-tagger", 2, **WORDS),
    _small("small-vqa", 3, **WORDS),
)  # fmt: skip
"""A tiny model for images, for words, and for questions about images; the last costs most."""


def several_streams(folder: Path, samples: int = 16) -> list[dict[str, Any]]:
    """Settings of a stream of each of these, whose data are written below ``folder``."""
    made = []
    for name in ("vit", "bert-tags", "vilt"):
        workload = workloads()[name]
        workload.write(folder / name)
        data = {**workload.data, "root": str(folder / name)}
        limits = {"samples": samples, "test_samples": 16}
        made.append({"name": "domain-shift", "data": data, **limits, **workload.stream})
    return made


def write_several(
    folder: Path, methods: Sequence[Any], references: Sequence[Any] = (), window_s: float = 60
) -> Path:
    """The file of a suite in which three applications of different tasks share a device."""
    content = {
        "name": "tiny-several",
        "description": "one window of three applications",
        "stream": {"name": "several-tasks", "streams": several_streams(folder)},
        "model": {"name": "several-models", "models": list(SEVERAL), "training": {"epochs": 1}},
        "protocol": {"window_s": window_s, "batch_size": 8},
        "devices": "raspberry-pi-4b",
    }
    return _written(folder, content, methods, references)


def write_suite(
    name: str, folder: Path, methods: Sequence[Any], references: Sequence[Any], test_samples: int
) -> Path:
    """The file of a suite over a workload, whose data are written beside it."""
    workload = workloads()[name]
    workload.write(folder / "data")
    data = {**workload.data, "root": str(folder / "data")}
    stream = {"name": "domain-shift", "data": data, "samples": 16, "test_samples": test_samples}
    content: dict[str, Any] = {
        "name": f"tiny-{name}",
        "description": "one pass over a few samples",
        "stream": {**stream, **workload.stream},
        "model": {**workload.model, "training": {"epochs": 1}},
        "protocol": {"window_s": 60, "batch_size": 8},
        "devices": "xavier-nx",
    }
    return _written(folder, content, methods, references)


def _written(
    folder: Path, content: dict[str, Any], methods: Sequence[Any], references: Sequence[Any]
) -> Path:
    """The file of a suite with these methods and one seed."""
    both = {"methods": list(methods), "supervised_references": list(references)}
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({**content, **both, "seeds": 1}))
    return path
