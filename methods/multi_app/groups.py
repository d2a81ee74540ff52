"""What is known of applications that have one foundation model: costs, and accuracies to expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .estimate import Calibration
from .retraining import Profile
from .routing import Owner
from .simulate import Levels


@dataclass
class Group:
    """Applications that started from one foundation model, and so share what its parts are worth.

    ``name``: in kinds of steps and in records; empty where all applications are of one group.
    ``members``: their numbers, rising. ``expected``: of simulated retrainings, if there were some;
    ``profile``: of the first window in which one of them had samples.
    """

    name: str
    members: list[int]
    calibration: Calibration
    expected: Levels | None = None
    profile: Profile | None = None

    def costs(self) -> Profile:
        """The profile, which there is by then."""
        assert self.profile is not None
        return self.profile

    def details(self) -> dict[str, Any]:
        """What a record tells of it."""
        return {} if self.expected is None else {"expected": asdict(self.expected)}


def members_by_model(owners: Sequence[Owner]) -> list[tuple[str, list[int]]]:
    """The name and members of each group: all applications, or each by itself."""
    if any(owner.form is not None for owner in owners):
        return [(f"app{owner.number}", [owner.number]) for owner in owners]
    return [("", [owner.number for owner in owners])]
