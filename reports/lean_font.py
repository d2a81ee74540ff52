"""The font of figures without what they do not need, as every PDF embeds a part of it.

DejaVu Sans has 6,000 characters, and taking the few dozen of a figure out of them takes longer than
drawing it. The lean copy has those of Latin and Greek text and the common symbols, and their
kerning; all others matplotlib takes from the whole font. Its licence lets copies be changed and
passed on.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from functools import cache
from pathlib import Path

import fontTools
from fontTools import subset
from matplotlib import font_manager

from bench.io.atomic_write import write_atomically
from bench.io.weights_cache import cache_folder

WHOLE, LEAN = "DejaVu Sans", "DejaVu Sans Lean"
KEPT = (
    (0x20, 0x17F),  # Latin with accents
    (0x391, 0x3C9),  # Greek without
    (0x2010, 0x203A),  # dashes, daggers, quotation marks
    (0x2190, 0x2193),  # arrows
    (0x2200, 0x2265),  # operators
)
"""First and last characters."""


def families(wanted: list[str]) -> list[str]:
    """The fonts of figures, with the lean one before the one that it is a copy of."""
    if WHOLE not in wanted or not _added():
        return wanted
    place = wanted.index(WHOLE)
    return [*wanted[:place], LEAN, *wanted[place:]]


@cache
def _added() -> bool:
    """Whether the lean font is there: not where the cache cannot be written."""
    whole = Path(font_manager.findfont(WHOLE))
    content = whole.read_bytes()
    made_of = f"{fontTools.version} {KEPT} {Path(__file__).read_text(encoding='utf-8')}"
    key = hashlib.sha256(content + made_of.encode()).hexdigest()[:16]
    path = cache_folder() / "fonts" / f"sans-{key}.ttf"
    with suppress(OSError):
        if not path.exists():
            write_atomically(path, _lean(content))
        font_manager.fontManager.addfont(path)
        return True
    return False


def _lean(content: bytes) -> bytes:
    options = subset.Options(glyph_names=True, recommended_glyphs=True, legacy_kern=True)
    # The table "kern" has all of the kerning; that of OpenType's tables would be taken apart again
    # for every PDF.
    options.drop_tables += ["FFTM", "GDEF", "GPOS", "GSUB", "MATH"]
    font = subset.load_font(io.BytesIO(content), options)
    font.recalcTimestamp = False
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=[code for first, last in KEPT for code in range(first, last + 1)])
    chosen.subset(font)
    for entry in font["name"].names:
        text = entry.toUnicode()
        lean = text.replace(WHOLE, LEAN).replace(WHOLE.replace(" ", ""), LEAN.replace(" ", ""))
        font["name"].setName(lean, entry.nameID, entry.platformID, entry.platEncID, entry.langID)
    made = io.BytesIO()
    font.save(made)
    return made.getvalue()
