"""Run the checks on a component, each within a time limit, whatever the component does."""

from __future__ import annotations

import importlib
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from bench import registry
from bench.accelerator.determinism import as_in_a_run
from bench.conformance.base import CHECKS, SUBJECTS, Check, CheckFailed, Result, Subject
from bench.errors import BenchError, did_you_mean
from bench.registry.discovery import Entry

MODULES = ("declarations", "predictions", "behaviour", "resources", "models", "streams", "datasets")
"""The modules of this folder that hold checks, which run in this order."""

for _module in MODULES:
    importlib.import_module(f"bench.conformance.{_module}")

LIMIT_S = 60
"""Seconds after which a check is given up, times the kind's patience."""


def check_component(
    kind: str, name: str, only: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> Iterator[Result]:
    """Run the checks of ``kind`` (or ``only`` some) on the registered component ``name``.

    ``settings``: of a data set, its ``root`` among them.
    Raises BenchError if it cannot be checked at all: it or a check is unknown, or a module that it
    needs is missing.
    """
    for each in only:
        if each not in CHECKS[kind]:
            raise BenchError(f"unknown check {each!r}: {did_you_mean(each, CHECKS[kind])}")
    if kind not in SUBJECTS:
        raise BenchError(f"{kind} {name!r}: there are no checks of this kind")
    for module in getattr(registry.load(kind, name), "preload", ()):
        try:
            importlib.import_module(module)
        except Exception as error:
            raise BenchError(
                f"{kind} {name!r} needs module {module}, which cannot be imported: "
                f"{type(error).__name__}: {error}; install it, or see 'bench doctor'"
            ) from error
    with as_in_a_run():
        subject = SUBJECTS[kind](name, **({"settings": settings} if settings else {}))
    for each in only or CHECKS[kind]:
        yield _run(kind, CHECKS[kind][each], subject)


def check_method(name: str, only: Sequence[str] = ()) -> Iterator[Result]:
    """`check_component` of a method."""
    return check_component("method", name, only)


def components_of_file(path: str | Path, kinds: Sequence[str] = tuple(CHECKS)) -> list[Entry]:
    """The components of some kinds that a Python file registers, by kind.

    The file becomes a plugin if need be. Raises BenchError if it registers none.
    """
    file = Path(path).resolve()

    def found() -> list[Entry]:
        entries = [entry for kind in kinds for entry in registry.entries(kind).values()]
        return [e for e in entries if e.file is not None and e.file.resolve() == file]

    known = found()
    if not known:
        registry.add_plugin(path)
        known = found()
    if not known:
        raise BenchError(
            f"{path}: registers no {' or '.join(kinds)}; decorate a class with "
            f'@register("{kinds[0]}", "name")'
        )
    return known


def methods_of_file(path: str | Path) -> list[str]:
    """Names of the methods that a Python file registers; see `components_of_file`."""
    return [entry.name for entry in components_of_file(path, ("method",))]


def _run(kind: str, check: Check, subject: Subject) -> Result:
    did = why = ""
    clock = time.perf_counter()
    try:
        with as_in_a_run(), _limit(LIMIT_S * subject.patience, subject.too_slow):
            did = check.function(subject)
    except CheckFailed as broken:
        why = " ".join(str(broken).split())
    except BenchError as error:
        why = str(error)
    except Exception as error:
        why = _explained(error, subject.entry.file)
    seconds = time.perf_counter() - clock
    return Result(kind, subject.name, check.name, not why, did, why, seconds)


def _explained(error: Exception, file: Path | None) -> str:
    """An unexpected exception with the place in the component's file where it passed last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if file and Path(f.filename).resolve() == file.resolve()]
    frame = (own or frames)[-1]
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"


@contextmanager
def _limit(seconds: int, cure: str) -> Iterator[None]:
    """Raise `CheckFailed` after some seconds; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(_: int, frame: FrameType | None) -> None:
        raise CheckFailed(f"did not end within {seconds} s: {cure}")

    earlier = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
