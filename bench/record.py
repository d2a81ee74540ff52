"""Records: what a run leaves, whatever way it ends."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import pydantic

from bench.cell import Cell

SCHEMA_VERSION: Final = 1

Status = Literal["ok", "failed", "oom", "timeout", "unsupported", "interrupted"]
FAILURES = ("failed", "timeout", "interrupted")


class _Strict(pydantic.BaseModel, extra="forbid", allow_inf_nan=False):
    pass


class Amount(_Strict):
    """A cost with how it is known: ``measured``, ``modelled`` or ``unavailable`` (value None)."""

    value: float | None
    unit: str
    kind: Literal["measured", "modelled", "unavailable"]
    how: str

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Amount:
        if (self.value is None) != (self.kind == "unavailable"):
            raise ValueError("an unavailable amount has no value, and only that one")
        return self


class DomainResult(_Strict):
    """One target domain: accuracies in [0, 1] on its test split, and the cost of adapting.

    ``before``: on arrival; ``after``: once adapted; ``final``: at the end of the stream.
    ``window_closed``: the window ended adaptation, not the method.
    """

    name: str
    before: float
    after: float
    final: float
    adaptation_samples: int
    test_samples: int
    steps: int
    time_s: float
    energy_j: float | None
    window_closed: bool


class Costs(_Strict):
    """The bill: adaptation over the whole stream, memory, and the price of one prediction.

    ``peak_memory`` counts above the runtime's own share, which is ``runtime_memory``.
    """

    adaptation_time: Amount
    adaptation_energy: Amount
    peak_memory: Amount
    runtime_memory: Amount
    source_storage: Amount
    inference_time: Amount
    inference_energy: Amount
    steps: dict[str, int]
    flops: float | None
    bytes: float | None
    launches: float | None
    tracing_s: float


class Results(_Strict):
    """Accuracies along the stream and the bill."""

    source_before: float
    source_after: float
    domains: list[DomainResult]
    costs: Costs

    def mean(self, key: Literal["before", "after", "final"]) -> float:
        """Mean accuracy over the domains."""
        return sum(getattr(d, key) for d in self.domains) / len(self.domains)

    @property
    def forgetting(self) -> float:
        """Mean of (after - final) over all domains but the last: positive means forgotten.

        Chaudhry et al., ECCV 2018, with the accuracy right after adaptation as the reference.
        """
        earlier = self.domains[:-1]
        return sum(d.after - d.final for d in earlier) / len(earlier) if earlier else 0.0


class MethodFacts(_Strict):
    """What a reader needs to know about the method beside its name."""

    family: str
    provenance: str
    paper: str
    needs: list[str]
    changed: dict[str, Any]


class Record(_Strict):
    """One run. Its file is named by the cell's identity."""

    schema_version: Literal[1] = SCHEMA_VERSION
    identity: str = pydantic.Field(pattern=r"^[0-9a-f]{20}$")
    run: str
    suite: str
    status: Status
    reason: str = ""
    oom_on: Literal["device", "host"] | None = None
    cell: Cell
    method: MethodFacts
    started: str
    wall_s: Annotated[float, pydantic.Field(ge=0)]
    attempt: int = 1
    log: str = ""
    environment: dict[str, Any] = {}
    source_model: str = ""
    results: Results | None = None

    @property
    def is_failure(self) -> bool:
        """Whether something went wrong, as against a result such as out of memory on the device."""
        return self.status in FAILURES or (self.status == "oom" and self.oom_on == "host")
