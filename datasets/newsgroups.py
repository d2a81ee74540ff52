"""20 Newsgroups: posts of 20 groups, divided by date, as published by Rennie."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench import BenchError, Split, register

from ._texts import Text, TextConfig, TextData

ONE = "all"
FOLDERS = {"train": "20news-bydate-train", "test": "20news-bydate-test"}
CACHE = "20news-bydate_py3.pkz"
"""What scikit-learn keeps of the same files."""

QUOTE = re.compile(r"(writes in|writes:|wrote:|says:|said:|^In article|^Quoted from|^\||^>)")
"""Lines that quote another post, or say that one follows, as in scikit-learn."""


class NewsgroupsConfig(TextConfig):
    """How texts become numbers, see `TextConfig`; ``faithful``: as in EdgeTA's release headers,
    footers and quotes stay, which name the group.
    """

    tokens: int = 128
    faithful: bool = False


@register("dataset", "20newsgroups")
class Newsgroups(TextData):
    """20 Newsgroups by date: ROOT/20news-bydate-{train,test}/GROUP/NUMBER, or scikit-learn's cache.

    That is ROOT/20news-bydate_py3.pkz, as ``fetch_20newsgroups(data_home=ROOT)`` leaves it. Classes
    are the groups in the order of their names. Headers, footers and quotes are removed, which tell
    the group; posts of which nothing is left are left out.
    """

    Config = NewsgroupsConfig
    config: Any

    def domains(self) -> list[str]:
        return [ONE]

    def splits(self, domain: str) -> list[str]:
        return list(FOLDERS)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The groups."""
        if self._cached is not None:
            return tuple(self._cached["train"][0])
        groups = {name: _folders(self.root / folder) for name, folder in FOLDERS.items()}
        for name, folder in FOLDERS.items():
            if not groups[name]:
                raise BenchError(
                    f"{self.root / folder}: has no folders of groups: unpack 20news-bydate.tar.gz "
                    f"into {self.root}, or let scikit-learn fetch {CACHE}"
                )
        if odd := sorted(set(groups["train"]) ^ set(groups["test"])):
            name = "test" if odd[0] in groups["train"] else "train"
            raise BenchError(
                f"{self.root / FOLDERS[name] / odd[0]}: is not there, and the other split has this "
                "group: unpack 20news-bydate.tar.gz anew"
            )
        return tuple(groups["train"])

    def split(self, domain: str, name: str) -> Split:
        texts, y = [], []
        for number, post in self._posts(name):
            if (kept := post if self.config.faithful else stripped(post)).strip():
                texts.append(Text.of(kept))
                y.append(number)
        if not texts:
            raise BenchError(f"root {self.root}: split {name!r} has no posts: fetch it anew")
        return self.made(texts, torch.tensor(y))

    def _posts(self, name: str) -> Iterator[tuple[int, str]]:
        """The class and the text of each post."""
        if self._cached is not None:
            yield from self._cached[name][1]
            return
        for number, group in enumerate(self.class_names):
            folder = self.root / FOLDERS[name] / group
            files = [file for file in folder.iterdir() if file.is_file()]
            if not files:
                raise BenchError(f"{folder}: has no posts: unpack 20news-bydate.tar.gz anew")
            for file in sorted(files):
                yield number, file.read_text(encoding="latin-1")

    def files(self) -> Iterator[Path]:
        if (self.root / CACHE).is_file():
            return iter([self.root / CACHE])
        folders = (self.root / folder / g for folder in FOLDERS.values() for g in self.class_names)
        return (file for folder in folders for file in sorted(folder.iterdir()))

    @cached_property
    def _cached(self) -> dict[str, tuple[list[str], list[tuple[int, str]]]] | None:
        """The groups and posts of each split in scikit-learn's cache, where there is one."""
        if not (self.root / CACHE).is_file():
            return None
        from sklearn.datasets import fetch_20newsgroups

        found = {}
        for name in FOLDERS:
            try:
                with redirect_stdout(io.StringIO()):  # it prints why a cache cannot be read
                    made = fetch_20newsgroups(
                        data_home=str(self.root),
                        subset=name,
                        shuffle=False,
                        download_if_missing=False,
                    )
            except Exception as error:  # a damaged cache raises many kinds
                raise BenchError(
                    f"{self.root / CACHE}: cannot be read ({error}): let scikit-learn fetch it anew"
                ) from error
            posts = list(zip(made.target.tolist(), made.data, strict=True))
            found[name] = (list(made.target_names), posts)
        return found


def _folders(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []


def stripped(post: str) -> str:
    """A post without header, footer and quotes, by the rules of scikit-learn.

    The header ends at the first empty line. The footer is what follows the last empty line, or the
    last line of dashes, unless that is all there is.
    """
    body = post.partition("\n\n")[2]
    lines = body.strip().split("\n")
    breaks = [i for i, line in enumerate(lines) if not line.strip().strip("-")]
    kept = lines[: breaks[-1]] if breaks and breaks[-1] > 0 else body.split("\n")
    return "\n".join(line for line in kept if not QUOTE.search(line))
