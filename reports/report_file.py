"""A report file: which tables and figures of a paper are made of which records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from bench.errors import BenchError
from bench.io.safe_yaml import read_yaml
from bench.io.validated import validated

LONGEST = 300
"""Characters of a name or title."""

Text = Annotated[str, pydantic.Field(min_length=1, max_length=LONGEST)]
Budget = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Names = Annotated[list[Text], pydantic.Field(min_length=1)]


class _Strict(pydantic.BaseModel, extra="forbid", frozen=True):
    pass


class RowChoice(_Strict):
    """One row, or a method's name alone.

    Attributes
    ----------
    method : the method, or the label of its row in the tables of ``bench report``
    name : how the table calls it; by default as the other tables
    group : rows of one group follow a line with its name
    settings : which of several rows of the method, by where its settings come from
    """

    method: Text
    name: Text | None = None
    group: Text | None = None
    settings: Literal["tuned", "default", "given", "none", "oracle"] | None = None


def _as_row(given: Any) -> Any:
    return {"method": given} if isinstance(given, str) else given


class TableChoice(_Strict):
    """What one table shows; what it does not say is as in the whole file.

    Attributes
    ----------
    name : of its files
    title : begins its caption
    suites, streams, models, devices : only records of these; a variant of a model is called as in
        titles, "NAME compressed:8"
    columns : names of measures, costs, further metrics, ``runs``, ``settings``, ``origin``
    rows : in this order; by default all, as in the other tables
    form : of several settings, "long" (below each other) or "wide" (beside each other)
    """

    name: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$")] = "table"
    title: Text | None = None
    suites: Names | None = None
    streams: Names | None = None
    models: Names | None = None
    devices: Names | None = None
    columns: Names | None = None
    rows: (
        Annotated[
            list[Annotated[RowChoice, pydantic.BeforeValidator(_as_row)]],
            pydantic.Field(min_length=1),
        ]
        | None
    ) = None
    form: Literal["long", "wide"] | None = None


class ReportFile(TableChoice):
    """A whole file.

    Attributes
    ----------
    stores : folders of records; relative ones lie beside the file
    seeds, source_draws : only these seeds, and only the first so many draws of the source
    names : how tables call columns, suites, streams, models and devices
    figures : which figures are drawn: of each setting (stream, tradeoff, memory, matrix, pairwise,
        trained, breakdown), of all beside each other (bars and those of costs), of several windows
        (window) or speeds of the stream (speed)
    figure_width : of all figures: "page", as wide as they need, or "column", that of a paper
    summaries : which tables of all settings together: the answer, across scenarios, by workload
    max_energy, max_memory : J and MB within which the answer names the best too
    numbers : of tables in LaTeX, "plain", or "siunitx" for papers that say there how they look
    tables : several tables; without it the file is one itself
    """

    stores: Names | None = None
    seeds: Annotated[list[int], pydantic.Field(min_length=1)] | None = None
    source_draws: Annotated[int, pydantic.Field(ge=1, le=100)] | None = None
    names: dict[Text, Text] = {}
    figures: list[
        Literal[
            "stream", "tradeoff", "memory", "matrix", "pairwise", "trained", "breakdown",
            "window", "speed",
            "bars", "bars-memory", "bars-energy", "bars-time",
        ]
    ] = []  # fmt: skip
    figure_width: Literal["page", "column"] = "page"
    summaries: list[Literal["answer", "scenarios", "workloads"]] = []
    max_energy: Budget | None = None
    max_memory: Budget | None = None
    numbers: Literal["plain", "siunitx"] = "plain"
    tables: Annotated[list[TableChoice], pydantic.Field(min_length=1)] | None = None

    def chosen(self) -> list[TableChoice]:
        """The tables, each with what the whole file says where it says nothing."""
        if self.tables is None:
            return [self]
        shared = {n: getattr(self, n) for n in TableChoice.model_fields if n != "name"}
        made = []
        for table in self.tables:
            own = {n: v for n in shared if (v := getattr(table, n)) is not None}
            made.append(TableChoice.model_construct(name=table.name, **{**shared, **own}))
        return made


def read_report_file(path: Path) -> ReportFile:
    """The content of a report file; BenchError names file, key, value and cure."""
    if path.suffix not in (".yaml", ".yml"):
        raise BenchError(
            f"report file {path}: is no .yaml file; give one, or choose a suite's records with "
            "--suite"
        )
    where = f"report file {path}"
    content = read_yaml(path, "report file")
    if not isinstance(content, dict):
        keys = ", ".join(ReportFile.model_fields)
        raise BenchError(f"{where}: a report file is a mapping with keys {keys}")
    content.setdefault("name", _name_of(path))
    made = validated(ReportFile, content, where)
    twice = _first_twice(table.name for table in made.tables or ())
    if twice is not None:
        raise BenchError(f"{where}: key 'tables': two are called {twice!r}; rename one")
    return made


def _name_of(path: Path) -> str:
    """The file's name as the name of files."""
    safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in path.stem.lower()).strip("-")
    return safe[:60] or "table"


def _first_twice(names: Iterable[str]) -> str | None:
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
