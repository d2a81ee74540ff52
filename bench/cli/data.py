"""``bench data``: the data sets that can be read, whether a folder is one, and what is in it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from bench.cli.options import Plugins
from bench.errors import BenchError, shown
from bench.io.text_table import aligned

if TYPE_CHECKING:
    from torch import Tensor

    from bench.contracts.dataset import DataSet
    from bench.contracts.stream import Split

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

SHOWN = 6
"""Samples of a domain that are shown."""
MOST_CLASSES = 12
"""Classes whose samples are counted in a line."""

Name = Annotated[str, Argument(metavar="NAME", help="A data set of 'bench data list'.")]
Root = Annotated[Path | None, Option(help="The folder with the data.")]
Settings = Annotated[
    list[str] | None, Option("--set", metavar="KEY=VALUE", help="A setting; repeatable.")
]


@app.callback()
def _default(context: typer.Context) -> None:
    """Data sets: list those that can be read, check a folder, show what is in it."""
    if context.invoked_subcommand is None:
        list_()
        typer.echo("\n'bench data --help' names the commands")


@app.command("list")
def list_(plugins: Plugins = None) -> None:
    """List the data sets that can be read: each is a layout of files in a folder."""
    from bench import registry

    _add(plugins)
    rows = [["name", "task", "summary"]]
    for name, entry in registry.entries("dataset").items():
        rows.append([name, str(entry.facts.get("task", "classification")), entry.summary])
    typer.echo(aligned(rows))


@app.command("check")
def check(
    name: Name, root: Root = None, settings: Settings = None, plugins: Plugins = None
) -> None:
    """Read every sample of a folder: a line for each thing that is wrong, with the cure."""
    data = _data_set(name, root, settings, plugins)
    problems = 0
    for problem in data.check():
        typer.echo(f"wrong  {problem}")
        problems += 1
    if problems:
        typer.echo(f"{name} in {data.root}: {problems} thing{'s' * (problems > 1)} to correct")
        raise typer.Exit(1)
    domains = data.domains()
    samples = sum(len(data.split(d, s)) for d in domains for s in data.splits(d))
    digest = data.digest()
    typer.echo(
        f"ok  {name} in {data.root}: {len(domains)} domains, {samples} samples, "
        f"{len(data.class_names)} classes; digest {digest.value[:16]} of {digest.of}"
    )


@app.command("show")
def show(
    name: Name,
    root: Root = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, Option(help="File of a picture of six samples of each domain, as data.png.")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Show the domains of a folder with their splits, samples and classes, and six samples."""
    data = _data_set(name, root, settings, plugins)
    domains = list(data.domains())
    splits = {(d, s): data.split(d, s) for d in domains for s in data.splits(d)}
    shape = " x ".join(map(str, data.input_shape))
    typer.echo(f"{name} in {data.root}: {data.task}, a sample is {shape}")
    rows = [["domain", "split", "samples", "classes"]]
    for (domain, split), found in splits.items():
        rows.append([domain, split, str(len(found)), _counted(data, found.y)])
    typer.echo(aligned(rows))
    first = {domain: splits[domain, data.splits(domain)[0]] for domain in domains}
    for domain, found in first.items():
        lines = [data.described(found, i) for i in _spread(len(found))]
        if any(" " in line for line in lines):
            short = (textwrap.shorten(line, 96, placeholder=" ...") for line in lines)
            typer.echo(f"\n{domain}\n" + "\n".join(f"  {line}" for line in short))
    if out is not None:
        _draw(data, first, out)
        typer.echo(f"picture: {out}")


def _add(plugins: list[Path] | None) -> None:
    from bench import registry

    for plugin in plugins or []:
        registry.add_plugin(plugin)


