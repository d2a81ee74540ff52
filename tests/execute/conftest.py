"""The folder in which commands run, with a cache that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from workplace import Workplace


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def workplace(tmp_path, shared_cache) -> Workplace:
    return Workplace(tmp_path, shared_cache)
