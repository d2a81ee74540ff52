"""What the commands and the Python API let a user choose of a suite, as one object."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import defaults
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.accelerator.choice import Choice, Kind
    from bench.records.store import Store
    from bench.study.plan import Plan
    from bench.study.suite import Suite
    from bench.study.tuned_settings import Tuned

DEFAULT_SUITE = defaults.SUITE
DEFAULT_STORE = Path("bench-results")
MOST_BYTES = 2**32
"""Of a store that is read from an archive, unpacked: that of a million records has less."""


@dataclass(frozen=True)
class Selection:
    """A suite with what replaces parts of it; None and empty leave the suite's own.

    Attributes
    ----------
    suite : a suite's name, or the path of its file
    devices, model, variants, seeds, source_draws : instead of the suite's; variants as
        ``compressed:8``, ``source_draws`` as their number
    methods : only these; registered ones that the suite does not list are added; ``all``: those
        that it lists, further references included
    interval : seconds between batches, for a suite under online-timed
    data, root, source, targets : instead of the suite's stream a registered data set, the folder
        that it lies in, and its source and target domains (by default the first, and the others)
    data_root : the folder that relative paths of the suite's data and models lie in; None: the
        current one
    untuned, tuned : the papers' default settings; a file of tuned settings instead of the one
        beside the suite's file
    store : folder of the records
    plugins : Python files that register components; their code is run
    accelerator, gpus, per_gpu : see `bench.accelerator.choice.choose`; None: as the suite says
    threads : of each run on the CPU; None: as the suite says
    """

    suite: str = DEFAULT_SUITE
    devices: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    model: str | None = None
    variants: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    source_draws: int | None = None
    interval: float | None = None
    data: str | None = None
    root: Path | None = None
    source: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    data_root: Path | None = None
    untuned: bool = False
    tuned: Path | None = None
    store: Path = DEFAULT_STORE
    plugins: tuple[Path, ...] = ()
    accelerator: str | None = None
    gpus: str | None = None
    per_gpu: int = 1
    threads: int | None = None

    def choose(self, warn: Callable[[str], None] = warnings.warn) -> tuple[Suite, Path]:
        """The suite as chosen, and the file it came from; BenchError names what is wrong.

        ``warn`` is called where a key of the suite does not apply to runs that are chosen so.
        """
        from bench import registry
        from bench.study.data_root import placed
        from bench.study.suite import (
            ALL,
            ModelReference,
            load_suite,
            parse_variants,
            require_draws,
            select,
        )

        for plugin in self.plugins:
            registry.add_plugin(plugin)
        suite, path = load_suite(self.suite)
        if self.data_root is not None:
            suite = placed(suite, self.data_root)
        for name in self.methods or ():
            if name != ALL:
                registry.entry("method", name)
        suite = select(suite, self.methods)
        changes: dict[str, Any] = {}
        if self.devices:
            files = (".yaml", ".yml")
            named = [Path(d).as_posix() if d.endswith(files) else d for d in self.devices]
            changes["devices"] = list(dict.fromkeys(named))
        if self.model is not None:
            changes |= {"model": ModelReference(name=self.model), "models": []}
        if self.variants:
            changes["variants"] = parse_variants(self.variants)
        if self.seeds is not None:
            changes["seeds"] = list(self.seeds)
        if self.source_draws is not None:
            changes["source_draws"] = require_draws(self.source_draws)
        if self.data is not None:
            changes["stream"] = self._stream(self.data)
        elif self.root is not None or self.source or self.targets:
            raise BenchError("--root, --source and --targets: name the data set too, with --data")
        if self.interval is not None:
            changes["protocol"] = _at_interval(suite, self.interval)
        changes["accelerator"] = kind = self._kind(suite)
        if kind != "cpu" and (self.threads or 1) > 1:
            raise BenchError(f"--threads {self.threads}: is for runs on the CPU; leave it out")
        if kind != "cpu" and suite.threads > 1 and self.threads is None:
            warn(
                f"suite {suite.name}: threads: {suite.threads} is for runs on the CPU and does not "
                "apply: runs on a GPU have 1"
            )
        changes["threads"] = 1 if kind != "cpu" else self.threads or suite.threads
        return suite.model_copy(update=changes), path

    def plan(
        self, retry: tuple[str, ...] = (), warn: Callable[[str], None] = warnings.warn
    ) -> tuple[Plan, Store]:
        """What to run, and the store it was compared with.

        Cells with a record of a status in ``retry`` are run again. ``warn`` is called as by
        `choose`, and if the tuned settings were selected on the test stream.
        """
        from bench.study.plan import make_plan, model_component

        suite, path = self.choose(warn)
        if absent := self.missing(suite):
            more = f" and {len(absent) - 1} more (see 'bench plan')" if absent[1:] else ""
            raise BenchError(
                f"suite {suite.name}: not there: {absent[0]}{more}; name the folder that its "
                "paths lie in with --data-root"
            )
        store = open_store(self.store)
        models = [suite.model.name]
        if suite.models:
            models = [model_component(m, f"suite {path}: models").name for m in suite.models]
        tuned, *others = [self._tuned(path, model, warn) for model in models]
        found = [each for each in others if each is not None]
        has = {each.model for each in [tuned, *found] if each is not None}
        without = [m for m in models if m not in has] if has and self._of_several(suite) else []
        if without:
            warn(
                f"no settings were tuned on {', '.join(without)}: methods run there with their "
                f"defaults; 'bench tune --model {without[0]}' makes some"
            )
        if without == models:
            tuned = None  # of another of the suite's models
        return make_plan(suite, path, store, retry, tuned, tuple(found)), store

    def _of_several(self, suite: Suite) -> bool:
        """Whether the suite's file has several models, of which one or all are chosen."""
        from bench.study.suite import load_suite

        if suite.models or self.tuned is not None:
            return bool(suite.models)
        return suite.model.name in {model.name for model in load_suite(self.suite)[0].models}

    def missing(self, suite: Suite) -> list[str]:
        """A line for each folder or file that the chosen suite needs and that is not there."""
        from bench.study.data_root import missing_paths

        return [] if self.data is not None else missing_paths(suite)

    def computing(self, suite: Suite) -> Choice:
        """Where runs of the suite compute; BenchError if that is not possible here."""
        from bench.accelerator.choice import choose

        return choose(self.accelerator or suite.accelerator, self.gpus, self.per_gpu)

    def _kind(self, suite: Suite) -> Kind:
        """What stands in cells: a named one also where this machine has none."""
        if (self.accelerator or suite.accelerator) == "cuda":
            return "cuda"
        return self.computing(suite).kind

    def _stream(self, data: str) -> Any:
        """Domain shift over a data set."""
        from bench import registry
        from bench.study.suite import Reference

        registry.entry("dataset", data)
        chosen = {"name": data} | ({} if self.root is None else {"root": str(self.root)})
        domains = {"source": list(self.source), "targets": list(self.targets)}
        given = {name: value for name, value in domains.items() if value}
        return Reference(name=defaults.DATA_STREAM, config={"data": chosen, **given})

    def _tuned(self, suite: Path, model: str, warn: Callable[[str], None]) -> Tuned | None:
        """The tuned settings for a model: those given, else those beside the suite's file."""
        from bench.study.tuned_settings import read_tuned, tuned_path

        if self.untuned and self.tuned is not None:
            raise BenchError(f"--untuned and --tuned {self.tuned}: give one of them")
        beside = tuned_path(suite, model)
        own_data = self.data is not None  # settings were tuned on the suite's
        if self.untuned or (self.tuned is None and (own_data or not os.path.exists(beside))):
            return None
        tuned = read_tuned(self.tuned or beside)
        if tuned.oracle:
            warn(
                f"ORACLE: {self.tuned or beside} was selected with the labels of the test stream; "
                "its results are upper bounds of tuning and no fair comparison"
            )
        return tuned


