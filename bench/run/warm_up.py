"""What a process does once for all runs that it will fork, so that none of them does it again."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from bench import registry
from bench.records.environment import environment
from bench.registry.code_files import counts, installed_plugin
from bench.registry.discovery import scan_project


def warm_up() -> None:
    """Find the components, read what is installed, and import the core's own if torch is imported.

    All of it is as old as the code of the core in this process. What may change between runs is
    left to them: plugins, the code and data that a cell names, device profiles. Starts no thread.
    """
    registry.entries("method")
    scan_project()
    here = Path(__file__)
    counts(here)
    installed_plugin(here)
    environment()
    if "torch" in sys.modules:
        for kind in ("task", "protocol"):
            for each in registry.entries(kind).values():
                if each.origin == "bench":
                    importlib.import_module(each.module)
