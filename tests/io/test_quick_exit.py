"""How a program's process ends: with its code, with what is registered and written, and soon."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = "import atexit, sys, threading, time\nfrom bench.io.quick_exit import run_and_exit\n"


def ended(program: str) -> subprocess.CompletedProcess[str]:
    """A process that runs the body of a function so."""
    lines = "".join(f"    {line}\n" for line in program.splitlines())
    code = f"{START}def program():\n{lines}run_and_exit(program)"
    return subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(2)", 2),
        ("sys.exit('no')", 1),
        ("1 / 0", 1),
        ("from bench.errors import BenchError\nraise BenchError('x: is none')", 2),
    ],
)
def test_the_exit_code_is_the_programs(end, code) -> None:
    done = ended(end)
    assert done.returncode == code
    told = {"sys.exit('no')": "no", "1 / 0": "ZeroDivisionError"}.get(end, "")
    told = "bench: x: is none\n" if code == 2 and "raise" in end else told
    assert told in done.stderr
    assert bool(done.stderr) == bool(told)


def test_what_is_registered_is_run_and_what_waits_is_written() -> None:
    done = ended("atexit.register(print, 'registered')\nprint('told')\nsys.stderr.write('said')")
    assert done.stdout == "told\nregistered\n"
    assert done.stderr == "said"


def test_what_python_would_take_apart_is_left() -> None:
    """An object of a module tells when it is taken apart; a usual end of Python does so."""
    told = "def __del__(self): print('gone', flush=True)"
    kept = f"global kept\nclass Told:\n    {told}\nkept = Told()"
    assert ended(kept).stdout == ""
    waited = "threading.Thread(target=time.sleep, args=(0.3,)).start()"
    assert ended(f"{kept}\n{waited}").stdout == "gone\n"


def test_threads_are_waited_for() -> None:
    thread = "threading.Thread(target=lambda: (time.sleep(0.3), print('worked'))).start()"
    assert ended(thread).stdout == "worked\n"
    daemon = "threading.Thread(target=time.sleep, args=(50,), daemon=True).start()"
    assert ended(daemon).returncode == 0


def test_a_closed_pipe_is_no_traceback() -> None:
    done = ended("import os\nprint('lost')\nos.close(1)")
    assert (done.returncode, done.stderr) == (0, "")
