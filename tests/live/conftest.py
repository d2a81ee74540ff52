"""The records that tests of reports make by hand, for stores that grow."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.store import Store


@pytest.fixture(scope="session")
def reports() -> Any:
    """The module with ``make_record`` and ``NASTY``."""
    file = Path(__file__).parents[1] / "reports" / "conftest.py"
    spec = importlib.util.spec_from_file_location("records_of_reports", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., Store]:
    """Makes the store ``tmp_path / "store"`` of records."""

    def made(*records: Any) -> Store:
        store = Store(tmp_path / "store")
        store.records.mkdir(parents=True, exist_ok=True)
        for record in records:
            store.write(record)
        return store

    return made
