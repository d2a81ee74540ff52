"""Notes that stand under several tables of a report are said once, and referred to by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from .footnotes import ORACLE, spans
from .table_model import Sheet


def said_once(sheets: Sequence[Sheet]) -> tuple[list[Sheet], list[str]]:
    """The sheets with references in the place of shared notes, and these in the order in which they
    come up. The warning of oracle settings stays where it warns.
    """
    counts = Counter(note for made in sheets for note in dict.fromkeys(made.notes))
    order = dict.fromkeys(note for made in sheets for note in made.notes)
    shared = [note for note in order if counts[note] > 1 and note != ORACLE]
    numbers = {note: i for i, note in enumerate(shared, start=1)}
    made = []
    for each in sheets:
        known = [numbers[note] for note in each.notes if note in numbers]
        own = [note for note in each.notes if note not in numbers]
        told = [f"Notes {spans(known)} of all tables: at the end."] if known else []
        made.append(replace(each, notes=(*own, *told)))
    return made, shared


def numbered(shared: Sequence[str]) -> list[str]:
    """The shared notes with their numbers, as `said_once` refers to them."""
    return [f"[{i}] {note}" for i, note in enumerate(shared, start=1)]
