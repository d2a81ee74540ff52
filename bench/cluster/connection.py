"""A board by plain OpenSSH: commands there, files to and fro, and what failed in one line."""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from bench.cluster.boards import Board
from bench.errors import BenchError
from bench.io.one_line import one_line

CONNECT_S, ALIVE_S, ALIVE_COUNT = 10, 5, 3
"""Until a host that does not answer is given up: at first, and when it falls silent."""
LOST = 255
"""ssh's exit code for an error of its own."""
TRANSFER_S = 600.0
PYTHON = "name Python there: 'bench board add NAME {target} --python PATH'"
CURES = (
    ("Could not resolve", "check the name, or give its address to 'bench board add'"),
    ("Connection refused", "start sshd there, or name its port in ssh's configuration file"),
    ("timed out", "switch it on, and check the network"),
    ("No route to host", "switch it on, and check the network"),
    ("Network is unreachable", "switch it on, and check the network"),
    ("Permission denied", "its key is missing there: 'ssh-copy-id {target}'"),
    ("IDENTIFICATION HAS CHANGED", "if the board was set up anew: 'ssh-keygen -R {target}'"),
    ("Host key verification failed", "log in once by hand: 'ssh {target}'"),
    ("No space left on device", "its disk is full: free space in {folder}"),
    ("Disk quota exceeded", "its quota is used up: free space in {folder}"),
    ("not found", PYTHON),
    ("No such file or directory", PYTHON),
)  # fmt: skip
"""What ssh, the shell and tar say, and what to do; the first that fits."""


class ConnectionLost(BenchError):
    """ssh itself failed: the board may be reached later."""


class Connection:
    """Commands on a board, each in a session of its own; no password is ever asked for."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def command(self, arguments: Sequence[str]) -> list[str]:
        """ssh, so that ``arguments`` run there; those that begin with ``~/`` lie in its home."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_S,
            "ServerAliveInterval": ALIVE_S,
            "ServerAliveCountMax": ALIVE_COUNT,
        }
        given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        config = ["-F", self.board.ssh_config] if self.board.ssh_config else []
        there = " ".join(map(_quoted, arguments))
        return ["ssh", "-T", *config, *given, "--", self.board.target, f"exec {there}"]

    def run(
        self, arguments: Sequence[str], given: bytes = b"", timeout_s: float = TRANSFER_S
    ) -> bytes:
        """The output of a command there, with ``given`` as its input; BenchError if it fails."""
        try:
            done = subprocess.run(
                self.command(arguments), input=given, capture_output=True, timeout=timeout_s
            )
        except FileNotFoundError as error:
            raise BenchError("ssh is not installed here: install OpenSSH's client") from error
        except subprocess.TimeoutExpired as error:
            raise ConnectionLost(self._told(f"no answer within {timeout_s:g} s")) from error
        if done.returncode:
            raise self.failure(done.returncode, done.stderr.decode(errors="replace"))
        return done.stdout

    def failure(self, code: int, said: str) -> BenchError:
        """What failed there, in one line with the cure."""
        lines = [line for line in said.splitlines() if line.strip()]
        known = [(text, cure) for text, cure in CURES if text in said]
        text, cure = known[0] if known else ("", "")
        line = next((line for line in lines if text in line), f"exit code {code}")
        if not known and lines:
            line = lines[-1]
        target, folder = self.board.target, self.board.folder
        cure = cure.format(target=target, folder=folder)
        told = self._told(line.strip() + (f": {cure}" if cure else ""))
        return ConnectionLost(told) if code == LOST else BenchError(told)

    def put(self, folder: str, files: Iterable[tuple[str, Path | bytes]]) -> None:
        """Write files into a folder there, which is made; names are relative to it."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files:
                data = content if isinstance(content, bytes) else content.read_bytes()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
        script = 'mkdir -p "$1" && exec tar -xf - -C "$1"'
        self.run(["sh", "-c", script, "sh", folder], packed.getvalue())

    def fetch(self, folder: str, into: Path) -> None:
        """Copy what a folder there holds: plain files alone, each inside ``into``."""
        packed = self.run(["sh", "-c", 'exec tar -cf - -C "$1" .', "sh", folder])
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for entry in archive:
                parts = PurePosixPath(entry.name).parts
                if entry.isfile() and ".." not in parts and not entry.name.startswith("/"):
                    path = into.joinpath(*parts)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stream = archive.extractfile(entry)
                    path.write_bytes(b"" if stream is None else stream.read())

    def _told(self, what: str) -> str:
        return one_line(f"board {self.board.name} ({self.board.target}): {what}", 400)


def _quoted(argument: str) -> str:
    """For the shell there, which expands ``~/`` alone."""
    if argument.startswith("~/"):
        return f'"$HOME"/{shlex.quote(argument[2:])}'
    return shlex.quote(argument)
