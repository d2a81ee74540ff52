"""A Slurm that runs jobs as local processes, and the server that tests of boards log in to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_slurm import FakeSlurm
from loopback_sshd import sshd  # noqa: F401 (a fixture)


@pytest.fixture
def slurm(workplace, tmp_path, request) -> Iterator[FakeSlurm]:
    """Its parameter says whether tasks are cold."""
    fake = FakeSlurm(tmp_path / "slurm", getattr(request, "param", False))
    workplace.environment |= fake.environment
    yield fake
    fake.close()
