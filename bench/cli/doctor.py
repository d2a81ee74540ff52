"""``bench doctor``: whether this installation can run, and the cure where it cannot."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import typer

from bench.io.subprocess_call import ProcessEnded, call

PACKAGES = ("torch", "torchvision", "timm", "transformers", "avalanche", "sklearn", "seaborn")

CURES = {
    "torchvision::nms does not exist": (
        "torch and torchvision are of different builds (a CPU-only torch beside the PyPI "
        "torchvision, usually): install both from one index, as "
        "'pip install --force-reinstall torch torchvision', or both with "
        "'--index-url https://download.pytorch.org/whl/cpu'"
    ),
    "No module named": "install the project with its dependencies: 'pip install .'",
}


def command() -> None:
    """Check packages and folders; print one line each, with the cure of what is wrong."""
    sound = True
    for package in PACKAGES:
        sound &= _line(package, *_import(package))
    sound &= _line("cache folder", *_cache())
    sound &= _line("rooms", *_rooms())
    _line("processor", True, f"{os.cpu_count()} cores")
    if not sound:
        raise typer.Exit(1)


def _line(name: str, good: bool, text: str) -> bool:
    typer.echo(f"{'ok ' if good else 'BAD'}  {name}: {text}")
    return good


def _import(package: str) -> tuple[bool, str]:
    """Import in a process of its own: a broken library must not break the doctor."""
    try:
        return True, call("bench.cli.doctor:version", package)
    except ProcessEnded as error:
        broken, stderr = error.last_line or "no message", error.stderr
    for symptom, cure in CURES.items():
        if symptom in stderr:
            return False, f"{broken} -- {cure}"
    return False, f"{broken} -- reinstall it: 'pip install --force-reinstall {package}'"


def version(package: str) -> str:
    """Import a package with the part of it that breaks first; its version."""
    module = importlib.import_module(package)
    if package == "torchvision":
        _ = module.ops.nms
    return str(getattr(module, "__version__", "installed"))


def _cache() -> tuple[bool, str]:
    from bench.io.weights_cache import cache_folder

    folder = cache_folder()
    probe = folder / ".probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return False, f"{folder}: {error.strerror} -- set BENCH_CACHE to a folder you can write"
    return True, str(folder)


def _rooms() -> tuple[bool, str]:
    from bench import registry
    from bench.errors import BenchError

    try:
        counts = {kind: len(registry.entries(kind)) for kind in registry.KINDS}
    except BenchError as error:
        return False, str(error)
    if broken := registry.broken_entry_points():
        return False, "; ".join(broken)
    here = Path(registry.__file__).parent
    return True, ", ".join(f"{n} {kind}s" for kind, n in counts.items()) + f" (code in {here})"
