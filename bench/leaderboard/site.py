"""The site: a page of the submissions, and the report of all that are accepted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from bench import registry
from bench.errors import BenchError
from bench.io.atomic_write import write_atomically
from bench.leaderboard.submissions import Submission
from bench.records.record import Record

NOTE = (
    "Leaderboard of {n} submission{s}, self-reported: their records were checked for schema, "
    "digests, plausible numbers and honest labels, and not run again; index.html says who made them"
)


def write_site(submissions: Sequence[Submission], out: Path) -> list[Path]:
    """Write ``index.html`` and the report's files of the accepted submissions; their paths.

    Of a cell that several have the record that was started first counts. A table holds
    what differs in the method alone, so that labs with other budgets stand in tables of their own.
    Raises BenchError if none is accepted or the folder cannot be written.
    """
    accepted = [each for each in submissions if each.accepted]
    if not accepted:
        raise BenchError("no submission is accepted; 'bench leaderboard --check' says why")
    first: dict[str, Record] = {}
    for record in (record for each in accepted for record in each.records):
        known = first.get(record.identity)
        if known is None or record.started < known.started:
            first[record.identity] = record
    note = NOTE.format(n=len(accepted), s="s" * (len(accepted) > 1))
    paths: list[Path] = registry.load("report", "files")(list(first.values()), out, note)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("index.html").render(submissions=submissions, runs=len(first))
    index = out / "index.html"
    try:
        write_atomically(index, page.encode())
    except OSError as error:
        raise BenchError(f"{index}: cannot be written: {error.strerror}; choose another") from error
    return [index, *paths]