def _data_set(
    name: str, root: Path | None, settings: list[str] | None, plugins: list[Path] | None
) -> DataSet:
    from bench import registry

    _add(plugins)
    registry.entry("dataset", name)
    from bench.contracts.dataset import data_set

    try:
        return data_set(name, given_settings(root, settings))
    except BenchError as error:
        if root is None and "'root': missing" in str(error):
            raise BenchError(f"data set {name!r}: name its folder with --root DIR") from error
        raise


def given_settings(root: Path | None, settings: list[str] | None) -> dict[str, Any]:
    """What ``--root`` and ``--set`` give; BenchError names a wrong one."""
    import yaml

    given: dict[str, Any] = {} if root is None else {"root": str(root)}
    for each in settings or []:
        key, equals, value = each.partition("=")
        if not (key and equals):
            raise BenchError(f"--set {shown(each)}: write KEY=VALUE, as size=64")
        try:
            given[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise BenchError(f"--set {shown(each)}: {error}") from error
    return given


def _counted(data: DataSet, y: Tensor) -> str:
    """How many samples, words, pixels or boxes each class has; many classes: how many there are."""
    counts = dict(zip(data.class_names, _counts(y, len(data.class_names)), strict=True))
    present = {name: n for name, n in counts.items() if n}
    if len(present) > MOST_CLASSES:
        return f"{len(present)} of {len(counts)} classes, {sum(present.values())} labels"
    return ", ".join(f"{name} {n}" for name, n in present.items())


def _counts(y: Tensor, classes: int) -> list[int]:
    if y.is_floating_point() and y.ndim == 2:  # scores of answers
        return (y > 0).sum(0).tolist()
    numbers = (y[..., 0] if y.is_floating_point() else y).flatten().long()  # of boxes the first
    return numbers[(numbers >= 0) & (numbers < classes)].bincount(minlength=classes).tolist()


def _spread(n: int) -> Iterator[int]:
    """Positions all over a split."""
    return (i * n // min(n, SHOWN) for i in range(min(n, SHOWN)))


def _draw(data: DataSet, splits: dict[str, Split], out: Path) -> None:
    """A row of samples for each domain; masks and boxes are drawn over their images."""
    import matplotlib
    import torch

    from bench.contracts.data import take

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(splits), SHOWN, figsize=(1.8 * SHOWN, 2.0 * len(splits)), squeeze=False
    )
    for row, (domain, split) in zip(axes, splits.items(), strict=True):
        for place in row:
            place.set_axis_off()
        for place, i in zip(row, _spread(len(split)), strict=False):
            x = take(split.x, torch.tensor([i]))
            image = x.get("image") if isinstance(x, dict) else x
            if image is None or image.ndim != 4:
                raise BenchError(f"--out {out}: samples of {data.task} are no images; leave it out")
            place.imshow(image[0].permute(1, 2, 0).squeeze(-1).clamp(0, 1).numpy(), cmap="gray")
            _draw_labels(place, split.y[i], image.shape[2:], len(data.class_names))
            place.set_title(data.described(split, i)[:28], fontsize=7)
        row[0].text(-0.1, 0.5, domain, rotation=90, va="center", transform=row[0].transAxes)
    figure.tight_layout()
    try:
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise BenchError(f"--out {out}: cannot be written: {error}") from error
    finally:
        plt.close(figure)


def _draw_labels(place: Any, y: Tensor, shape: Any, classes: int) -> None:
    if y.ndim == 2 and not y.is_floating_point():
        mask = y.double().masked_fill(y >= classes, float("nan")).numpy()
        place.imshow(mask, alpha=0.5, cmap="tab20", vmin=0, vmax=max(classes - 1, 1))
    elif y.ndim == 2:
        height, width = shape
        for number, x1, y1, x2, y2 in y[y[:, 0] >= 0].tolist():
            place.add_patch(_box(x1 * width, y1 * height, x2 * width, y2 * height, number))


def _box(x1: float, y1: float, x2: float, y2: float, number: float) -> Any:
    from matplotlib.patches import Rectangle

    color = f"C{int(number) % 10}"
    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=1)
