"""EdgeTA for several applications that share a device and its retraining window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field

from bench import BenchError, DomainView, FoundationModel, Method, Unsupported, Window, register
from bench.models.surgery.gates import set_sparsity
from bench.scheduling.application import Application
from bench.scheduling.baselines import Ekya
from bench.scheduling.problem import Plan, Problem, Solver, whole_iterations
from bench.scheduling.solvers import SOLVERS

from ..edgeta.config import EdgeTAConfig
from ..edgeta.method import EdgeTA
from ..edgeta.retraining import first_batch
from .estimate import calibrate, confidence, updated_half
from .feedback import joint_feedback
from .groups import Group, members_by_model
from .retraining import Retraining, make_proxy, profiled
from .routing import owners_in, prepared_with, routed_to, split
from .simulate import simulated_levels


class MultiAppConfig(EdgeTAConfig):
    """As `EdgeTAConfig`, for every application, and what a scheduler may choose.

    ``scheduler``: of `bench.scheduling`; that EdgeTA used scikit-opt's genetic algorithm is likely
    (the repair of plans that break a constraint is added here), and ekya and recl are simplified
    (see `bench.scheduling.baselines`); ``epochs``: most passes over an application's samples in one
    window; ``levels``: how many sparsities there are to choose from, evenly from ``min_sparsity``
    to ``max_sparsity``; ``sparsity``: that of the proxies before the first window; ``min_share``:
    of the device, that each application gets; ``memory_mb``: megabytes that the applications may
    take together while retraining. ``estimate``: where the accuracies come from that a scheduler
    plans by, ``simulated`` retrainings on shifted source data before deployment (`simulate`), or in
    each window the model's ``confidence`` (`estimate`), with ``half_iterations`` to half of the
    gain before any were seen: confidence predicts 84 % where 66 % is true, because alignment makes
    a model sure before it is right. ``ekya_fallback``: what Ekya pays where its profiling does not
    fit the window, see `bench.scheduling.baselines.Ekya`. Proxies are retrained whole and by the
    iteration: ``trained_share`` is 1, and ``iterations`` has no meaning.
    """

    scheduler: Literal["exact", "genetic", "greedy", "uniform", "ekya", "recl"] = "exact"
    epochs: int = Field(10, ge=1, le=100)
    levels: int = Field(4, ge=1, le=10)
    sparsity: float = Field(0.3, ge=0, lt=1)
    min_share: float = Field(0.05, gt=0, le=1)
    memory_mb: float = Field(4000.0, gt=0, le=1e6)
    estimate: Literal["simulated", "confidence"] = "simulated"
    half_iterations: float = Field(30.0, ge=1, le=1000)
    ekya_fallback: Literal["charged", "free"] = "charged"
    iterations: None = None
    trained_share: float = Field(1.0, ge=1, le=1)

    def grid(self) -> list[float]:
        """The sparsities to choose from, rising."""
        low, high = self.min_sparsity, self.max_sparsity
        steps = max(self.levels - 1, 1)
        return sorted({round(low + (high - low) * i / steps, 6) for i in range(self.levels)})


@register(
    "method",
    "apps-edgeta",
    config={"scheduler": "exact"},
    summary="EdgeTA for several applications, its problem of sparsities and shares solved exactly.",
)
@register(
    "method",
    "apps-genetic",
    config={"scheduler": "genetic"},
    summary="EdgeTA for several applications, scheduled by scikit-opt's genetic algorithm.",
)
@register(
    "method",
    "apps-greedy",
    config={"scheduler": "greedy"},
    summary="EdgeTA for several applications; what gains most for its share comes first.",
    provenance="chosen-here",
    paper="none: the usual heuristic for EdgeTA's problem",
    equation="take the level and share of the largest accuracy gain per share until the window is "
    "full",
)
@register(
    "method",
    "apps-uniform",
    config={"scheduler": "uniform"},
    summary="EdgeTA for several applications with equal shares, as little sparse as fits.",
    provenance="group-harness",
    paper="none: equal division of device and memory",
    equation="r_i = 1 / N, s_i the least that fits an equal part of the memory",
)
@register(
    "method",
    "apps-ekya",
    config={"scheduler": "ekya"},
    summary="EdgeTA for several applications; shares move while mean accuracy rises (Ekya).",
    provenance="group-harness",
    paper="Bhardwaj et al.: Ekya: Continuous Learning of Video Analytics Models, NSDI 2022",
    equation="move a quantum of share from one job to another while mean accuracy rises",
)
@register(
    "method",
    "apps-recl",
    config={"scheduler": "recl"},
    summary="EdgeTA for several applications; shares in proportion to predicted gains (RECL).",
    provenance="group-harness",
    paper="Khani et al.: RECL: Responsive Resource-Efficient Continuous Learning, NSDI 2023",
    equation="r_i proportional to the gain of accuracy at an equal share",
)
class MultiApp(Method):
    """One EdgeTA for each application of the source, and a scheduler that divides the device.

    Applications are copies of one model, whose task-agnostic parameters feedback averages, or each
    has a task and a model of its own (`bench.tasks.applications`), and then costs, accuracies
    to expect and feedback of its own.

    In a window: costs are profiled (the first time), each application's accuracies are those of
    simulations or estimated without labels, the scheduler chooses sparsities and shares for what
    the window has left after the sections that are still to come, the applications retrain one
    after another, each within its share, and feedback closes the window. The decision runs on the
    host that runs the benchmark; its CPU time is logged and printed, and not charged: it is not the
    device's.

    ``plan``: of the last window; ``made``: iterations made in it, by application;
    ``decision_cpu_s``: CPU seconds of all decisions so far.
    """

    Config = MultiAppConfig
    tasks = ("classification", "several-tasks")
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "published"
    paper = "Zhang et al.: EdgeTA: Neuron-Grained Scaling of Foundation Models, IEEE TMC 2025"
    equation = (
        "max (1/N) sum_i accuracy_i(s_i, T_i), sum_i r_i <= 1, r_i >= least share, memory <= M"
    )
    makes_own_model = True
    uses_device_clock = True
    conformance_config: ClassVar[dict[str, Any]] = {
        "lora_steps": 20, "kb_steps": 100, "index_steps": 100, "estimate": "confidence",
    }  # fmt: skip
    config: MultiAppConfig

    @classmethod
    def offline_settings(cls, config: MultiAppConfig) -> dict[str, Any]:
        if config.estimate == "confidence":
            return config.offline()
        return config.model_dump(mode="json", exclude={"scheduler", "ekya_fallback"})

    def uses_shifted_source(self) -> bool:
        return self.config.estimate == "simulated"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.source = source
        self.owners = owners_in(model, source)
        self.apps = [EdgeTA(self.config) for _ in self.owners]
        for app, owner in zip(self.apps, self.owners, strict=True):
            app.prepare(*prepared_with(model, source, owner))
        # Those of one model start from the same knowledge base: one calibration and one simulation
        # serve them all.
        self.groups = [self._group(*group) for group in members_by_model(self.owners)]
        self.shifted_source = None
        self.fallbacks: Counter[str] = Counter()
        self.halves = [self.config.half_iterations] * len(self.apps)
        self.section_s: dict[str, float] = {}
        self.windows = 0
        self.plan: Plan | None = None
        self.made: dict[int, int] = {}
        self.decision_cpu_s = 0.0
        self._route()

    def _group(self, name: str, members: list[int]) -> Group:
        first, grid = self.apps[members[0]], self.config.grid()
        made = Group(name, members, calibrate(first.kb, first.source, grid))
        if self.config.estimate == "simulated":
            if self.shifted_source is None:
                raise BenchError(
                    f"{self.registered_name}: no shifted source data to simulate retrainings on; "
                    "set estimate: confidence"
                )
            owner = self.owners[members[0]]
            made.expected = simulated_levels(first, owner, self.shifted_source, grid)
        return made

    def _route(self) -> None:
        """Let each application's current proxy predict its samples."""
        self.model = routed_to([app.model for app in self.apps], self.owners)

    def _group_of(self, app: int) -> Group:
        return next(group for group in self.groups if app in group.members)

    def adapt(self, domain: DomainView, window: Window) -> None:
        views = split(domain, self.owners)
        for app, view in views.items():
            group = self._group_of(app)
            if group.profile is None:
                grid = self.config.grid()
                group.profile = profiled(self.apps[app], view, window, grid, group.name)
        known = [self._application(app, view, window) for app, view in views.items()]
        most = {
            app: self.config.epochs * max(len(v) // v.batch_size, 1) for app, v in views.items()
        }
        problem, binding = self._problem(known, most, window)
        plan = self.plan = self._solver().solve(problem, seed=self.windows)
        if plan.fallback:
            self.fallbacks[plan.fallback] += 1
        self._tell(domain, plan, window)
        seconds = problem.window_s - plan.profiling_s
        if plan.profiling_s > 0:
            self._profile_anew(views, problem, plan, window)
        self.made = {}
        for app, given, before in zip(views, plan.assignments, known, strict=True):
            sparsity, each, view = given.sparsity, self.apps[app], views[app]
            group = self._group_of(app)
            with self._section(window, "proxy", group):
                make_proxy(each, view, sparsity)
                self._route()
            with window.time_slice(given.share * seconds if binding else window.budget_s):
                count = min(given.iterations, most[app]) if binding else most[app]
                made = self.made[app] = Retraining(each, group.name).run(view, window, count)
            if group.expected is not None:
                continue
            with self._section(window, "probe", group):
                sure = confidence(each.model, first_batch(view))
            start = before.start[before.sparsities.index(sparsity)]
            calibration = group.calibration
            after, ceiling = calibration.estimate(sure, sparsity), calibration.ceiling(sparsity)
            self.halves[app] = updated_half(self.halves[app], start, after, ceiling, made)
        with self._section(window, "feedback"):
            for group in self.groups:
                joint_feedback([self.apps[app] for app in group.members if app in views])
        self.windows += 1

    def _application(self, app: int, view: DomainView, window: Window) -> Application:
        """The scheduler's input: simulated accuracies, or those on the source and a probe."""
        group = self._group_of(app)
        seconds, memory = group.costs()
        if group.expected is not None:
            return Application(
                name=f"app{app}",
                sparsities=group.expected.sparsities,
                seconds_per_iteration=seconds,
                memory_bytes=memory,
                accuracy=group.expected.ceiling,
                start=group.expected.start,
                half_iterations=group.expected.half_iterations,
            )
        each, known = self.apps[app], group.calibration
        sparsity = min(known.sparsities, key=lambda level: abs(level - each.sparsity))
        with self._section(window, "probe", group):
            set_sparsity(each.kb, sparsity)
            sure = confidence(each.kb, first_batch(view))
        return Application(
            name=f"app{app}",
            sparsities=known.sparsities,
            seconds_per_iteration=seconds,
            memory_bytes=memory,
            accuracy=known.accuracy,
            start=known.accuracy,
            half_iterations=self.halves[app],
        ).corrected(known.estimate(sure, sparsity), sparsity)

    def _problem(
        self, known: list[Application], most: Mapping[int, int], window: Window
    ) -> tuple[Problem, bool]:
        """The problem of what the window has left, and whether its time binds at all.

        ``known``: the applications that have samples; ``most``: the iterations that each may do, by
        its number, in the same order. Where all could do their most at the slowest level, time is
        no criterion: the problem then has for each application equal seconds for all levels and
        just that long a window. Raises Unsupported if what is left is too short for a plan.
        """
        sections, wanted = 0.0, 0.0
        for group in self.groups:
            members = [app for app in group.members if app in most]
            sections += len(members) * self._section_s(group)
            if members:  # one without samples may not be profiled yet
                wanted += sum(most[app] for app in members) * max(group.costs()[0])
        left = window.budget_s - window.spent_s - sections - self._lasted("feedback")
        binding = left < wanted
        if not binding:
            left = wanted
            known = [
                a.model_copy(update={"seconds_per_iteration": (slowest,) * len(a.sparsities)})
                for a in known
                for slowest in [max(a.seconds_per_iteration)]
            ]
        memory, least = self.config.memory_mb * 1e6, self.config.min_share
        try:
            return Problem(tuple(known), left, memory, min_share=least), binding
        except BenchError as error:
            raise Unsupported(
                f"{self.config.scheduler}: {left:.3g} s of the window of {window.budget_s:.3g} s "
                f"are left for retraining, and no plan fits: {error}"
            ) from error

    def _profile_anew(
        self, views: dict[int, DomainView], problem: Problem, plan: Plan, window: Window
    ) -> None:
        """Micro-profiling that a scheduler asks for: iterations that are thrown away.

        They take the seconds that the plan says, all of the first application. What they would tell
        is known already: the scheduler is taken to predict as well as the others do.
        """
        app, view = next(iter(views.items()))
        each, group, sparsity = self.apps[app], self._group_of(app), self.config.grid()[0]
        kept = each.model, each.slices, each.sparsity
        cost = problem.seconds[0, 0]
        with self._section(window, "profile", group):
            make_proxy(each, view, sparsity)
        count = int(whole_iterations(plan.profiling_s / cost))
        Retraining(each, group.name).run(view, window, count)
        each.model, each.slices, each.sparsity = kept

    def _solver(self) -> Solver:
        if self.config.scheduler == "ekya":
            return Ekya(charge_fallback=self.config.ekya_fallback == "charged")
        return SOLVERS[self.config.scheduler]

    def details(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for group in self.groups:
            first = self.apps[group.members[0]]
            own = {**first.details(), **group.details()}
            if group.name and group.profile is not None:
                own["seconds_per_iteration"] = list(group.profile[0])
            told |= {group.name: own} if group.name else own
        told["fallbacks"] = dict(self.fallbacks)
        notes = [
            f"{self.config.scheduler} in {count} of {self.windows} windows: {why}"
            for why, count in self.fallbacks.items()
        ]
        return {**told, "notes": notes} if notes else told

    def curves(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        return {
            f"{group.name}/{name}" if group.name else name: points
            for group in self.groups
            for name, points in self.apps[group.members[0]].curves().items()
        }

    def _tell(self, domain: DomainView, plan: Plan, window: Window) -> None:
        self.decision_cpu_s += plan.cpu_s
        window.log(decision_cpu_s=plan.cpu_s, predicted_accuracy=plan.mean_accuracy)
        given = ", ".join(
            f"{a.name} sparsity {a.sparsity:g} share {a.share:.2f} iterations {a.iterations}"
            for a in plan.assignments
        )
        print(
            f"{domain.name}: {plan.solver} decided in {plan.cpu_s:.3f} s of CPU: {given}; "
            f"predicted accuracy {plan.mean_accuracy:.3f}",
            flush=True,
        )

    @contextmanager
    def _section(self, window: Window, kind: str, group: Group | None = None) -> Iterator[None]:
        before = window.spent_s
        with window.section(kind):
            yield
        self.section_s[_key(kind, group)] = window.spent_s - before

    def _section_s(self, group: Group) -> float:
        """Seconds that the sections of an application in a window took the last time."""
        probe = self._lasted(_key("probe", group))
        return self._lasted(_key("proxy", group), _key("profile", group)) + probe

    def _lasted(self, *kinds: str) -> float:
        """Seconds of the last section of the first of the kinds that there was, else 0."""
        return next((self.section_s[kind] for kind in kinds if kind in self.section_s), 0.0)

    def state(self) -> dict[str, Any]:
        return {
            "apps": [app.state() for app in self.apps],
            "halves": list(self.halves),
            "profiles": [group.profile for group in self.groups],
            "section_s": dict(self.section_s),
            "windows": self.windows,
            "fallbacks": dict(self.fallbacks),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for app, kept in zip(self.apps, state["apps"], strict=True):
            app.load_state(kept)
        for group, profile in zip(self.groups, state["profiles"], strict=True):
            group.profile = profile
        self.halves, self.section_s = list(state["halves"]), dict(state["section_s"])
        self.windows = state["windows"]
        self.fallbacks = Counter(state["fallbacks"])
        self._route()


def _key(kind: str, group: Group | None) -> str:
    """The name of a section, with that of its group if there is more than one."""
    return f"{kind} {group.name}" if group is not None and group.name else kind
