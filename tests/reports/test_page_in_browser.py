"""The page in a real browser: sorting, filters, figures, dialogs, accessibility, size and speed.

Needs the extra ``browser`` and Chromium (Debian: ``apt install chromium``): ``tox -e browser``.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.live import server
from bench.live.pages import Pages
from bench.live.state import StoreView
from bench.records.record import Record
from bench.records.store import Store
from bench.reports.comparison import compare
from bench.reports.drawing import styles
from bench.reports.further_blocks import sheet
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
        each.on("load", lambda _: loaded(path))
        each.goto(path.as_uri())
        opened.append(each)
        return each

    def loaded(path: Path) -> None:
        """Of a page that is loaded, for the first time or again, this request alone is no news."""
        assert said == [path.as_uri()]
        said.clear()

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


def test_the_runs_of_a_method_tell_what_its_time_goes_into(
    open_page: Callable[..., Page], make: Make, tmp_path: Path
) -> None:
    records = [make("source-only", time=0.0), make("tent"), make("edgeta", time=6.0)]
    assert records[2].results is not None
    costs = records[2].results.costs
    costs.steps, costs.time_by_kind = {"adapt": 3, "proxy": 1}, {"adapt": 5.0, "proxy": 1.0}
    files(records, tmp_path)
    opened = open_page(tmp_path / "report.html")
    for name, shown in (("edgeta", True), ("tent", False)):
        opened.locator(FIRST_TABLE).get_by_role("button", name=name, exact=True).click()
        text = opened.locator("#runs").inner_text()
        assert ("Adaptation time: adapt 5 s, proxy 1 s." in text) is shown
        opened.keyboard.press("Escape")


def test_an_empty_cell_tells_why_where_the_pointer_rests(
    open_page: Callable[..., Page], make: Make, tmp_path: Path
) -> None:
    lacking = make("norm", status="unsupported", reason="no <b>BatchNorm</b> layer")
    files([make("source-only"), make("tent"), lacking], tmp_path)
    opened = open_page(tmp_path / "report.html")
    row = opened.locator(FIRST_TABLE).locator("tbody tr", has_text="norm")
    assert row.locator("td", has_text="n/a").first.get_attribute("title") == (
        "unsupported: no <b>BatchNorm</b> layer"
    )
    fine = opened.locator(FIRST_TABLE).locator("tbody tr", has_text="tent")
    assert fine.locator("td[title]").count() == 0


def test_settings_that_differ_in_the_window_are_a_figure_of_the_page(
    open_page: Callable[..., Page], make: Make, tmp_path: Path
) -> None:
    records = [
        make(method, after=0.5 + window / 100,
             protocol={"name": "periodic", "window_s": window, "reset": "never"})
        for method in ("source-only", "tent") for window in (5.0, 20.0)
    ]  # fmt: skip
    files(records, tmp_path)
    opened = open_page(tmp_path / "report.html")
    opened.locator(".contents a", has_text="against the window").click()
    picture = opened.get_by_role("img", name="Accuracy after adaptation against the window")
    assert picture.is_visible()


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


def test_the_best_within_a_budget_is_named_with_how_sure_that_is(
    open_page: Callable[..., Page], make: Make, tmp_path: Path
) -> None:
    records = [
        make(method, seed, after=after + step * seed, energy=energy)
        for seed in range(3)
        for method, after, step, energy in (
            ("source-only", 0.5, 0.0, 0.0), ("tent", 0.6, 0.001, 8.0), ("shot", 0.55, 0.1, 9.0),
            ("edgeta", 0.8, 0.001, 20.0),
        )
    ]  # fmt: skip
    records += [make("source-only", device="nano", energy=3.0), make("gem", supervised=True)]
    files(records, tmp_path)
    opened = open_page(tmp_path / "report.html")
    table = opened.locator("#budget table")
    assert table.count() == 0

    def cells() -> dict[str, list[str]]:
        return {
            str(row.locator("th").text_content()).split(" · ")[-1]: row.locator(
                "td"
            ).all_text_contents()
            for row in table.locator("tbody tr").all()
        }

    limit = opened.get_by_label("Which is the best within a budget of")
    limit.fill("8.5")
    assert cells()["board"][:2] == ["tent", "source-only"]
    assert cells()["board"][2:4] == [
        "distinguishable from all others; 3 pairs, too few for a test", "60.1 ± 0.2",
    ]  # fmt: skip
    assert "Best within 8.5 J of adaptation energy (modelled)" in table.inner_text()
    limit.fill("10")  # shot in the mean above tent, in one seed below
    assert cells()["board"][:2] == ["shot", "tent"]
    assert cells()["board"][2].startswith("not distinguishable from tent, source-only; 3 pairs")
    limit.fill("2")
    assert cells()["nano"] == ["none; least energy 3 J (source-only)", *["–"] * 5]
    opened.get_by_label("of which cost").select_option("memory")
    assert cells()["nano"][0] == "none; least memory 50 MB (source-only)"
    limit.fill("")
    assert not table.is_visible()


def test_what_a_reader_chose_outlasts_loading_the_page_again(
    open_page: Callable[..., Page], report: Path
) -> None:
    opened = open_page(report)
    heads = opened.locator(FIRST_TABLE).locator("thead button")
    after = next(i for i, head in enumerate(heads.all_inner_texts()) if head.startswith("after"))
    for _ in range(2):
        heads.nth(after).click()
    opened.get_by_role("searchbox").fill("tent, source, shot")
    opened.get_by_label("supervised references (†)").uncheck()
    opened.get_by_label("host", exact=True).uncheck()
    opened.get_by_text("Columns", exact=True).first.click()
    opened.get_by_label("energy").first.uncheck()
    opened.get_by_label("Which is the best within a budget of").fill("20")
    opened.get_by_label("of which cost").select_option("memory")
    costs = opened.locator("figure[data-kind=tradeoff] >> nth=0")
    costs.scroll_into_view_if_needed()
    costs.locator("select").select_option("memory")
    costs.locator(".key button[aria-pressed=true]").first.click()
    opened.locator("#how-to-read").evaluate("each => { each.open = true; }")

    def state() -> list[object]:
        costs.scroll_into_view_if_needed()
        return [
            column(opened, FIRST_TABLE, 0),
            opened.locator(FIRST_TABLE).locator("thead th").nth(after).get_attribute("aria-sort"),
            opened.get_by_role("searchbox").input_value(),
            opened.locator("tbody.references:visible").count(),
            opened.locator("section.comparison:visible").count(),
            opened.locator(FIRST_TABLE).locator("thead th:visible").all_inner_texts(),
            opened.locator("#budget table").inner_text(),
            costs.locator("select").input_value(),
            costs.locator(".key button[aria-pressed=false]").all_inner_texts(),
            opened.locator("#how-to-read").get_attribute("open"),
        ]

    before = state()
    assert before[1:6] == ["ascending", "tent, source, shot", 0, 1, before[5]]
    assert before[7] == "memory"
    assert len(before[8]) == 1  # type: ignore[arg-type]
    reload(opened)
    assert state() == before
    # Whoever undoes all of it has the page as it was made; another tab has that anyway.
    heads.nth(after).click()
    opened.get_by_role("searchbox").fill("")
    opened.get_by_label("host", exact=True).check()
    reload(opened)
    assert opened.locator("section.comparison:visible").count() == 2
    assert opened.locator(FIRST_TABLE).locator("thead th[aria-sort]").count() == 0
    other = open_page(report)
    assert other.locator("section.comparison:visible").count() == 2
    assert other.locator("tbody.references >> nth=0").is_visible()


def test_a_served_report_keeps_it_when_its_browser_asks_again(
    browser: Browser, paper: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(server.REFRESH_S, "/report", 1)
    store = Store(tmp_path)
    for record in paper:
        store.write(record)
    view = StoreView(tmp_path)
    served = server.Server(Pages(view), 0)
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    try:
        opened = browser.new_page()
        opened.goto(served.url)
        frame = opened.frame_locator("iframe.report")
        head = frame.locator(FIRST_TABLE).locator("thead th").nth(2)
        head.locator("button").click(timeout=60_000)
        frame.get_by_role("searchbox").fill("tent")
        before = frame.locator(FIRST_TABLE).locator("tbody tr:visible").all_inner_texts()
        assert before
        loads = []
        opened.on("response", lambda each: loads.append(each.url.endswith("/report")))
        for _ in range(100):
            if sum(loads) > 1:
                break
            opened.wait_for_timeout(200)
        assert sum(loads) > 1
        box = frame.get_by_role("searchbox")
        box.wait_for()
        assert box.input_value() == "tent"
        assert head.get_attribute("aria-sort") == "descending"
        assert frame.locator(FIRST_TABLE).locator("tbody tr:visible").all_inner_texts() == before
        opened.close()
    finally:
        served.shutdown()
        served.close()
        view.close()


def test_a_store_of_a_tab_that_was_tampered_with_does_no_harm(
    open_page: Callable[..., Page], report: Path
) -> None:
    opened = open_page(report)
    first = column(opened, FIRST_TABLE, 0)
    for value in ("{", "null", "7", '[["methods", 3], ["budget", "x"], ["x"]]'):
        opened.evaluate(
            "value => sessionStorage.setItem(`bench ${location.pathname}`, value)", value
        )
        reload(opened)
        opened.get_by_role("searchbox").fill("")
        assert column(opened, FIRST_TABLE, 0) == first


def reload(opened: Page) -> None:
    """Load the page again; the request is one that `open_page` expects."""
    with opened.expect_event("load"):
        opened.evaluate("location.reload()")


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


@pytest.mark.parametrize("width", [390, 1280])
def test_names_of_300_characters_and_from_right_to_left_do_not_widen_the_page(
    open_page: Callable[..., Page], make: Make, tmp_path: Path, width: int
) -> None:
    long, arabic = "x" * 300, "\u0637\u0631\u064a\u0642\u0629 \u202etent"
    records = [make("source-only"), make(arabic, after=0.7), make("shot", status="failed",
                                                                  reason="nan " * 999)]  # fmt: skip
    files([*records, make(long, model=long, device=long)], tmp_path)
    opened = open_page(tmp_path / "report.html", width=width)
    for figure in opened.locator("figure[data-kind]").all():
        figure.scroll_into_view_if_needed()
    opened.get_by_label("Which is the best within a budget of").fill("100")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.locator("section.comparison").last.get_by_role("button", name=long).first.click()
    assert opened.locator("#runs").evaluate("each => each.scrollWidth <= each.clientWidth")


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
    sheets = [sheet(each) for each in comparisons]
    path.write_text(page(comparisons, sheets, styles(comparisons)), encoding="utf-8")
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
