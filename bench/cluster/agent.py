"""What runs on a board for `bench.cluster.ssh`: one job under the board's lock.

``agent.py LOCK FOLDER WHO`` runs the job ``FOLDER/job.json``, or waits for it where an earlier call
has started it, and prints JSON, one object a line: ``{"busy": who}`` if another run has the board,
``{"started": pid}``, and at the end ``{"code": exit code}``. The run holds the lock itself. It is
killed by the line ``stop``, and when nobody has been connected for `ORPHAN_S`.
"""

import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ORPHAN_S = float(os.environ.get("BENCH_BOARD_ORPHAN_S", "180"))
POLL_S = 0.2
BUSY = 3


def tell(**said: object) -> None:
    """One line to whoever is connected, if somebody is."""
    with suppress(OSError):
        print(json.dumps(said), flush=True)


def main(lock: Path, folder: Path, who: str) -> int:
    """The exit code of this process: 0, or `BUSY`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lock.parent.mkdir(parents=True, exist_ok=True)
    if (folder / "pid").exists():
        return watch(folder, None)
    with lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held.seek(0)
            tell(busy=held.read().strip() or "another run")
            return BUSY
        held.truncate(0)
        held.write(who)
        held.flush()
        os.set_inheritable(held.fileno(), True)
        with (folder / "log").open("wb") as log:
            run = subprocess.Popen(
                [sys.executable, "-P", "-m", "bench.execute.work", str(folder / "job.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(held.fileno(),),
            )
    (folder / "pid").write_text(str(run.pid))
    tell(started=run.pid)
    return watch(folder, run)


def watch(folder: Path, run: "subprocess.Popen[bytes] | None") -> int:
    """Wait for the run: as its parent, which keeps its exit code, or as one that came later."""
    pid, code = int((folder / "pid").read_text()), folder / "code"
    connected, seen = True, time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            if run is not None and run.poll() is not None and not code.exists():
                (folder / "code.new").write_text(str(run.returncode))
                (folder / "code.new").rename(code)
            if code.exists():
                tell(code=int(code.read_text()))
                return 0
            if run is None and not alive(pid):
                time.sleep(POLL_S)
                tell(code=int(code.read_text()) if code.exists() else -signal.SIGKILL)
                return 0
            if connected and selector.select(POLL_S):
                said = os.read(sys.stdin.fileno(), 100)
                if said.startswith(b"stop"):
                    kill(pid)
                elif not said:
                    connected = False
                    selector.unregister(sys.stdin)
                    if run is None:  # its parent stays
                        return 0
            elif not connected:
                time.sleep(POLL_S)
            if connected:
                seen = time.monotonic()
                with suppress(OSError):
                    (folder / "connected").touch()
            elif recent(folder / "connected"):
                seen = time.monotonic()
            elif time.monotonic() - seen > ORPHAN_S:
                kill(pid)


def recent(file: Path) -> bool:
    """Whether another agent is connected."""
    with suppress(OSError):
        return abs(time.time() - file.stat().st_mtime) < 10 * POLL_S
    return False


def alive(pid: int) -> bool:
    """Whether the process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def kill(pid: int) -> None:
    """End the run with what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
