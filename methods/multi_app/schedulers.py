"""A method for each scheduler; they differ by it alone."""

from __future__ import annotations

from bench import register

from .config import MultiAppConfig
from .method import MultiApp


@register("method", "apps-edgeta")
class AppsEdgeTA(MultiApp):
    """EdgeTA for several applications, its problem of sparsities and shares solved exactly.

    The objective is the paper's; the exact solver is ours (`bench.scheduling.exact`).
    """

    Config = MultiAppConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "published"
    paper = "Zhang et al.: EdgeTA: Neuron-Grained Scaling of Foundation Models, IEEE TMC 2025"
    equation = (
        "max (1/N) sum_i accuracy_i(s_i, T_i), sum_i r_i <= 1, r_i >= least share, memory <= M"
    )
    makes_own_model = True
    uses_device_clock = True
    scheduler = "exact"


@register("method", "apps-genetic")
class AppsGenetic(MultiApp):
    """EdgeTA for several applications, its problem solved by scikit-opt's genetic algorithm.

    EdgeTA names scikit-opt's solvers; that it was the genetic one is likely. The repair of plans
    that break a constraint is ours (`bench.scheduling.genetic`).
    """

    Config = MultiAppConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "published"
    paper = "Zhang et al.: EdgeTA: Neuron-Grained Scaling of Foundation Models, IEEE TMC 2025"
    equation = (
        "max (1/N) sum_i accuracy_i(s_i, T_i), sum_i r_i <= 1, r_i >= least share, memory <= M"
    )
    makes_own_model = True
    uses_device_clock = True
    scheduler = "genetic"


@register("method", "apps-greedy")
class AppsGreedy(MultiApp):
    """EdgeTA for several applications; the step that gains most for its share is taken first.

    `bench.scheduling.greedy`.
    """

    Config = MultiAppConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "chosen-here"
    paper = "none: the usual heuristic for EdgeTA's problem"
    equation = (
        "take the level and share of the largest accuracy gain per share until the window is full"
    )
    makes_own_model = True
    uses_device_clock = True
    scheduler = "greedy"


@register("method", "apps-uniform")
class AppsUniform(MultiApp):
    """EdgeTA for several applications with equal shares, at the least sparse level that fits."""

    Config = MultiAppConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "group-harness"
    paper = "none: equal division of device and memory"
    equation = "r_i = 1 / N, s_i the least that fits an equal part of the memory"
    makes_own_model = True
    uses_device_clock = True
    scheduler = "uniform"


@register("method", "apps-ekya")
class AppsEkya(MultiApp):
    """EdgeTA for several applications; shares are stolen while the mean accuracy rises (Ekya).

    Micro-profiling of each candidate is paid out of the window. Simplified: see
    `bench.scheduling.baselines.Ekya`.
    """

    Config = MultiAppConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "group-harness"
    paper = "Bhardwaj et al.: Ekya: Continuous Learning of Video Analytics Models, NSDI 2022"
    equation = "move a quantum of share from one job to another while mean accuracy rises"
    makes_own_model = True
    uses_device_clock = True
    scheduler = "ekya"


@register("method", "apps-recl")
class AppsRecl(MultiApp):
    """EdgeTA for several applications; shares by the accuracy gain that is to be had (RECL).

    Simplified: see `bench.scheduling.baselines.Recl`.
    """

    Config = MultiAppConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "group-harness"
    paper = "Khani et al.: RECL: Responsive Resource-Efficient Continuous Learning, NSDI 2023"
    equation = "r_i proportional to the gain of accuracy at an equal share"
    makes_own_model = True
    uses_device_clock = True
    scheduler = "recl"
