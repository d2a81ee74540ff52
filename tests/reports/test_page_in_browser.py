"""The page in a real browser: sorting, filters, figures, dialogs, accessibility, size and speed.

Needs the extra ``browser`` and Chromium (Debian: ``apt install chromium``): ``tox -e browser``.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.records.record import Record
from bench.reports.comparison import compare
from bench.reports.drawing import styles
from bench.reports.html_page import page
from bench.reports.write import files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
Make = Callable[..., Record]
FIRST_TABLE = "section.comparison table.sortable >> nth=0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("BENCH_TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.fail("no Chromium: 'apt install chromium', or name one in BENCH_TEST_CHROMIUM")
    with playwright.sync_playwright() as started:
        # As root Chromium has no sandbox; it opens files of these tests alone.
        running = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a file; at the end of the test: no error, no message, no request beyond the file."""
    said: list[str] = []
    opened: list[Page] = []

    def made(path: Path, width: int = 1280, **more: Any) -> Page:
        each = browser.new_page(viewport={"width": width, "height": 900}, **more)
        each.on("console", lambda message: said.append(message.text))
        each.on("pageerror", lambda error: said.append(str(error)))
        each.on("request", lambda request: said.append(request.url))
        each.goto(path.as_uri())
        assert said == [path.as_uri()]
        said.clear()
        opened.append(each)
        return each

    yield made
    for each in opened:
        each.close()
    assert said == []


