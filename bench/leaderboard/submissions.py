"""The submissions of a folder: a store each, who made it, and what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pydantic

from bench.errors import BenchError
from bench.io.archive import ENDINGS, is_archive
from bench.io.one_line import one_line
from bench.io.safe_yaml import read_yaml
from bench.io.validated import validated
from bench.leaderboard.honest_labels import is_current, is_plugin, wrong_labels
from bench.leaderboard.plausible_results import implausible, known_device
from bench.records.reading import reason
from bench.records.record import Record, Results
from bench.study.selection import existing_store

SHOWN = 5
"""Records that a complaint names; the others are counted."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")

Line = Annotated[str, pydantic.Field(min_length=1, max_length=300)]


class Claim(pydantic.BaseModel, extra="forbid", frozen=True):
    """What a submitter says, in ``NAME.yaml`` beside the store ``NAME``.

    Attributes
    ----------
    by : who made the runs
    link : where more is written, https
    note : a sentence for readers
    """

    by: Line
    link: Annotated[str, pydantic.Field(pattern=r"^https://[!-~]+$", max_length=300)] | None = None
    note: Line | None = None


@dataclass
class Submission:
    """A store that was handed in.

    ``problems``: why it is rejected, none if it is accepted; ``remarks``: what readers must know of
    it all the same.
    """

    name: str
    claim: Claim | None = None
    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether it is on the leaderboard."""
        return not self.problems

    @property
    def results(self) -> list[Record]:
        """The records with results."""
        return [record for record in self.records if record.results is not None]

    def methods(self) -> list[str]:
        """Names of the methods with results."""
        return sorted({one_line(record.cell.method.name) for record in self.results})


def read_submissions(folder: Path) -> list[Submission]:
    """All submissions of a folder by name, checked; BenchError if it holds none.

    A submission is a folder with records, or an archive of one. It is rejected for files that are
    no records (schema, and the digest that names a record), numbers that cannot be, labels that
    claim what is not so, and without a claim of who made it.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise BenchError(
            f"{folder}: cannot be read: {error.strerror}; name a folder of stores"
        ) from error
    stores = [p for p in paths if not p.name.startswith(".") and (p.is_dir() or is_archive(p))]
    if not stores:
        raise BenchError(
            f"{folder}: holds no store; a submission is a folder with records, or .zip"
        )
    found = [_read(path) for path in stores]
    _require_names(found)
    _compare(found)
    return found


def _read(path: Path) -> Submission:
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e) and path.is_file()), "")
    name = path.name[: len(path.name) - len(ending)]
    made = Submission(one_line(name))
    if NAME.fullmatch(name) is None:
        made.problems.append("its name has other signs than letters, numbers and . _ -")
        return made
    try:
        made.claim = _claim(path.with_name(f"{name}.yaml"))
    except BenchError as error:
        made.problems.append(one_line(str(error)))
    try:
        store = existing_store(path)
        made.records = list(store)
    except (BenchError, OSError) as error:
        made.problems.append(one_line(str(error)))
        return made
    broken = [f"{file.name}: {why}" for file, why in store.unreadable.items()]
    made.problems += _some("is no record", map(one_line, broken))
    if not made.results:
        made.problems.append("no record has results")
    made.problems += _of_records("claims what is not so", made.records, wrong_labels)
    made.problems += _of_records("cannot be", made.records, implausible)
    made.remarks += _remarks(made.results)
    return made


def _claim(path: Path) -> Claim:
    where = f"{path.name} beside it"
    if not path.is_file():
        raise BenchError(f"{where} is missing: write 'by: ' and who made the runs")
    try:
        return validated(Claim, read_yaml(path, "claim of a submission"), where)
    except (OSError, ValueError) as error:
        raise BenchError(f"{where} cannot be read: {reason(error)}") from error


def _of_records(
    what: str, records: Iterable[Record], check: Callable[[Record], Iterator[str]]
) -> list[str]:
    found = ((record.identity, line) for record in records for line in check(record))
    return _some(what, (f"{identity}: {one_line(line)}" for identity, line in found))


def _some(what: str, lines: Iterable[str]) -> list[str]:
    """The first complaints, and how many more there are."""
    found = list(lines)
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [f"{what}: {line}" for line in found[:SHOWN]] + more


def _remarks(records: Sequence[Record]) -> Iterator[str]:
    """What is right and yet to be known: plugins, other code, other profiles, measured costs."""
    plugins = sorted({r.cell.method.name for r in records if is_plugin(r)})
    other = sorted({r.cell.method.name for r in records if not (is_plugin(r) or is_current(r))})
    modelled = [r for r in records if r.results and _kind(r.results) == "modelled"]
    devices = sorted({r.cell.device_title for r in modelled if known_device(r) is None})
    if plugins:
        yield one_line(f"methods of the submitter's own: {', '.join(plugins)}")
    if other:
        yield one_line(f"run with other code than this version's: {', '.join(other)}")
    if devices:
        yield one_line(f"profiles with other numbers than this version's: {', '.join(devices)}")
    kinds = {_kind(r.results) for r in records if r.results is not None}
    if kinds:
        yield f"costs are {' and '.join(sorted(kinds))}"


def _kind(results: Results) -> str:
    return results.costs.adaptation_time.kind


def _require_names(found: Sequence[Submission]) -> None:
    """One name, one method: a plugin of another submitter's name must be renamed."""
    owners: dict[str, tuple[str, str]] = {}
    for submission in found:
        codes = {r.cell.method.name: r.cell.method.code for r in submission.results if is_plugin(r)}
        for method, code in codes.items():
            owner, known = owners.setdefault(method, (submission.name, code))
            if known != code:
                submission.problems.append(one_line(
                    f"its method {method} is another than that of {owner}: rename it"
                ))  # fmt: skip
        names = [each.name for each in found]
        if names.count(submission.name) > 1:
            submission.problems.append("two submissions have this name: rename one")


def _compare(found: Sequence[Submission]) -> None:
    """Say which runs two submissions have in common, and whether their scores are equal."""
    known: dict[str, tuple[str, float]] = {}
    for submission in found:
        same: Counter[tuple[str, bool]] = Counter()
        for record in submission.results:
            assert record.results is not None
            score = record.results.score
            other = known.setdefault(record.identity, (submission.name, score))
            if other[0] != submission.name:
                same[other[0], abs(other[1] - score) < 1e-9] += 1
        for (name, equal), n in sorted(same.items()):
            what = "the same score" if equal else "another score"
            submission.remarks.append(f"{n} of its runs are also in {name}, with {what}")
