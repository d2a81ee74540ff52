"""Run the imports of a plugin so that whatever it does there ends in its module or in one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType

from bench.errors import BenchError


@contextmanager
def foreign_import(where: str, cure: str = "") -> Iterator[None]:
    """BenchError that begins with ``where`` for whatever is raised inside, `SystemExit` too.

    The directory, the arguments and the standard streams are afterwards what they were, and what
    is printed goes to standard error. Ctrl-C and a handled SIGTERM stay what they are.
    """
    folder, mask = _folder(), os.umask(0o022)
    os.umask(mask)
    kept = sys.argv[:], sys.stdout, sys.stderr
    pressed: list[int] = []
    with _interrupts(pressed):  # around the whole: a stop is never taken for the plugin's own
        try:
            with redirect_stdout(sys.stderr):
                yield
        except BenchError:
            raise
        except SystemExit as error:
            raise BenchError(
                f"{where}: it ends Python while it is imported (exit {error.code!r}); remove that, "
                "or put it below if __name__ == '__main__'"
            ) from error
        except BaseException as error:
            if pressed:
                raise
            raise BenchError(f"{where}: {type(error).__name__}: {error}{cure}") from error
        finally:
            sys.argv, sys.stdout, sys.stderr = kept
            os.umask(mask)
            if folder is not None and _folder() != folder:
                os.chdir(folder)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


@contextmanager
def _interrupts(pressed: list[int]) -> Iterator[None]:
    """Note a stop in ``pressed``: a plugin may raise `KeyboardInterrupt` of its own.

    SIGTERM too, which a task of a queue is stopped by: where it has a handler.
    """
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in earlier.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}

    def stopped(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        handlers[signal.Signals(number)](number, frame)

    try:
        for number in handlers:
            signal.signal(number, stopped)
        yield
    finally:
        for number, handler in handlers.items():
            if not pressed or signal.getsignal(number) is stopped:  # a stop may set its own
                signal.signal(number, handler)
