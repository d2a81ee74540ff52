"""The suites of EdgeTA's paper: each plans on tiny trees in the layouts that it names."""

from __future__ import annotations

import json
from pathlib import Path

import published_layouts
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from bench import registry
from bench.study.data_root import missing_paths, placed
from bench.study.selection import Selection
from bench.study.suite import load_suite, suite_files

PAPER = [n for n in suite_files() if n.startswith("edgeta-") and n != "edgeta-ablation"]
SMALL = [n for n in suite_files() if n.startswith("mini-")]
TREES = (
    "gta5", "supervisely-person", "cityscapes", "baidu-person", "coco2017", "vqav2", "20newsgroups",
    "no-robots", "medicine-tasks", "law-tasks",
)  # fmt: skip
NETWORKS = {
    "bert-base-multilingual-cased": "BertConfig",
    "roberta-base": "RobertaConfig",
    "vilt-b32-mlm": "ViltConfig",
    "clip-vit-base-patch32": "CLIPConfig",
    "sam-vit-base": "SamConfig",
    "mm-grounding-dino-tiny": "MMGroundingDinoConfig",
    "gpt-neo-125m": "GPTNeoConfig",
}


def _reviews(root: Path, domains: set[str]) -> None:
    for domain in domains:
        for part in ("train", "dev", "test"):
            rows = {
                str(i): {"polarity": "+-"[i % 2], "sentence": f"{domain} {part} {i}", "term": "x"}
                for i in range(12)
            }
            file = root / "asc" / domain / f"{part}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(rows))


def _treebank(root: Path) -> None:
    lines = []
    for genre in ("answers", "email", "newsgroup", "reviews", "weblog"):
        for i in range(8):
            words = enumerate((("hello", "INTJ"), (f"w{i}", "NOUN")), start=1)
            rows = ("\t".join([str(k), word, word, tag, *["_"] * 6]) for k, (word, tag) in words)
            lines += [f"# sent_id = {genre}-{i}", *rows, ""]
    root.mkdir()
    (root / "en.conllu").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and the configurations of networks, as the suites expect them; no weights."""
    import transformers

    root = tmp_path_factory.mktemp("data")
    for name in TREES:
        (root / name).mkdir()
        published_layouts.WRITERS[name](root / name)
    reviews: set[str] = set()
    for name in ("edgeta-sentence", "edgeta-roberta"):
        stream = load_suite(name)[0].stream.config
        reviews |= {*stream["source"], *stream["targets"]}
    assert len(reviews) == 19
    _reviews(root / "absa", reviews)
    _treebank(root / "ewt")
    (root / "vit_base_patch16_224").mkdir()
    tokens = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, kind in NETWORKS.items():
        getattr(transformers, kind)().save_pretrained(root / name)
        tokens.save(str(root / name / "tokenizer.json"))
    return root


@pytest.mark.parametrize("name", [n for n in PAPER if n != "edgeta-vqa-tasks"])
def test_a_suite_of_the_paper_plans(
    name: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    if name == "edgeta-vqa":
        pytest.importorskip("imagecorruptions")
    chosen = Selection(suite=name, data_root=data_root, store=tmp_path / "store", seeds=(0,))
    suite, _ = chosen.choose()
    assert missing_paths(suite) == []
    plan, _ = chosen.plan()
    methods = list(suite.all_methods())
    labelled = sum(target_labels for _, target_labels in methods)
    variants = len(suite.variants)
    supervised = "tasks" in name  # the stream gives labels: all methods run on all variants
    expected = variants * (len(methods) - labelled) + labelled
    assert len(plan.cells) == (variants * len(methods) if supervised else expected)


@pytest.mark.parametrize("name", [*PAPER, *SMALL])
def test_a_suite_names_what_is_registered_and_relative_paths(name: str, tmp_path: Path) -> None:
    suite, path = load_suite(name)
    for reference, _ in suite.all_methods():
        registry.entry("method", reference.name)
    for model in suite.all_models():
        registry.entry("model", model.name)
    found = missing_paths(placed(suite, tmp_path))
    assert found or name == "mini-ewt"  # whose files lie in the folder itself
    assert all(line.startswith(str(tmp_path)) for line in found), path
