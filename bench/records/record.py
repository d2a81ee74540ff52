"""Records: what is stored of a run, however it ends."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import pydantic

from bench.io.one_line import one_line
from bench.records.cell import Cell, SettingsOrigin

SCHEMA_VERSION: Final = 2

Status = Literal["ok", "failed", "oom", "timeout", "unsupported", "interrupted"]
FAILURES = ("failed", "timeout", "interrupted")

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
"""An accuracy, or another share."""
Number = Annotated[float, pydantic.Field(ge=-1e30, le=1e30)]
"""Far beyond every cost, and small enough that sums and squares of it stay finite."""
Count = Annotated[int, pydantic.Field(ge=0, le=2**53)]
Seconds = Annotated[float, pydantic.Field(ge=0, le=1e30)]


class _Strict(pydantic.BaseModel, extra="forbid", allow_inf_nan=False):
    pass


class Amount(_Strict):
    """A cost with how it is known.

    Attributes
    ----------
    value : in ``unit``; None where it is unavailable
    unit : s, J, B (bytes), s/sample or J/sample
    kind : how it is known
    how : the instrument, the device profile, or the reason why it is unavailable
    """

    value: Number | None
    unit: str
    kind: Literal["measured", "modelled", "unavailable"]
    how: str

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Amount:
        if (self.value is None) != (self.kind == "unavailable"):
            raise ValueError("an unavailable amount has no value, and only that one")
        return self


class Metric(_Strict):
    """What the scores of a run are; the accuracy in records from before there were others.

    Attributes
    ----------
    name : as "mean-iou"
    title : for readers, as "mean IoU"
    unit : "%" for shares, which records hold in [0, 1]
    higher_is_better : the direction
    lowest, highest : the range; no bound where ``highest`` is None
    of_samples : whether it is a mean over samples, so that domains may be averaged by their sizes
    """

    name: str = "accuracy"
    title: str = "accuracy"
    unit: str = "%"
    higher_is_better: bool = True
    lowest: Number = 0.0
    highest: Number | None = 1.0
    of_samples: bool = True

    def named_in(self, text: str) -> str:
        """``text`` that speaks of the accuracy, with this metric's title in its place."""
        if self.title == "accuracy":
            return text
        initial = self.title[0] if self.title[1:2].isupper() else self.title[0].upper()  # mAP
        titles = {"A": initial + self.title[1:], "a": self.title}
        # Names that the literature gave to means of accuracies stay.
        named = r"(?<!prequential )(?<!incremental )\b([Aa])ccuracy\b"
        return re.sub(named, lambda found: titles[found[1]], text)


def further_field(metric: str, when: str) -> str:
    """The name of a further metric in `DomainScores`; ``when``: before, after or final."""
    return f"{metric}_{when}".replace("-", "_")


class DomainScores(_Strict, extra="allow"):
    """One target domain, the same on all devices: the metric, in [0, 1], on its test split.

    ``before``: on arrival; ``after``: once adapted; ``final``: at the end of the stream;
    ``online``: on the stream itself, each batch predicted before it is adapted to (prequential
    accuracy, Gama et al., Machine Learning 2013), None under other protocols; ``adapted``: share
    of the stream's batches that were adapted on where it does not wait, None elsewhere.
    ``window_closed``: the window ended adaptation, not the method.

    Further numbers have names of their own: a protocol may measure what has no field, and
    the task's further metrics on the test split are ``NAME_before``, ``NAME_after`` and
    ``NAME_final``, in their own units.
    """

    __pydantic_extra__: dict[str, Number]

    name: str
    before: Share
    after: Share
    final: Share
    online: Share | None = None
    adapted: Share | None = None
    adaptation_samples: Count
    test_samples: Count
    window_closed: bool

    def measure(self, name: str, value: float | None) -> None:
        """Record a number that has no field of its own; None takes it back."""
        if value is None:
            self.__pydantic_extra__.pop(name, None)
        else:
            self.__pydantic_extra__[name] = value

    def get(self, name: str) -> float | None:
        """A number recorded by `measure`, None in records that do not have it."""
        return self.__pydantic_extra__.get(name)

    def further(self, metric: str, when: str) -> float | None:
        """A further metric of the task; None where it was not recorded or is not defined."""
        return self.get(further_field(metric, when))


class DomainResult(DomainScores):
    """One target domain on one device: scores, and what adapting took."""

    steps: Count
    time_s: Seconds
    energy_j: Number | None


class ProfileError(_Strict):
    """How far modelled costs are off, as the device's profile stated it when the run was made:
    absolute errors as shares, in the median, None where unknown; and their source.
    """

    time: Number | None = None
    memory: Number | None = None
    energy: Number | None = None
    source: str