@pytest.fixture(scope="module")
def report(paper: list[Record], make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    broken = make("shot", 7, status="failed", reason="it broke", log="logs/shot.log", device="host")
    records = [*paper, make("tent", device="host", kind="measured"), broken]
    files(records, folder, logs={"logs/shot.log": "Traceback\nKeyError: 'x'"})
    return folder / "report.html"


def column(opened: Page, table: str, i: int) -> list[str]:
    """The texts of a column's visible cells, supervised references left out."""
    cells = opened.locator(table).locator(
        f"tbody:not(.references) tr > :nth-child({i + 1}):visible"
    )
    return cells.all_inner_texts()


def test_a_click_on_a_head_sorts_and_the_third_brings_the_order_back(
    open_page: Callable[..., Page], report: Path
) -> None:
    opened = open_page(report)
    heads = opened.locator(FIRST_TABLE).locator("thead button").all_inner_texts()
    after = next(i for i, head in enumerate(heads) if head.startswith("after"))
    button = opened.locator(FIRST_TABLE).locator("thead button").nth(after)
    before = column(opened, FIRST_TABLE, after)

    def numbers() -> list[float]:
        """Those of the column; what has none, as a run out of memory, is last."""
        texts = [text.split()[0] for text in column(opened, FIRST_TABLE, after)]
        having = [text[0].isdigit() for text in texts]
        assert having == sorted(having, reverse=True)
        return [float(text) for text in texts if text[0].isdigit()]

    button.click()
    known = numbers()
    assert known == sorted(known, reverse=True)
    assert 2 < len(known) < len(before)
    button.press("Enter")  # from the keyboard
    assert numbers() == sorted(known)
    head = opened.locator(FIRST_TABLE).locator("thead th").nth(after)
    assert head.get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(opened, FIRST_TABLE, after) == before
    assert head.get_attribute("aria-sort") is None


def test_filters_choose_rows_sections_and_columns(
    open_page: Callable[..., Page], report: Path
) -> None:
    opened = open_page(report)
    everyone = column(opened, FIRST_TABLE, 0)
    opened.get_by_role("searchbox").fill("tent, source")
    shown = column(opened, FIRST_TABLE, 0)
    assert 0 < len(shown) < len(everyone)
    assert all("tent" in name or "source" in name for name in shown)
    drawn = opened.locator("section.comparison >> nth=0").locator("g[data-row]")
    assert {"tent" in (g.get_attribute("data-row") or "") or "source" in (
        g.get_attribute("data-row") or "") for g in drawn.all()} == {True}  # fmt: skip
    opened.get_by_role("searchbox").fill("")
    references = opened.locator("tbody.references >> nth=0")
    assert references.is_visible()
    opened.get_by_label("supervised references (†)").uncheck()
    assert not references.is_visible()
    assert opened.locator("section.comparison:visible").count() == 2
    opened.get_by_label("host", exact=True).uncheck()
    assert opened.locator("section.comparison:visible").count() == 1
    opened.get_by_text("Columns", exact=True).first.click()
    head = opened.locator(FIRST_TABLE).locator("thead th", has_text="energy")
    assert head.is_visible()
    opened.get_by_label("energy").first.uncheck()
    assert not head.is_visible()


def test_a_click_on_a_method_shows_its_runs(open_page: Callable[..., Page], report: Path) -> None:
    opened = open_page(report)
    opened.locator(FIRST_TABLE).get_by_role("button", name="tent", exact=False).last.click()
    box = opened.locator("#runs")
    assert box.is_visible()
    assert "its runs" in box.inner_text()
    assert ".json" in box.inner_text()
    opened.keyboard.press("Escape")
    assert not box.is_visible()
    opened.locator("table.prose details").last.click()
    assert "KeyError: 'x'" in opened.locator("table.prose pre").last.inner_text()


def test_figures_tell_numbers_and_switch_lines(
    open_page: Callable[..., Page], report: Path
) -> None:
    opened = open_page(report)
    figure = opened.locator("figure[data-kind=stream] >> nth=0")
    figure.scroll_into_view_if_needed()
    lines = figure.locator("g[data-row]")
    assert (many := lines.count()) > 1
    figure.locator("g[data-row] [data-tip]").last.hover()
    assert "%" in figure.locator(".tip").inner_text()
    figure.locator(".key button[aria-pressed=true]").first.click()
    assert lines.count() == many - 1
    costs = opened.locator("figure[data-kind=tradeoff] >> nth=0")
    costs.scroll_into_view_if_needed()
    assert "adaptation energy" in costs.locator("svg[role=img]").inner_html()
    costs.locator("select").select_option("memory")
    assert "peak memory (MB" in costs.locator("svg[role=img]").inner_html()


def test_the_matrix_of_a_method_is_drawn(
    open_page: Callable[..., Page], matrix: list[Record], tmp_path: Path
) -> None:
    files(matrix, tmp_path)
    opened = open_page(tmp_path / "report.html")
    figure = opened.locator("figure[data-kind=matrix]")
    figure.scroll_into_view_if_needed()
    figure.locator("select").select_option("ewc †")
    cells = figure.locator("rect")
    assert cells.count() == 9
    assert cells.nth(3).get_attribute("data-tip") == "ewc †: 85 % on source, after rotation-1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_bars_readers(
    open_page: Callable[..., Page], report: Path, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    opened = open_page(report, color_scheme=scheme)
    for figure in opened.locator("figure[data-kind]").all():
        figure.scroll_into_view_if_needed()
    found = axe.Axe().run(opened).response["violations"]
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found
               if each["impact"] in ("serious", "critical")]  # fmt: skip
    assert serious == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(
    open_page: Callable[..., Page], report: Path, width: int
) -> None:
    opened = open_page(report, width=width)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_from_records_is_text(
    open_page: Callable[..., Page], make: Make, tmp_path: Path
) -> None:
    evil = "</script><script>document.title='evil'</script><img src=x onerror=alert(1)>"
    files([make(evil), make("tent", status="failed", reason=evil)], tmp_path)
    opened = open_page(tmp_path / "report.html")
    opened.locator(FIRST_TABLE).get_by_role("button", name="document.title").click()
    assert opened.locator("#runs").is_visible()
    assert opened.title() == "Adaptation benchmark: report"
    assert opened.locator("img").count() == 0


def test_50_comparisons_of_40_methods(
    open_page: Callable[..., Page], make: Make, tmp_path: Path
) -> None:
    draw = random.Random(0)
    names = ["source-only", *(f"method-{i}" for i in range(39))]
    records = [
        make(name, seed, model=f"model-{i}", after=[draw.random() for _ in range(4)])
        for i in range(50) for name in names for seed in range(3)
    ]  # fmt: skip
    comparisons = compare(records)
    assert len(comparisons) == 50
    path = tmp_path / "report.html"
    path.write_text(page(comparisons, styles(comparisons)), encoding="utf-8")
    size = path.stat().st_size / 1e6
    opened = open_page(path)
    loaded = opened.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1e3
    sorting = opened.evaluate(
        """() => {
          const button = document.querySelectorAll("section.comparison thead button")[4];
          const start = performance.now();
          button.click();
          document.body.offsetHeight;
          return performance.now() - start;
        }"""
    )
    print(f"{size:.1f} MB, open after {loaded:.2f} s, sorted in {sorting:.0f} ms")
    assert size < 8
    assert loaded < 2
    assert sorting < 100