def open_store(root: Path) -> Store:
    """The store in a folder, which need not exist yet."""
    from bench.records.store import Store

    if os.path.exists(root) and not root.is_dir():
        raise BenchError(f"--store {root}: is a file; name a folder")
    return Store(root)


def existing_store(root: Path, to_change: bool = False) -> Store:
    """The store in a folder, or in an archive of one, which is unpacked into the cache.

    BenchError if it holds no records, or if it is an archive and is ``to_change``.
    """
    from bench.io.archive import is_archive, unpacked
    from bench.records.store import Store

    store = Store(root)
    if is_archive(root):
        if to_change:
            raise BenchError(f"--store {root}: is an archive, which is only read; unpack it first")
        inside = unpacked(root, "--store", MOST_BYTES)
        store = Store(inside if inside.name != store.records.name else inside.parent)
    if not os.path.isdir(store.records):
        raise BenchError(f"--store {root}: no records there; run 'bench run' or name another")
    return store


def _at_interval(suite: Suite, interval: float) -> dict[str, Any]:
    from bench.records.protocol_facts import DEFAULT, protocol_facts

    if not protocol_facts(suite.protocol).timed:
        name = suite.protocol.get("name", DEFAULT)
        raise BenchError(
            f"--interval {interval:g}: suite {suite.name} is {name}, whose stream waits; leave it "
            "out, or take a suite whose stream does not wait, such as real-time"
        )
    if not 0 < interval < math.inf:
        raise BenchError(f"--interval {interval:g}: give seconds above 0, as 0.5")
    return {**suite.protocol, "interval_s": interval}
