"""What a board needs before it can run anything: Python, this package's code, and its libraries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.cluster.boards import Board
from bench.cluster.connection import Connection
from bench.errors import BenchError

OLDEST = (3, 11)
LEAST_FREE = 200e6
"""Bytes on the disk below which nothing is started."""
FACTS = """\
import json, os, platform, shutil, sys
folder = sys.argv[1]
while not os.path.isdir(folder):
    folder = os.path.dirname(folder) or "."
memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
print(json.dumps({"python": list(sys.version_info[:3]), "executable": sys.executable,
    "machine": platform.machine(), "cores": os.cpu_count(), "memory": memory,
    "free": shutil.disk_usage(folder).free, "folder": os.path.abspath(sys.argv[1])}))
"""
LIBRARIES = """\
import json, torch, bench.execute.work
print(json.dumps({"torch": torch.__version__, "cuda": torch.cuda.is_available()}))
"""


@dataclass(frozen=True)
class Ready:
    """A board that can run jobs: its facts, and where code and other things lie there."""

    facts: dict
    folder: str
    code: str


def folder_of(board: Board) -> str:
    """The board's folder, as commands there name it."""
    return board.folder if board.folder.startswith("/") else f"~/{board.folder}"


def ready(connection: Connection) -> Ready:
    """Look at a board and bring the code along; BenchError with the cure if it cannot run jobs."""
    board = connection.board
    asked = ["-c", FACTS, folder_of(board)]
    facts = json.loads(connection.run([board.python, *asked], timeout_s=60).splitlines()[-1])
    version = ".".join(map(str, facts["python"]))
    if tuple(facts["python"][:2]) < OLDEST:
        raise BenchError(
            f"board {board.name}: Python {version} there, and this package needs "
            f"{OLDEST[0]}.{OLDEST[1]}: name another by --python, or measure the board by "
            "'bench device probe'"
        )
    if facts["free"] < LEAST_FREE:
        raise BenchError(
            f"board {board.name}: its disk has {facts['free'] / 1e6:.0f} MB free: free "
            f"{LEAST_FREE / 1e6:.0f} MB for {facts['folder']}"
        )
    files = list(_package_files())
    code = f"{facts['folder']}/code/{_digest(files)}"
    complete = f"{code}/complete"
    have = connection.run(["sh", "-c", 'test -e "$1" && echo yes || echo no', "sh", complete])
    if have.strip() != b"yes":
        connection.put(code, files)
        connection.put(code, [("complete", b"")])
    asked = ["env", f"PYTHONPATH={code}", board.python, "-P", "-c", LIBRARIES]
    try:
        answer = connection.run(asked, timeout_s=300)
    except BenchError as error:
        if "No module named" not in str(error):
            raise
        module = str(error).rpartition("No module named ")[2].strip("'")
        raise BenchError(
            f"board {board.name}: {board.python} there has no {module}: install what the project "
            f"needs, as 'ssh {board.target} {board.python} -m pip install {module}'"
        ) from error
    return Ready(facts | json.loads(answer.splitlines()[-1]), facts["folder"], code)


def _package_files() -> Iterator[tuple[str, Path]]:
    """The package as it lies here, with its rooms, which a checkout has elsewhere."""
    import importlib

    rooms = ("datasets", "methods", "models", "reports")
    roots = {
        f"bench/{room}": importlib.import_module(f"bench.{room}").__path__[0] for room in rooms
    }
    roots["bench"] = str(Path(__file__).parents[1])
    for name, root in sorted(roots.items()):
        folder = Path(root)
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            skipped = "__pycache__" in inner.parts or (name == "bench" and inner.parts[0] in rooms)
            if path.is_file() and not skipped:
                yield f"{name}/{inner.as_posix()}", path


def _digest(files: list[tuple[str, Path]]) -> str:
    found = hashlib.sha256()
    for name, path in files:
        found.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:20]