class Costs(_Strict, extra="allow"):
    """Adaptation over the whole stream, memory, and the cost of one prediction.

    ``peak_memory`` counts above the runtime's own share, which is ``runtime_memory``: live memory
    where it is modelled, resident memory where it is measured. ``resident_memory``: what the
    process takes at its peak, above the runtime too; None in records from before it was known.
    ``source_storage``: bytes of source data that the method keeps on the device. ``steps``: by
    kind. ``time_by_kind``: seconds of ``adaptation_time`` by kind of step or section; None in
    records from before it was kept. ``flops``, ``bytes`` and ``launches``: counted, of the whole
    stream; None where costs are measured. ``tracing_s``: seconds that counting took here.
    ``uncounted``: operators and other work that no count holds; where there are any, time, energy
    and operations are lower bounds. ``profile_error``: of modelled costs, left out where the
    profile states none.
    Further amounts have names of their own: `bench.run.results` may add a cost without a field.
    """

    __pydantic_extra__: dict[str, Amount]

    adaptation_time: Amount
    adaptation_energy: Amount
    peak_memory: Amount
    runtime_memory: Amount
    resident_memory: Amount | None = None
    source_storage: Amount
    inference_time: Amount
    inference_energy: Amount
    steps: dict[str, Count]
    time_by_kind: Annotated[
        dict[str, Seconds] | None, pydantic.Field(exclude_if=lambda told: told is None)
    ] = None
    flops: Number | None
    bytes: Number | None
    launches: Number | None
    tracing_s: Number
    uncounted: list[str] = []
    profile_error: Annotated[
        ProfileError | None, pydantic.Field(exclude_if=lambda told: told is None)
    ] = None

    @pydantic.model_validator(mode="after")
    def _whole_time(self) -> Costs:
        if self.time_by_kind is None:
            return self
        found, told = sum(self.time_by_kind.values()), self.adaptation_time.value
        if told is None or not math.isclose(found, told, rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(f"time_by_kind adds up to {found:g} s, adaptation_time is {told} s")
        if unknown := self.time_by_kind.keys() - self.steps.keys():
            raise ValueError(f"time_by_kind has the kind {min(unknown)!r}, of which steps has none")
        return self

    def get(self, name: str) -> Amount | None:
        """A further amount by its name, None in records that do not have it."""
        return self.__pydantic_extra__.get(name)

    @property
    def needed_memory(self) -> Amount:
        """What decides whether a device suffices: resident memory where it is known, else peak."""
        resident = self.resident_memory
        return self.peak_memory if resident is None or resident.value is None else resident


class StreamScores(_Strict):
    """The metric, in [0, 1], on the source and between domains, the same on all devices of a run.

    Other texts here say accuracy for it. ``matrix``: where the protocol evaluates all,
    ``R[i][j]`` is the accuracy on domain j after domain i was learned, with the source as domain 0:
    row 0 is before the stream, and so there are T + 1 rows and columns for T target domains.
    ``source_samples`` and each domain's ``test_samples`` weigh its columns. ``further_metrics``:
    those that domains have besides.
    """

    metric: Metric = Metric()
    further_metrics: list[Metric] = []
    source_before: Share
    source_after: Share
    source_samples: Count = 0
    matrix: list[list[Share]] | None = None


class Results(StreamScores):
    """Accuracies along the stream, and costs."""

    domains: list[DomainResult]
    costs: Costs

    @pydantic.model_validator(mode="after")
    def _whole_matrix(self) -> Results:
        if self.matrix is None:
            return self
        size = len(self.domains) + 1
        if [len(row) for row in self.matrix] != [size] * size:
            raise ValueError(f"the matrix of {size - 1} domains has {size} rows and columns")
        if size > 1 and not self.source_samples + self.domains[0].test_samples:
            raise ValueError("a matrix needs the numbers of test samples")
        return self

    def mean(self, key: Literal["before", "after", "final"]) -> float:
        """Mean accuracy over the domains."""
        return sum(getattr(d, key) for d in self.domains) / len(self.domains)

    def mean_of(self, name: str) -> float | None:
        """Mean over the domains of what a protocol recorded by `DomainScores.measure`."""
        return _mean(d.get(name) for d in self.domains)

    def further(self, metric: str, when: str = "after") -> float | None:
        """Mean over the domains of a further metric, in its unit; None unless all have it."""
        values = [d.further(metric, when) for d in self.domains]
        return None if None in values else _mean(values)

    @property
    def online(self) -> float | None:
        """Mean accuracy on the streams of an online protocol, None under others."""
        return _mean(d.online for d in self.domains)

    @property
    def adapted(self) -> float | None:
        """Mean share of the batches that were adapted on under online-timed, None elsewhere."""
        return _mean(d.adapted for d in self.domains)

    def seen(self, stage: int) -> float | None:
        """Accuracy over all test samples of the source and the first ``stage`` domains, after
        domain ``stage``; where domains bring disjoint classes, that over all classes seen so far.
        """
        if self.matrix is None:
            return None
        sizes = [self.source_samples, *(d.test_samples for d in self.domains)][: stage + 1]
        row = self.matrix[stage][: stage + 1]
        return sum(n * r for n, r in zip(sizes, row, strict=True)) / sum(sizes)

    @property
    def seen_at_end(self) -> float | None:
        """Accuracy over everything seen, at the end of the stream."""
        return self.seen(len(self.domains))

    @property
    def seen_on_average(self) -> float | None:
        """Mean over the stages of the accuracy over everything seen ("average incremental
        accuracy", Rebuffi et al., CVPR 2017), the source alone not counted.
        """
        if self.matrix is None:
            return None
        stages = range(1, len(self.domains) + 1)
        return sum(self.seen(i) or 0.0 for i in stages) / len(stages)

    @property
    def forgetting(self) -> float:
        """How much accuracy on earlier domains was lost by the end; positive means forgotten.

        With a matrix, Chaudhry et al., ECCV 2018: the mean over the source and all domains j but
        the last of max over i from j to T - 1 of R[i][j], less R[T][j]. Without, the reference is
        the accuracy right after adaptation: the mean of (after - final), the source not counted.
        """
        if self.matrix is not None:
            last = len(self.domains)
            lost = [
                max(row[j] for row in self.matrix[j:last]) - self.matrix[last][j]
                for j in range(last)
            ]
            return sum(lost) / len(lost)
        return -self.backward_transfer

    @property
    def backward_transfer(self) -> float:
        """Influence of later learning on earlier domains, Lopez-Paz & Ranzato, NeurIPS 2017.

        The mean of R[T][j] - R[j][j] over the source and all domains j but the last; without a
        matrix, of (final - after), the source not counted.
        """
        if self.matrix is not None:
            last = len(self.domains)
            gained = [self.matrix[last][j] - self.matrix[j][j] for j in range(last)]
            return sum(gained) / len(gained)
        earlier = self.domains[:-1]
        return sum(d.final - d.after for d in earlier) / len(earlier) if earlier else 0.0

    @property
    def forward_transfer(self) -> float | None:
        """Influence of earlier learning on domains not seen yet, Lopez-Paz & Ranzato, 2017.

        The mean over domains j from the second of R[j - 1][j] - R[0][j]: the deployed source model
        stands in the place of the paper's random initialisation. None without a matrix or with
        one domain.
        """
        if self.matrix is None or len(self.domains) < 2:
            return None
        later = range(2, len(self.domains) + 1)
        return sum(self.matrix[j - 1][j] - self.matrix[0][j] for j in later) / len(later)

    @property
    def score(self) -> float:
        """The one number by which methods are compared: accuracy over everything seen at the end
        where a matrix is known, online accuracy under an online protocol, else the mean ``after``.
        """
        for known in (self.seen_at_end, self.online):
            if known is not None:
                return known
        return self.mean("after")


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of those that are known, None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


class MethodFacts(_Strict):
    """What a reader needs to know about the method besides its name.

    ``changed``: the settings that differ from the method's defaults; ``settings_origin``: where
    they come from, "none" if the method has nothing to tune.
    """

    family: str
    provenance: str
    paper: str
    needs: list[str]
    changed: dict[str, Any]
    settings_origin: SettingsOrigin | Literal["none"] = pydantic.Field(
        "default", validation_alias=pydantic.AliasChoices("settings_origin", "settings")
    )


def _cleaned(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) else value


class Record(_Strict):
    """One run. Its file is named by the cell's identity.

    Attributes
    ----------
    identity : 20 hexadecimal characters, a digest of the cell's content
    run : the process that made the record, which names its log too
    suite : by which the cell was run; not part of the identity
    status : how the run ended
    reason : why, where the status is not ``ok``, as `one_line`
    oom_on : where memory ran out: on the modelled ``device`` (a result) or on the ``host``
    cell : what was run
    method : what readers of a table need to know about the method
    started : time of day in UTC, ISO 8601
    wall_s : seconds that the run took here
    attempt : 1 for the first run of the cell
    log : the run's output, relative to the store
    environment : versions, machine and commit
    source_model : digest of the weights that the run started from
    results : None where there are none
    details : what the method tells of the run (`bench.contracts.method.Method.details`); left out
        where it tells nothing
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    identity: str = pydantic.Field(pattern=r"^[0-9a-f]{20}$")
    run: str
    suite: str
    status: Status
    # Text of an exception or of a process that died: cleaned here, for all that show it.
    reason: Annotated[str, pydantic.BeforeValidator(_cleaned)] = ""
    oom_on: Literal["device", "host"] | None = None
    cell: Cell
    method: MethodFacts
    started: str
    wall_s: Seconds
    attempt: Count = 1
    log: str = ""
    environment: dict[str, Any] = {}
    source_model: str = ""
    results: Results | None = None
    details: dict[str, Any] = pydantic.Field({}, exclude_if=lambda told: not told)

    @property
    def is_failure(self) -> bool:
        """Whether something went wrong, as against a result such as out of memory on the device."""
        return self.status in FAILURES or (self.status == "oom" and self.oom_on == "host")
