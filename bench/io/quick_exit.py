"""End a process without Python taking apart all that was imported: with torch half a second."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from bench.errors import BenchError


def run_and_exit(program: Callable[[], None]) -> NoReturn:
    """Run a program and end the process with its exit code.

    A BenchError is printed as one line, with exit code 2. What was registered with ``atexit`` is
    run, and what waits to be written is. Python ends the process as usual where threads are to be
    waited for, under a profiler or a debugger, and on any other exception or text to exit with.
    """
    code: object = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    except BenchError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        code = 2
    others = set(threading.enumerate()) - {threading.current_thread()}
    awaited = any(not thread.daemon for thread in others)
    if awaited or sys.gettrace() or sys.getprofile() or not isinstance(code, int | None):
        raise SystemExit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, not there
            stream.flush()
    os._exit(code or 0)
