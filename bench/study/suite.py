"""Suite files: which methods meet which stream, model, protocol, devices and seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic

from bench import registry
from bench.accelerator.choice import Kind
from bench.accelerator.precision import Precision
from bench.errors import BenchError, did_you_mean
from bench.io.safe_yaml import read_yaml
from bench.io.validated import explain as explain
from bench.io.validated import validated as validated
from bench.registry.declarations import LONGEST_NAME, shortened
from bench.study.resources import Resources

SUITES = Path(__file__).parent / "suites"
FULL = "full"
"""The variant that is the model itself."""
ALL = "all"
"""What the command line calls all methods of a suite."""
LARGEST_SEED = 2**31 - 1
MOST_SEEDS = 1000
MOST_DRAWS = 100


class _Strict(pydantic.BaseModel, extra="forbid", frozen=True):
    pass


class Reference(_Strict):
    """A registered component by name, with settings that differ from its defaults."""

    name: str
    config: dict[str, Any] = {}


Bound = Annotated[float, pydantic.Field(allow_inf_nan=False)]


class ModelReference(Reference):
    """A model. ``training``: what differs from its class's source training. ``expected_source``:
    the least and the greatest metric on the source's test split with which a run goes on.
    """

    training: dict[str, Any] = {}
    expected_source: tuple[Bound, Bound] | None = None

    @pydantic.field_validator("expected_source")
    @classmethod
    def _in_order(cls, band: tuple[float, float] | None) -> tuple[float, float] | None:
        if band is not None and not band[0] <= band[1]:
            raise ValueError("give the least and the greatest, as [0.9, 1.0]")
        return band


def _reference(value: Any) -> Any:
    """``tent`` or ``{name: tent, learning_rate: 0.01}``."""
    named = value.get("name") if isinstance(value, dict) else value
    if isinstance(named, str) and len(named) > LONGEST_NAME:
        raise ValueError(f"a name has at most {LONGEST_NAME} characters")
    if isinstance(value, str):
        return Reference(name=value)
    if isinstance(value, dict):
        if not isinstance(value.get("name"), str):
            raise ValueError("give a name, or a mapping with 'name' and settings")
        return Reference(name=value["name"], config={k: v for k, v in value.items() if k != "name"})
    return value


def _model(value: Any) -> Any:
    """As `_reference`, with the keys of a `ModelReference` beside the model's own settings."""
    reference = _reference(value)
    if not isinstance(reference, Reference):
        return reference
    own = {k: v for k, v in reference.config.items() if k in ModelReference.model_fields}
    config = {k: v for k, v in reference.config.items() if k not in own}
    return {"name": reference.name, "config": config, **own}


def _seeds(value: Any) -> Any:
    """A count (5 means 0 to 4), a list, or a text as the command line takes it."""
    if isinstance(value, bool):
        raise ValueError("give a number of seeds or a list of seeds")
    if isinstance(value, int):
        if value > MOST_SEEDS:
            raise ValueError(f"more than {MOST_SEEDS} seeds; to name one seed write [{value}]")
        return list(range(value))
    if isinstance(value, str):
        return _seed_list(value)
    if isinstance(value, list) and len({repr(v) for v in value}) < len(value):
        raise ValueError("a seed is named twice")
    return value


