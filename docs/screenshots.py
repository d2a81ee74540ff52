"""Makes pictures of the how-to pages anew from the shipped records, in docs/figures/.

Needs the extra ``browser`` and Chromium (Debian: ``apt install chromium``). Run it from anywhere.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import bench

DOCS = Path(__file__).resolve().parent
RECORDS = DOCS / "results" / "records" / "domain-shift.tar.xz"
BUDGET = 10
"""In J."""
NETWORK = "digits-vit"
METHOD = "edgeta"
COLORS = 64
"""Of a picture: with these a text and some lines are small and look the same."""


def main() -> None:
    """Write the pictures; exit code 1 without Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: apt install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        bench.report(RECORDS, folder)
        # As root Chromium has no sandbox; it opens a page of this project alone.
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 900}, color_scheme="light")
        page.goto(Path(folder, "report.html").as_uri())
        # Sections that are laid out when they come into view would move what is photographed.
        page.add_style_tag(content="section.comparison { content-visibility: visible; }")
        page.get_by_label("Which is the best within a budget of").fill(str(BUDGET))
        taken(page, "section.answer", "page-budget")
        section = f'section.comparison[data-model="{NETWORK}"]'
        figure = f"{section} figure[data-kind=tradeoff]"
        page.locator(figure).scroll_into_view_if_needed()
        page.locator(f'{figure} g[data-row="{METHOD}"] [data-tip]').hover()
        taken(page, figure, "page-energy")
        page.locator(section).get_by_role("button", name=METHOD, exact=True).first.click()
        taken(page, "#runs", "page-runs")
        browser.close()
        paper = [sys.executable, "-m", "bench", "report", str(DOCS / "results" / "paper.yaml")]
        subprocess.run([*paper, "--out", folder], check=True, stdout=subprocess.DEVNULL)
        saved(Path(folder, "figure-bars.png").read_bytes(), "paper-bars")


def taken(page: Page, what: str, name: str) -> None:
    """A picture of one element."""
    element = page.locator(what)
    element.scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # what is drawn when it comes into view
    saved(element.screenshot(), name)


def saved(picture: bytes, name: str) -> None:
    """Write a picture with few colors."""
    few = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLORS)
    few.save(DOCS / "figures" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
