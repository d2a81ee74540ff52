"""Corruptions of texts: what hasty and informal writing does to words, at two strengths.

Each changes a share of a text's words, drawn at random. Typing errors, dropped words and capitals
are of test streams; clipped words (vowels left out), stretched letters and swapped neighbours are
of validation streams: none is in both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

SHARES = {1: 0.15, 2: 0.3}
"""Share of the words that severity 1 (moderate) and 2 (strong) change."""

Change = Callable[[str, random.Random], str]


def change_words(
    name: str, severity: int, words: Sequence[str], draw: random.Random
) -> tuple[str, ...]:
    """The words of a text under a corruption; KeyError if there is none of that name."""
    share = SHARES[severity]
    if name in _WORDS:
        change = _WORDS[name]
        return tuple(change(word, draw) if draw.random() < share else word for word in words)
    return _TEXTS[name](list(words), share, draw)


def _typo(word: str, draw: random.Random) -> str:
    """One letter doubled, left out, or swapped with the next."""
    if len(word) < 2:
        return word
    i = draw.randrange(len(word) - 1)
    kind = draw.randrange(3)
    if kind == 0:
        return word[: i + 1] + word[i:]
    if kind == 1:
        return word[:i] + word[i + 1 :]
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]


def _clipped(word: str, _: random.Random) -> str:
    """Without vowels after the first letter."""
    return word[:1] + "".join(letter for letter in word[1:] if letter.lower() not in "aeiou")


def _stretched(word: str, draw: random.Random) -> str:
    """With one letter three times."""
    i = draw.randrange(len(word)) if word else 0
    return word[:i] + word[i : i + 1] * 3 + word[i + 1 :]


def _dropped(words: list[str], share: float, draw: random.Random) -> tuple[str, ...]:
    """Without some words, but for one at least."""
    kept = [word for word in words if draw.random() >= share]
    return tuple(kept or words[:1])


def _swapped(words: list[str], share: float, draw: random.Random) -> tuple[str, ...]:
    """Some words in the place of the next one."""
    i = 0
    while i + 1 < len(words):
        if draw.random() < share:
            words[i : i + 2] = words[i + 1], words[i]
            i += 1
        i += 1
    return tuple(words)


_WORDS: dict[str, Change] = {
    "typos": _typo,
    "capitals": lambda word, _: word.upper(),
    "clipping": _clipped,
    "stretching": _stretched,
}
_TEXTS = {"word-drops": _dropped, "word-swaps": _swapped}

CORRUPTIONS = {
    "test": ("typos", "capitals", "word-drops"),
    "validation": ("clipping", "stretching", "word-swaps"),
}
"""The corruptions of each part."""

KEEP_WORDS = frozenset(_WORDS)
"""Those that leave each word in its place, so that labels of words stay true."""
