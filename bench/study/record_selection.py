"""Which records of a store a report is about, and what is to be said of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from bench.costs.device_profile import absolute_name
from bench.errors import BenchError, did_you_mean
from bench.records.cell import Cell
from bench.records.summary import RecordSummary
from bench.study.suite import ALL, require_draws, suite_files
from bench.study.tuned_settings import Tuned, changed_since, read_tuned, stale_note, tuned_path


class _OfACell(Protocol):
    """A record or its summary."""

    @property
    def suite(self) -> str: ...
    @property
    def cell(self) -> Cell: ...


OfACell = TypeVar("OfACell", bound=_OfACell)


def matching(
    records: Iterable[OfACell],
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    devices: Sequence[str] = (),
    source_draws: int | None = None,
) -> list[OfACell]:
    """The records of these methods, seeds and devices; BenchError for one that no record has.

    ``source_draws``: only of the first so many draws of the source; all of these have records.
    "all" among the methods leaves none out. A device that is a profile's file may be called by its
    path or by the file's name.
    """
    named = None if methods and ALL in methods else methods
    kept = _having(records, "--methods", named, lambda r: {_alike(r).method.name})
    kept = _having(kept, "--seeds", seeds, lambda r: {_own(r).seed})
    draws = None if source_draws is None else range(require_draws(source_draws))
    kept = _having(kept, "--source-draws: draw", draws, lambda r: {_own(r).source_draw})
    named = [absolute_name(name) for name in devices] or None
    titles: dict[str, set[str]] = {}  # a title takes longer than all else that is asked here

    def called(record: OfACell) -> set[str]:
        cell = _alike(record)
        if cell.device not in titles:
            titles[cell.device] = {cell.device, cell.device_title}
        return titles[cell.device]

    return _having(kept, "--device", named, called)


def _alike(record: _OfACell) -> Cell:
    """A record's cell up to its seed and draw: of a summary that of its template, made once."""
    return record.template.cell if isinstance(record, RecordSummary) else record.cell


def _own(record: _OfACell) -> RecordSummary | Cell:
    """What has a record's seed and draw."""
    return record if isinstance(record, RecordSummary) else record.cell


def _having(
    records: Iterable[OfACell],
    option: str,
    wanted: Sequence[object] | None,
    of: Callable[[OfACell], set[Any]],
) -> list[OfACell]:
    """The records with one of the ``wanted`` names; all of them if it is None."""
    if wanted is None:
        return list(records)
    found = [(record, of(record)) for record in records]
    known = set[object]().union(*(names for _, names in found))
    for name in wanted:
        if name not in known:
            cure = did_you_mean(str(name), {str(each) for each in known})
            raise BenchError(f"{option} {name}: no record is of it; {cure}")
    return [record for record, names in found if names & set(wanted)]


def left_out(records: Iterable[RecordSummary], cells: Sequence[Cell]) -> str:
    """What records that are none of a suite's ``cells`` are, counted, in one line; else empty."""
    wanted = {cell.identity for cell in cells}
    other = [record for record in records if record.identity not in wanted]
    if not other:
        return ""
    settings = {_setting(cell) for cell in cells}
    known: list[tuple[str, str, Callable[[Cell], object], set[object]]] = [
        (what, option, of, {of(cell) for cell in cells})
        for what, option, of in (
            ("methods", "--methods", lambda cell: cell.method.name),
            ("seeds", "--seeds", lambda cell: cell.seed),
            ("devices", "--device", lambda cell: cell.device),
            ("draws of the source", "--source-draws", lambda cell: cell.source_draw),
        )
    ]
    groups: dict[str, list[object]] = defaultdict(list)
    options: list[str] = []
    of_suite: dict[str, bool] = {}  # by template, whose cells share their settings
    for record in other:
        key, cell = record.template.key, record.cell
        if key not in of_suite:
            of_suite[key] = _setting(cell) in settings
        if not of_suite[key]:
            groups["of other streams, models, variants or protocols"].append("")
            continue
        for what, option, of, names in known:
            if of(cell) not in names:
                groups[f"of other {what}"].append(of(cell))
                options.append(option)
                break
        else:
            groups["of other settings or older code"].append(cell.method.name)
    told = [f"{len(names)} {what}{_listed(names)}" for what, names in groups.items()]
    count = f"{len(other)} record{'s' * (len(other) > 1)} left out: {'; '.join(told)}"
    named = [option for _, option, _, _ in known if option in options]
    return f"{count}; name them with {', '.join(named)}" if named else count


def tuned_before_a_change(records: Iterable[_OfACell]) -> str:
    """The note on settings that were tuned before a method's code changed; else empty.

    Known where the settings stand beside a suite that ships with the project.
    """
    found: dict[tuple[str, str], Tuned | None] = {}
    changed: dict[str, None] = {}
    for record in records:
        cell = record.cell
        if cell.settings_origin != "tuned":
            continue
        key = (record.suite, cell.model.name)
        if key not in found:
            file = suite_files().get(record.suite)
            path = None if file is None else tuned_path(file, cell.model.name)
            found[key] = read_tuned(path) if path is not None and path.exists() else None
        tuned = found[key]
        if tuned is not None:
            changed |= dict.fromkeys(changed_since(tuned, [cell], exactly=True))
    return stale_note(changed)


def _setting(cell: Cell) -> tuple[str, ...]:
    """What all cells of a suite share, code aside; every variant is one of its own."""
    parts = [cell.stream, cell.model, *([] if cell.variant is None else [cell.variant])]
    texts = [f"{part.name} {sorted(part.config.items(), key=str)}" for part in parts]
    return (*texts, str(sorted(cell.protocol.items(), key=str)), cell.computed_title)


def _listed(names: Iterable[object], most: int = 6) -> str:
    known = sorted({str(name) for name in names if name != ""})
    if not known:
        return ""
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return f" ({', '.join(known[:most])}{more})"
