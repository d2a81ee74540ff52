"""The report of the shipped results: twice the same bytes, and the numbers that the page tells."""

from __future__ import annotations

import csv
import json
import re
import runpy
from pathlib import Path

import pytest
from tex import ENGINE, NEEDS, compiled

from bench.records.record import Record
from bench.reports.answer import Ranked, within_cells
from bench.reports.comparison import compare
from bench.reports.paper import Paper
from bench.study.selection import existing_store

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
PAGE = (RESULTS / "domain-shift.md").read_text(encoding="utf-8")
NETWORKS = {"digits-vit": "**Vision transformer**", "digits-resnet": "**ResNet**"}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """All records that ship, read from their archive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        paper = Paper(RESULTS / "paper.yaml")
        store = existing_store(paper.stores[0])
        found = store.read(record.identity for record in store.summaries())
        assert store.unreadable == {}
        return found


@pytest.fixture(scope="module")
def made(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    Paper(RESULTS / "paper.yaml").write(records, folder)
    return folder


def page_rows(network: str) -> dict[str, list[str]]:
    """By method the cells of the page's table of a network on three draws of the source model."""
    table = PAGE.split(NETWORKS[network], 1)[1].split("\n\n")[1]
    lines = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return {line[0].strip(): [re.sub(r"\\", "", c).strip() for c in line[1:]] for line in lines}


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(
    records: list[Record], made: Path, tmp_path: Path
) -> None:
    Paper(RESULTS / "paper.yaml").write(records[::-1], tmp_path)
    names = sorted(path.name for path in made.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    displays = {"accuracy.tex", "memory.tex", "energy.tex", "figure-bars.pdf", "summary-answer.md",
                "summary-scenarios.md", "summary-workloads.md"}  # fmt: skip
    assert displays <= set(names)
    for name in names:
        assert (made / name).read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.parametrize("network", NETWORKS)
def test_the_numbers_are_those_of_the_page(made: Path, network: str) -> None:
    page = page_rows(network)
    assert len(page) > 20
    checked = 0
    for display, place in (("accuracy", 1), ("energy", 4), ("memory", 5)):
        with (made / f"{display}.csv").open(encoding="utf-8") as file:
            rows = {row["method"]: row for row in csv.DictReader(file) if row["model"] == network}
        assert rows.keys() <= page.keys()
        column = next(c for c in rows["source-only"] if re.fullmatch(rf"{display}_[a-z]+", c))
        for method in rows:
            told = page[method][place].split(" ")[0]
            if told in ("n/a", "–"):
                assert rows[method][f"{display}_code"] == "n/a"
                continue
            decimals = len(told.partition(".")[2])
            assert f"{float(rows[method][column]):.{decimals}f}" == told, (method, display)
            checked += 1
    assert checked > 60


@pytest.mark.parametrize("joule", [10, 20])
def test_the_walk_through_tells_what_the_page_tells(records: list[Record], joule: int) -> None:
    path = RESULTS.parent / "how-to" / "choose-method.md"
    text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
    for comparison in compare(records):
        answer = Ranked(comparison).answer({"energy": joule})
        assert answer is not None
        best, runner_up, sure, score, margin, energy = within_cells(answer, ["energy"])
        told = (
            f"| {joule} | {comparison.cell.model.name} | {best} | {runner_up} | {sure} | {score} |"
        )
        assert f"{told} {margin} | {energy} |" in text


@pytest.mark.skipif(ENGINE is None, reason=NEEDS)
def test_the_latex_compiles(made: Path, tmp_path: Path) -> None:
    tables = [path.read_text(encoding="utf-8") for path in sorted(made.glob("*.tex"))]
    assert len(tables) == 6  # three displays, three summaries
    tables += [
        f"\\begin{{figure}}\\includegraphics[width=\\linewidth]{{{path}}}\\end{{figure}}"
        for path in sorted(made.glob("figure-*.pdf"))
    ]
    preamble = "\\usepackage{graphicx}\n\\usepackage[margin=2cm]{geometry}\n"
    ended = compiled(tables, tmp_path, preamble)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert "Overfull" not in (tmp_path / "all.log").read_text(errors="replace")


def test_the_claims_of_edgeta_are_counted_from_the_records() -> None:
    script = runpy.run_path(str(RESULTS.parent / "claims.py"))
    page = (RESULTS / "edgeta-claims.md").read_text(encoding="utf-8")
    numbers = script["runs"]()
    for method in ("edgeta", "edgeta-faithful"):
        assert "\n".join(script["table"](numbers, method)) in page


def test_records_ship_small() -> None:
    sizes = [path.stat().st_size for path in (RESULTS / "records").iterdir()]
    assert sum(sizes) < 1_200_000


def test_what_the_summary_says_of_edgeta_stands_beside_the_published_numbers(made: Path) -> None:
    told = (made / "summary-workloads.md").read_text(encoding="utf-8")
    assert "| published | +21.88 | -27.14 | -65.65 | – |" in told
    assert re.search(
        r"\| mean over methods \| \+\d+\.\d \| [+-]\d+\.\d \| [+-]\d+\.\d \| – \|", told
    )
    heads = json.loads((made / "memory.json").read_text(encoding="utf-8"))["columns"]
    assert [head["setting"] for head in heads] == ["ResNet", "Vision transformer"]
