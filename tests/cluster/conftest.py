"""The server that tests of boards log in to."""

from __future__ import annotations

from loopback_sshd import sshd  # noqa: F401 (a fixture)
