from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError, registry
from bench.records.record import Record
from bench.reports.comparison import compare
from bench.reports.write import files, summary

Make = Callable[..., Record]
FIGURES = ("memory", "stream", "tradeoff")
SUFFIXES = (
    *(f"figure-{name}-{{}}.{kind}" for name in FIGURES for kind in ("pdf", "png", "svg")),
    *(f"table-{{}}.{kind}" for kind in ("csv", "md", "tex")),
)


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(paper: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "new" / "report"
    files(paper, folder, note="Half of the seeds <b>so far</b>.")
    return folder


@pytest.fixture(scope="module")
def page(report: Path) -> Reader:
    return Reader((report / "report.html").read_text(encoding="utf-8"))


def test_the_doors_are_registered() -> None:
    assert registry.load("report", "summary") is summary
    assert registry.load("report", "files") is files
    for entry in registry.entries("report").values():
        assert entry.summary


def test_summary_holds_every_comparison(paper: list[Record], make: Make) -> None:
    told = summary([*paper, make("tent", device="host", kind="measured")])
    assert told.index("\ndomain-shift · digits · small-vit · board\n") < told.index(
        "digits · small-vit · host\n"
    )
    assert "58.2±2.7" in told or "58.3±2.7" in told


REFUSED = {"status": "unsupported", "variant": {"ratio": 8}, "model": "resnet"}


def test_where_no_method_applies_a_line_says_so_instead_of_a_table(
    make: Make, tmp_path: Path
) -> None:
    why = "pruning: ResNet declares no blocks; implement blocks()"
    names = ("source-only", "tent", "eata")
    refused = [make(name, seed, reason=why, **REFUSED) for name in names for seed in (0, 1)]
    said = f"domain-shift · digits · resnet compressed:8 · board: no method applies (6 runs): {why}"
    told = summary([make("tent"), *refused])
    assert told.endswith(f"\n\n{said}\n")
    assert told.count("resnet") == 1
    assert told.startswith("Answer\n\nBest method without labels of the target\n")
    paths = files([make("tent"), *refused], tmp_path)
    assert not [path for path in paths if "resnet" in path.name]
    assert said in Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert summary(refused) == f"{said}\n"
    with pytest.raises(BenchError, match="none of 6 records has results"):
        files(refused, tmp_path)


def test_several_reasons_name_their_methods(make: Make) -> None:
    reasons = {"tent": "no blocks", "eata": "no blocks", "neo": "no linear head"}
    told = summary([make(name, reason=why, **REFUSED) for name, why in reasons.items()])
    place = "domain-shift · digits · resnet compressed:8 · board: does not apply:"
    assert sorted(told.splitlines()) == [
        f"{place} eata, tent (2 runs): no blocks", f"{place} neo (1 run): no linear head",
    ]  # fmt: skip


def test_one_method_that_applies_makes_a_table(make: Make) -> None:
    told = summary([make("tent"), make("eata", status="unsupported", reason="no blocks")])
    assert "No result: eata" in told


def test_summary_of_nothing_says_so() -> None:
    assert summary([]) == "No records yet: start with 'bench run'.\n"


def test_summary_stays_light() -> None:
    code = (
        "import sys, bench.reports.write\n"
        "heavy = {'matplotlib', 'seaborn', 'pandas', 'scipy', 'jinja2', 'torch'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_files_are_all_there_and_nothing_else(report: Path) -> None:
    expected = [s.format("digits-small-vit-board") for s in SUFFIXES]
    assert sorted(p.name for p in report.iterdir()) == sorted(
        [*expected, "answer.md", "captions.md", "report.html"]
    )


def test_every_figure_has_a_caption_in_words(report: Path) -> None:
    told = (report / "captions.md").read_text(encoding="utf-8")
    figures = {path.stem for path in report.glob("figure-*.pdf")}
    assert {line[2:].partition(".**")[0] for line in told.split("\n\n") if line} == figures
    assert "mean and 95 % interval over seeds" in told


def test_paths_returned_are_the_files(make: Make, tmp_path: Path) -> None:
    paths = files([make("tent")], tmp_path)
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert all(p.stat().st_size for p in paths)


def test_of_many_comparisons_the_page_alone_has_figures_unless_files_are_asked_for(
    report: Path, paper: list[Record], tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    known = {path.name for path in report.iterdir()}
    drawn = {name for name in known if name.startswith(("figure-", "captions"))}
    assert len(drawn) > 9
    monkeypatch.setattr("bench.reports.write.MOST_DRAWN", 0)
    assert {path.name for path in files(paper, tmp_path / "many")} == known - drawn
    assert "no figure files of 1 comparisons, the page has their curves; --figures" in caplog.text
    text = (tmp_path / "many" / "report.html").read_text(encoding="utf-8")
    assert "<code>bench report --figures</code> writes them as PNG" in text
    assert 'data-kind="stream"' in text
    caplog.clear()
    assert {path.name for path in files(paper, tmp_path / "all", figures=True)} == known
    assert not caplog.text
    monkeypatch.undo()
    assert {path.name for path in files(paper, tmp_path / "no", figures=False)} == known - drawn


def test_the_same_records_give_the_same_files(make: Make, tmp_path: Path) -> None:
    records = [make("source-only"), make("tent")]
    for name in ("a", "b"):
        files(records, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_note_is_in_tables_and_page(report: Path, page: Reader) -> None:
    slug = "digits-small-vit-board"
    assert "&lt;b&gt;so far&lt;/b&gt;" in (report / f"table-{slug}.md").read_text()
    assert r"\textless{}b\textgreater{}" in (report / f"table-{slug}.tex").read_text()
    assert "Half of the seeds <b>so far</b>." in page.text


def test_no_results_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="none of 1 records has results"):
        files([make("tent", status="failed")], tmp_path / "x")
    with pytest.raises(BenchError, match=r"there is no record yet; start with .bench run."):
        files([], tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_is_an_error(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BenchError, match=r"report in .*file/x: cannot be written: Not a directory"):
        files([make("tent")], tmp_path / "file" / "x")


def test_page_opens_offline_and_runs_its_own_script_alone(report: Path, page: Reader) -> None:
    html = (report / "report.html").read_text(encoding="utf-8")
    assert page.tags.count("script") == 2  # the data, and the code
    assert "link" not in page.tags
    assert "img" not in page.tags
    named = re.findall(r"https?://[^\"' ]*|//cdn|url\(", html)
    assert named == ["http://www.w3.org/2000/svg"]  # a name, which nothing is fetched from
    code = html.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    assert ("content", policy) in page.attributes
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "src"
        if name == "href":
            assert value.startswith("#")


def data_of(folder: Path) -> dict[str, Any]:
    """What the page's script shows."""
    html = (folder / "report.html").read_text(encoding="utf-8")
    start = html.index('id="data">') + len('id="data">')
    read: dict[str, Any] = json.loads(html[start : html.index("</script>", start)])
    return read


def test_page_has_the_numbers_of_its_figures_and_the_runs_of_every_row(
    make: Make, tmp_path: Path
) -> None:
    runs = [make("tent", seed, after=after) for seed, after in enumerate((0.5, 0.6, 0.7))]
    files([*runs, make("shot", status="failed", reason="no <b>")], tmp_path)
    told = data_of(tmp_path)
    (comparison,) = told["comparisons"]
    rows = {row["label"]: row for row in comparison["rows"]}
    (row,) = (row for row in compare(runs)[0].rows if row.label == "tent")
    known = row.accuracy["score"]
    assert known is not None
    ends = known.scaled(100).interval  # as the table has it
    assert ends is not None
    assert rows["tent"]["score"] == pytest.approx([60, *ends], rel=1e-4)
    assert comparison["stages"] == ["rotation-1", "noise-1", "blur-1", "contrast-1"]
    assert [point[:2] for point in rows["tent"]["course"]] == [[i, 60] for i in range(4)]
    assert rows["tent"]["costs"]["energy"][0] == 12
    assert rows["tent"]["costs"]["memory"][0] == 50
    assert rows["tent"]["runs"] == [
        [0, seed, "ok", score, runs[seed].identity, runs[seed].log]
        for seed, score in enumerate((50, 60, 70))
    ]
    assert rows["shot"]["score"] is None
    assert rows["shot"]["course"] == []
    assert rows["shot"]["runs"][0][2:4] == ["failed: no <b>", None]
    assert set(told["look"]) == {"source-only", "tent", "shot"}


def test_page_shows_the_end_of_a_failed_runs_log(make: Make, tmp_path: Path) -> None:
    failed = make("shot", status="failed", reason="it broke", log="logs/shot.log")
    files([make("tent"), failed], tmp_path, logs={"logs/shot.log": "Traceback\n<b>KeyError</b>"})
    page = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Traceback\n<b>KeyError</b>" in page.text


def test_page_says_everything(page: Reader) -> None:
    for told in (
        "domain-shift · digits · small-vit · board",
        "58.2",
        "tent (learning_rate=0.01, mode=a|b_c)",
        "How to read this",
        "Measured or modelled.",
        "protocol.window_s",
        "stream.size",
        "model.depth",
        "unavailable",
        "timeout",
        "oom on the device",
        "a train step needs 9000.0 MB on board",
        "ValueError: loss is nan",
        "no reason recorded",
        "logs/",
        "torch",
        "2.9.0",
        "Some CPU",
        "The authors of tent, 2021",
        "5 records of older code of tent left out.",
    ):
        assert told in page.text, told
    assert "secret" not in page.text


def test_page_lists_settings_and_warns_of_oracles(matrix: list[Record], tmp_path: Path) -> None:
    files(matrix, tmp_path)
    page = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "epochs=3, learning_rate=0.00123" in page.text
    assert "learning_rate=0.01" in page.text
    assert page.text.count("digits · small-vit · board — contains ORACLE settings") == 1
    assert page.attributes.count(("class", "warning")) == 1


def test_page_and_files_tell_variants_apart(make: Make, tmp_path: Path) -> None:
    variant = {"ratio": 8, "steps": 1500}
    paths = files([make("tent"), make("tent", variant=variant)], tmp_path)
    page = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    for told in (
        "domain-shift · digits · small-vit · board",
        "domain-shift · digits · small-vit compressed:8 · board",
        "variant.ratio",
        "variant.steps",
        "code of the variant",
    ):
        assert told in page.text, told
    assert page.text.count("variant.ratio") == page.text.count("code of the variant") == 1
    names = {p.name for p in paths}
    assert {"table-digits-small-vit-board.csv", "table-digits-small-vit-compressed-8-board.csv"} < (
        names
    )


def test_page_says_why_a_figure_is_missing(make: Make, page: Reader, tmp_path: Path) -> None:
    files([make("tent", energy=None), make("shot", device="b", status="failed")], tmp_path)
    told = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "No figure of accuracy against energy: no run's energy is known." in told
    assert "No figure: no run of this comparison has a result." in told
    assert "No figure" not in page.text


def test_page_shows_nasty_reasons_as_text(report: Path, page: Reader) -> None:
    assert "<script>alert('x')</script> | 100 % of $HOME" in page.text
    assert "<script>alert" not in (report / "report.html").read_text(encoding="utf-8")


def test_everything_from_records_is_escaped(make: Make, tmp_path: Path) -> None:
    evil = '"><img src=x onerror=alert(1)>'
    shared = {"device": evil, "stream": {evil: evil}, "protocol": {"name": evil, evil: evil}}
    record = make(
        "tent", changed={evil: evil}, suite=evil, log=evil, started=evil, **shared,
        environment={evil: evil, "packages": {evil: evil}},
    )  # fmt: skip
    oracle = make("tent", changed={evil: 1}, settings="oracle", **shared)
    failed = make("tent", 1, status="failed", reason=evil, log=evil, **shared)
    assert record.results is not None
    record.results.domains[0].name = evil
    record.results.costs.adaptation_time.how = evil
    record.method.paper = record.method.family = record.method.provenance = evil
    record.method.needs = [evil]
    paths = files([record, oracle, failed], tmp_path, note=evil)
    assert {p.parent for p in paths} == {tmp_path}
    page = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "img" not in page.tags
    assert not [n for n, _ in page.attributes if n.startswith("on")]
    for path in paths:
        if path.suffix in (".md", ".tex"):
            assert "<img" not in path.read_text(encoding="utf-8")


def test_runs_that_lack_a_result_for_one_reason_stand_in_one_line(
    make: Make, tmp_path: Path
) -> None:
    """Those whose log the page holds stand alone, as each log is another."""
    alike = [make("norm", s, status="unsupported", reason="no BatchNorm", log=f"logs/{s}.log")
             for s in range(4)]  # fmt: skip
    broken = [make("shot", s, status="failed", reason="it broke", log=f"logs/shot-{s}.log")
              for s in range(2)]  # fmt: skip
    logs = {f"logs/shot-{s}.log": f"the end of {s}" for s in range(2)}
    files([make("tent"), *alike, *broken], tmp_path, logs=logs)
    told = (tmp_path / "report.html").read_text()
    table = told.partition("<h3>Runs without a result</h3>")[2].partition("</table>")[0]
    rows = [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in table.split("<tr>")[2:]]
    assert sorted(rows) == [
        "norm seeds 0-3 unsupported no BatchNorm logs/0.log and 3 more",
        "shot seed 0 failed it broke logs/shot-0.log the end of 0",
        "shot seed 1 failed it broke logs/shot-1.log the end of 1",
    ]