def _seed_list(text: str) -> list[int]:
    """Seeds of ``0..4`` or ``0-4`` (both ends), ``0,3,7`` or a mix; ValueError with the cure."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,20})\s*(?:(?:\.\.|-)\s*(\d{1,20})\s*)?", part)
        if found is None:
            raise ValueError("write 0..4 or 0,1,2")
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last:
            raise ValueError(f"{first} is above {last}; write {last}..{first}, as 0..4 or 0,1,2")
        if last > LARGEST_SEED or len(seeds) + last - first >= MOST_SEEDS:
            raise ValueError(f"at most {MOST_SEEDS} seeds, none above {LARGEST_SEED}")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is named twice; give distinct seeds, as 0..4 or 0,1,2")
    return seeds


def _variant(value: Any) -> Any:
    """``full``, ``compressed:8``, or a mapping with ``name`` and settings."""
    if isinstance(value, str) and value != FULL:
        name, colon, ratio = value.partition(":")
        if not (colon and ratio.isdecimal()):
            raise ValueError(f"write {FULL}, or a name and a whole ratio such as compressed:8")
        return Reference(name=name, config={"ratio": int(ratio)})
    reference = _reference(value)
    if isinstance(reference, Reference) and reference.name == FULL and reference.config:
        raise ValueError(f"{FULL} is the model itself and has no settings; write {FULL} alone")
    return reference


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


Ref = Annotated[Reference, pydantic.BeforeValidator(_reference)]
ModelRef = Annotated[ModelReference, pydantic.BeforeValidator(_model)]
VariantRef = Annotated[Reference, pydantic.BeforeValidator(_variant)]
Device = Annotated[str, pydantic.Field(max_length=1000)]
Seed = Annotated[int, pydantic.Field(ge=0, le=LARGEST_SEED)]


class Suite(_Strict):
    """One suite file.

    name : of the suite, as records and tables show it: small letters, numerals, ``-`` and ``_``
    description : one line for ``bench list``
    stream : the data: a source and target domains
    model : the foundation model that methods adapt; beside its settings ``training`` may change how
        it is trained on the source, and ``expected_source`` say how good it is then
    models : instead of ``model``, two or more of them: everything runs on each, and each has tables
        of its own
    protocol : order, budget, batch size and reset, the same for all methods
    methods : run without target labels where the stream is unsupervised
    supervised_references : given the labels of the adaptation splits; tables mark them
    further_references : more of them, which run only where the command line names them, or all
        methods of the suite with ``--methods all``
    variants : what the device gets: ``full`` (the model itself) or a smaller one made of it, as
        ``compressed:8``; every method runs on each, supervised references on the first
    seeds : a count, a list, or a range as ``0..4``; the same seeds for every method
    source_draws : how many source models are trained, each with the variants and offline stages
        that are made of it; every seed runs on every draw
    devices : where to charge costs, unless the command line names others
    plugins : Python files that register what the suite names, relative to the suite's file; their
        code is run
    accelerator : where runs compute, ``cpu`` or ``cuda``; the command line chooses too
    threads : of each run on the CPU
    resources : what each task asks for in the queue of a cluster
    precision : of matrix products while methods adapt and predict: ``float32``, or ``bf16`` (mixed
        precision)
    """

    name: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=LONGEST_NAME)
    description: str
    stream: Ref
    model: ModelRef
    models: list[ModelRef] = []
    protocol: dict[str, Any] = {}
    methods: list[Ref] = pydantic.Field(min_length=1)
    supervised_references: list[Ref] = []
    further_references: list[Ref] = []
    variants: Annotated[list[VariantRef], pydantic.BeforeValidator(_list)] = pydantic.Field(
        [Reference(name=FULL)], min_length=1
    )
    seeds: Annotated[list[Seed], pydantic.BeforeValidator(_seeds)] = pydantic.Field(min_length=1)
    source_draws: int = pydantic.Field(1, ge=1, le=MOST_DRAWS, strict=True)
    devices: Annotated[list[Device], pydantic.BeforeValidator(_list)] = pydantic.Field(min_length=1)
    plugins: Annotated[list[str], pydantic.BeforeValidator(_list)] = []
    accelerator: Kind = "cpu"
    threads: int = pydantic.Field(1, ge=1, le=1024)
    precision: Precision = "float32"
    resources: Resources = Resources()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _first_model(cls, content: Any) -> Any:
        """``model`` of a file that gives ``models`` is the first of them."""
        models = content.get("models") if isinstance(content, dict) else None
        if isinstance(models, list) and models and "model" not in content:
            return {**content, "model": models[0]}
        return content

    @pydantic.field_validator("models")
    @classmethod
    def _several(
        cls, models: list[ModelReference], known: pydantic.ValidationInfo
    ) -> list[ModelReference]:
        if models and models[0] != known.data.get("model", models[0]):
            raise ValueError("the suite has a 'model' too; give one of the two keys")
        if len(models) == 1:
            raise ValueError("name two or more; one stands under 'model'")
        if len({m.name for m in models}) < len(models):
            raise ValueError("a model is named twice; tables tell models by their names")
        return models

    @pydantic.field_validator("threads")
    @classmethod
    def _threads_of_the_cpu(cls, threads: int, known: pydantic.ValidationInfo) -> int:
        if threads > 1 and known.data.get("accelerator", "cpu") != "cpu":
            raise ValueError("threads are for runs on the CPU; remove them, or the accelerator")
        return threads

    def all_models(self) -> list[ModelReference]:
        """The models that everything runs on."""
        return self.models or [self.model]

    def all_methods(self) -> Iterator[tuple[Reference, bool]]:
        """Every method that runs, with whether it is given target labels."""
        yield from ((method, False) for method in self.methods)
        yield from ((method, True) for method in self.supervised_references)


def suite_files() -> dict[str, Path]:
    """The suites that ship with the project, by name."""
    return {f.stem: f for f in sorted(SUITES.glob("*.yaml")) if "." not in f.stem}


def load_suite(name: str) -> tuple[Suite, Path]:
    """A suite by its name or its file's path, and the file; its plugins become known.

    BenchError names file, key and cure.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = suite_files()
        if name not in known:
            raise BenchError(
                f"unknown suite {shortened(name)}: {did_you_mean(name, known)} "
                "(or give the path of a .yaml file)"
            )
        path = known[name]
    content = read_yaml(path, "suite")
    if not isinstance(content, dict):
        keys = ", ".join(Suite.model_fields)
        raise BenchError(f"suite {path}: a suite is a mapping with keys {keys}")
    suite = validated(Suite, content, f"suite {path}")
    for plugin in suite.plugins:
        try:
            registry.add_plugin(path.parent / plugin)
        except BenchError as error:
            raise BenchError(f"suite {path}: key 'plugins': {error}") from error
    return suite, path


