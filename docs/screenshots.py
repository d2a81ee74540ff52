"""Makes pictures of the how-to pages and of the gallery anew, in docs/figures/.

Most are of the shipped records; for the gallery some small suites are run, which takes minutes.

Needs the extra ``browser`` and Chromium (Debian: ``apt install chromium``). Run it from anywhere.
"""

from __future__ import annotations

import io
import os
import re
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
SHRUNK = 0.5
"""Of the figures of 300 dots an inch."""


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
    with tempfile.TemporaryDirectory() as folder:
        gallery(Path(folder))


def gallery(folder: Path) -> None:
    """The pictures that the gallery's page shows, by the commands that stand in it."""
    page = DOCS.joinpath("gallery", "README.md").read_text(encoding="utf-8")
    for name in ("docs", "bench"):
        folder.joinpath(name).symlink_to(DOCS.parent / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S):
        command = ["bash", "-euc", block]
        subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PATH": path})
    for kind in re.findall(r"figures/gallery-([a-z-]+)\.png", page):
        of_each, of_all = folder.glob(f"*/figure-{kind}-*.png"), folder.glob(f"*/figure-{kind}.png")
        found = [*of_all, *sorted(of_each)]
        chosen = next((each for each in found if NETWORK in each.name), found[0])
        saved(chosen.read_bytes(), f"gallery-{kind}", SHRUNK)


def taken(page: Page, what: str, name: str) -> None:
    """A picture of one element."""
    element = page.locator(what)
    element.scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # what is drawn when it comes into view
    saved(element.screenshot(), name)


def saved(picture: bytes, name: str, share: float = 1.0) -> None:
    """Write a picture with few colors, shrunk to a share of its size."""
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    size = (round(share * whole.width), round(share * whole.height))
    way, colors = Image.Quantize.MEDIANCUT, COLORS
    if share < 1:  # many methods, each of a color of its own on few points
        way, colors = Image.Quantize.MAXCOVERAGE, 4 * COLORS
    few = whole.resize(size, Image.Resampling.LANCZOS).quantize(colors, way)
    few.save(DOCS / "figures" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
