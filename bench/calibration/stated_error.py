"""What ``bench device check`` found, as the ``error`` of the profile's own file.

Runs record it beside modelled costs, and tables say it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.calibration.validate import Report, verdicts
from bench.costs.device_profile import ModelledDevice, load_device
from bench.errors import BenchError
from bench.io.atomic_write import write_atomically

_BLOCK = re.compile(r"^(\"error\"|error):.*\n(?:(?:[ \t].*)?\n)*", re.MULTILINE)
"""The key ``error`` at the start of a line, and the lines below it that are not at the start."""


def file_of(device: ModelledDevice) -> Path:
    """The file of a profile that was given by its path; BenchError if it ships."""
    path = Path(device.name)
    if path.suffix not in (".yaml", ".yml"):
        raise BenchError(
            f"--state-error: {device.name} is no file of yours; check a copy, as my-board.yaml"
        )
    return path


def state_error(report: Report, device: ModelledDevice) -> Path:
    """Write the median errors of a check into the profile's file, in place of earlier ones.

    The rest of the file stays as it is, and so does the profile's digest. Raises BenchError if a
    case failed, or if the file cannot be written.
    """
    path = file_of(device)
    if report.results.failed or not report.rows:
        raise BenchError(
            f"--state-error: {len(report.results.failed)} cases failed, and {path} would not say "
            "so; leave them out with --models and --methods"
        )
    block = "\n".join(f"  {key}: {value}" for key, value in _content(report).items())
    try:
        before = path.read_text(encoding="utf-8")
        kept = _BLOCK.sub("", before.rstrip("\n") + "\n")
        write_atomically(path, f"{kept}error:\n{block}\n".encode())
        try:
            load_device(str(path))
        except BenchError as error:
            write_atomically(path, before.encode())
            raise BenchError(
                f"--state-error: {path} has no key a line to which 'error' can be added ({error})"
            ) from error
    except OSError as error:
        raise BenchError(f"--state-error: {path}: {error.strerror}; free it for writing") from error
    return path


def _content(report: Report) -> dict[str, str]:
    """Shares as numbers with a point, and the source."""
    found = verdicts(report.rows)
    worst = " and ".join(f"{v.worst:.1%} in {v.what} ({v.where})" for v in found)
    source = (
        f"bench device check: median absolute error of {len(report.rows)} steps, at worst {worst}; "
        f"memory is the process's. {_when_and_where(report.results.facts)}"
    )
    shares = {verdict.what: f"{verdict.median:.4f}" for verdict in found}
    return shares | {"source": json.dumps(source, ensure_ascii=False)}


def _when_and_where(facts: dict[str, Any]) -> str:
    """From the facts of the machine, of which an earlier file may lack some."""
    machine = facts.get("accelerator") or facts.get("processor")
    threads = f"with {facts['threads']} thread{'s' * (facts['threads'] != 1)}"
    parts = (facts.get("date"), machine and f"on {machine}", threads)
    return f"Measured {' '.join(str(part) for part in parts if part)}"
