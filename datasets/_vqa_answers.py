"""Answers normalized as the official evaluation of VQA does, so that equal ones are counted.

Antol et al., "VQA: Visual Question Answering", ICCV 2015, and its published evaluation code.
"""

from __future__ import annotations

import re

_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_NUMBERS = {
    word: str(i)
    for i, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}

_ENDINGS = {
    "'ve": (
        "could", "couldn't", "hadn't", "he'd", "it'd", "might", "mightn't", "must", "not",
        "she'd", "should", "shouldn't", "somebody'd", "someone'd", "something'd", "there'd", "they",
        "they'd", "we", "we'd", "what", "where", "who", "who'd", "would", "wouldn't", "y'all'd",
        "you", "you'd",
    ),
    "n't": (
        "ai", "are", "ca", "could", "did", "does", "do", "had", "has", "have", "is", "might",
        "must", "need", "ought", "sha", "should", "was", "were", "wo", "would",
    ),
    "'d": ("he", "how", "it", "someone", "something", "there", "they", "where", "who", "you"),
    "'ll": (
        "how", "it", "somebody", "someone", "something", "they", "what", "who", "why", "y'all",
        "you",
    ),
    "'s": (
        "he", "how", "somebody", "someone", "that", "there", "what", "when", "where", "who", "why",
    ),
    "'re": ("there", "they", "what", "why", "you"),
}  # fmt: skip
"""Words and the endings that are written with an apostrophe."""


def _contractions() -> dict[str, str]:
    """Words as they are written without some of their apostrophes, and as they should be."""
    made = {
        "maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "yall": "y'all",
        "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at",
        "somebody'd": "somebodyd",
    }  # fmt: skip
    for ending, words in _ENDINGS.items():
        for word in words:
            whole = word + ending
            places = [i for i, sign in enumerate(whole) if sign == "'"]
            for place in places:
                made[whole[:place] + whole[place + 1 :]] = whole
            if len(places) == 1:
                made[whole.replace("'", "")] = whole
    return made


_CONTRACTIONS = _contractions()


def normalized(answer: str) -> str:
    """An answer in small letters, without articles and punctuation, numbers as digits."""
    made = text = answer.replace("\n", " ").replace("\t", " ").strip()
    joins = _COMMA_IN_NUMBER.search(text) is not None
    for sign in _SIGNS:
        apart = f"{sign} " in text or f" {sign}" in text
        made = made.replace(sign, "" if apart or joins else " ")
    made = _PERIOD.sub("", made)
    words = (_NUMBERS.get(word, word) for word in made.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
