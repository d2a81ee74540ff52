"""Run the checks on a method, each within a time limit, whatever the method does."""

from __future__ import annotations

import importlib
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bench import registry
from bench.conformance.base import CHECKS, Check, CheckFailed, Result
from bench.conformance.method_fixture import SCENARIO, MethodFixture, setting
from bench.errors import BenchError, did_you_mean
from bench.run.determinism import as_in_a_run

for _module in ("declarations", "behaviour", "resources"):  # their checks run in this order
    importlib.import_module(f"bench.conformance.{_module}")

LIMIT_S = 60
"""Seconds after which a check is given up."""


def check_method(name: str, only: Sequence[str] = ()) -> Iterator[Result]:
    """Run the conformance suite (or ``only`` some checks) on a registered method.

    Raises BenchError if the method cannot be checked at all: it is unknown, a module that it
    needs is missing, or it does not do the task of the data at hand.
    """
    for each in only:
        if each not in CHECKS:
            raise BenchError(f"unknown check {each!r}: {did_you_mean(each, CHECKS)}")
    subject = MethodFixture(name)
    for module in subject.method_class.preload:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise BenchError(
                f"method {name!r} needs module {module}, which cannot be imported: "
                f"{type(error).__name__}: {error}; install it, or see 'bench doctor'"
            ) from error
    if "classification" not in subject.method_class.tasks:
        raise BenchError(
            f"method {name!r} does {', '.join(subject.method_class.tasks)}; the checks run on "
            f"{SCENARIO}, which is classification"
        )
    with as_in_a_run():
        setting()
    for each in only or CHECKS:
        yield _run(CHECKS[each], subject)


def methods_of_file(path: str | Path) -> list[str]:
    """Names of the methods that a Python file registers; the file becomes a plugin if need be."""
    file = Path(path).resolve()

    def found() -> list[str]:
        entries = registry.entries("method").values()
        return [e.name for e in entries if e.file is not None and e.file.resolve() == file]

    names = found()
    if not names:
        registry.add_plugin(path)
        names = found()
    if not names:
        raise BenchError(
            f"{path}: registers no method; decorate a subclass of Method with "
            '@register("method", "name")'
        )
    return names


def _run(check: Check, subject: MethodFixture) -> Result:
    did = why = ""
    clock = time.perf_counter()
    try:
        with as_in_a_run(), _limit(LIMIT_S):
            did = check.function(subject)
    except CheckFailed as broken:
        why = " ".join(str(broken).split())
    except BenchError as error:
        why = str(error)
    except Exception as error:
        why = _explained(error, subject.entry.file)
    seconds = time.perf_counter() - clock
    return Result(subject.name, check.name, not why, did, why, seconds)


def _explained(error: Exception, file: Path | None) -> str:
    """An unexpected exception with the place in the method's file where it passed last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if file and Path(f.filename).resolve() == file.resolve()]
    frame = (own or frames)[-1]
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """Raise `CheckFailed` after some seconds; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(_: int, frame: FrameType | None) -> None:
        raise CheckFailed(
            f"did not end within {seconds} s: adapt must return when window.closed, and loop over "
            "no endless stream"
        )

    earlier = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