def parse_seeds(text: str) -> list[int]:
    """Seeds from the command line: ``0..4`` or ``0-4`` (both ends), ``0,3,7`` or a mix."""
    try:
        return _seed_list(text)
    except ValueError as error:
        raise BenchError(f"--seeds {shortened(text)}: {error}") from None


def require_draws(source_draws: int) -> int:
    """A number of source draws from the command line or the API; BenchError if it is none."""
    if not 1 <= source_draws <= MOST_DRAWS:
        raise BenchError(f"--source-draws {source_draws}: give a number from 1 to {MOST_DRAWS}")
    return source_draws


def parse_variants(texts: Sequence[str]) -> list[Reference]:
    """Variants from the command line: ``full``, ``compressed:8``."""
    try:
        return [_variant(text) for text in dict.fromkeys(texts)]
    except ValueError as error:
        raise BenchError(f"--variant {', '.join(texts)}: {error}") from None


def select(suite: Suite, names: Sequence[str] | None) -> Suite:
    """The suite with only the named methods; a registered method that it does not list is added.

    `ALL` names those that it lists, further references included. An added method is an ordinary
    one: it is given no target labels.
    """
    if not names:
        return suite
    labelled = [*suite.supervised_references, *suite.further_references]
    listed = {r.name for r in (*suite.methods, *labelled)}
    wanted = {*names, *(listed if ALL in names else ())}
    methods = [r for r in suite.methods if r.name in wanted]
    methods += [Reference(name=n) for n in dict.fromkeys(names) if n not in {*listed, ALL}]
    references = [r for r in labelled if r.name in wanted]
    changes = {"supervised_references": references, "further_references": []}
    return suite.model_copy(update={"methods": methods, **changes})
