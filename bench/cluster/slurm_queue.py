"""Slurm's commands: what they are asked, and what their answers say.

They are called directly and not through submitit. A task here is one command and the store has its
result, so that submitit's pickled functions and results are of no use. What is needed it does not
have: the names of jobs are known before they are submitted, and so a command that was killed in
between is found again; sites without an accounting database, where ``sacct`` answers nothing; and
PREEMPTED as a state after which a run is made again.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from bench.errors import BenchError
from bench.io.one_line import one_line

ANSWER_S = 60.0
"""Longest that a command of Slurm may take."""
KEPT_DAYS = 30
"""Age of a job that is still asked for by its name."""
KEPT_S = 3.0
"""How long an answer about all of the queue is used again."""
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
)  # fmt: skip
"""States in which a task has ended; all others are on their way to one."""


@dataclass(frozen=True)
class Final:
    """How a task ended: ``state`` as Slurm names it, ``code`` and ``signal`` of its process, and
    what else is known of ``why``.
    """

    state: str
    code: int = 0
    signal: int = 0
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"{self.state}, {self.why}"
        if self.signal:
            return f"{self.state}, killed by signal {self.signal}"
        return f"{self.state}, exit code {self.code}" if self.code else self.state


def submit(arguments: Sequence[str]) -> int:
    """Submit a job; its number. BenchError with what ``sbatch`` says if it refuses."""
    if shutil.which("sbatch") is None:
        raise BenchError(
            "executor 'slurm': there is no sbatch on this machine; give the command on a login "
            "node of the cluster, or take executor 'processes'"
        )
    done = _call(["sbatch", "--parsable", *arguments])
    answer = re.match(r"(\d+)", done.stdout)
    if done.returncode or answer is None:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        said = one_line(" ".join(lines[-2:])).replace("sbatch: error: ", "")
        raise BenchError(
            f"executor 'slurm': the queue refuses: {said}; nothing was submitted by: "
            f"{shlex.join(['sbatch', *arguments])}"
        )
    return int(answer[1])


def waiting(names: Iterable[str] = (), within_s: float = ANSWER_S) -> dict[str, str] | None:
    """Tasks that wait, run or are being ended, as NAME_INDEX, and their state in words.

    ``names``: of jobs, all if there are none. None if the queue does not answer within so long.
    """
    chosen = [f"--name={','.join(names)}"] if names else []
    asked = ["squeue", "--noheader", "--array", "--format=%j|%K|%T|%r", *chosen]
    done = _call(asked, within_s)
    if done.returncode:
        return None
    found = {}
    for line in done.stdout.splitlines():
        name, _, rest = line.strip().partition("|")
        index, state, reason = [*rest.split("|"), "", ""][:3]
        if state not in ENDED:
            shown = state if reason in ("", "None") else f"{state}: {reason}"
            found[f"{name}_{index}"] = shown
    return found


def final_states(job: int) -> dict[int, Final]:
    """How the tasks of an array ended, by index, as far as anybody knows.

    ``sacct`` tells where the cluster keeps accounts, else ``scontrol``, for some minutes.
    """
    found = _accounted(f"--jobs={job}")
    done = _call(["scontrol", "--oneliner", "show", "job", str(job)])
    for line in done.stdout.splitlines() if not done.returncode else ():
        facts = dict(part.partition("=")[::2] for part in line.split())
        index, state, code = (facts.get(k, "") for k in ("ArrayTaskId", "JobState", "ExitCode"))
        found = _of(index, state, code) | found
    return found


def ended_states(name: str, within_s: float = ANSWER_S) -> dict[int, Final]:
    """As `final_states`, of a job by its name; nothing where the cluster keeps no accounts."""
    chosen = (f"--name={name}", f"--starttime=now-{KEPT_DAYS}days")
    return _accounted(*chosen, within_s=within_s)


def cancel(names: Iterable[str]) -> None:
    """Take jobs out of the queue, by their names; what runs gets SIGTERM, then SIGKILL."""
    for name in names:
        _call(["scancel", f"--name={name}"])


@cache
def cluster() -> str:
    """The name of the cluster that this machine belongs to, empty if it belongs to none."""
    return _config().get("ClusterName", "")


def states(tasks: Iterable[str], within_s: float) -> dict[str, str] | None:
    """What the queue says of tasks, named NAME_INDEX, as far as it knows them: of one that has
    ended what `ended_states` does, which is asked once. None if there is no answer within so long.
    """
    until = time.monotonic() + within_s
    found = look(within_s)
    if found is None:
        return None
    ended = [name for name in tasks if name not in found]
    for job in sorted({name.rpartition("_")[0] for name in ended if name not in _ended}):
        if (left := until - time.monotonic()) > 0:
            finals = ended_states(job, left)
            _ended.update({f"{job}_{index}": str(final) for index, final in finals.items()})
    return found | {name: _ended[name] for name in ended if name in _ended}


_ended: dict[str, str] = {}
"""How tasks ended, which does not change."""


@cache
def largest_array() -> int:
    """Most tasks of an array."""
    return max(int(_config().get("MaxArraySize", "1001")) - 1, 1)


class Look:
    """All of the queue, asked again after `KEPT_S`."""

    def __init__(self) -> None:
        self._asked = -1e9
        self._found: dict[str, str] | None = None

    def __call__(self, within_s: float = ANSWER_S) -> dict[str, str] | None:
        """As `waiting`."""
        if time.monotonic() - self._asked > KEPT_S:
            self._found, self._asked = waiting(within_s=within_s), time.monotonic()
        return self._found


look = Look()


def _accounted(*chosen: str, within_s: float = ANSWER_S) -> dict[int, Final]:
    asked = ["sacct", "--noheader", "--parsable2", "--allocations", *chosen]
    done = _call([*asked, "--format=JobID,State,ExitCode"], within_s)
    found: dict[int, Final] = {}
    for line in done.stdout.splitlines() if not done.returncode else ():
        name, state, code = [*line.split("|"), "", ""][:3]
        found.update(_of(name.partition("_")[2], state, code))
    return found


def _of(indices: str, state: str, code: str) -> dict[int, Final]:
    """One line of an answer: ``indices`` as 3 or [0-2,5%4], ``code`` as 0:9."""
    words = state.split()
    if not words or words[0].rstrip("+") not in ENDED:
        return {}
    number, _, signal = code.partition(":")
    final = Final(
        words[0].rstrip("+"),
        int(number) if number.isdecimal() else 0,
        int(signal) if signal.isdecimal() else 0,
    )
    found = {}
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", indices.partition("%")[0]):
        found.update(dict.fromkeys(range(int(first), int(last or first) + 1), final))
    return found


def _config() -> dict[str, str]:
    done = _call(["scontrol", "show", "config"])
    lines = (line.partition("=") for line in done.stdout.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _call(command: Sequence[str], within_s: float = ANSWER_S) -> subprocess.CompletedProcess[str]:
    """Run a command; one that is not there or does not answer counts as failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=within_s, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(command), 127, "", str(error))
