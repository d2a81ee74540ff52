"""The house: which folder may import which, how large it may grow, and what it may name.

Everything is read off the source text; nothing is imported. An import inside a function and one
for type checkers count like any other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CORE = (
    ("io", "errors", "defaults"),
    ("registry",),
    ("accelerator",),
    ("records",),
    ("contracts",),
    ("snapshots",),
    ("tasks",),
    ("operators",),
    ("meters", "costs", "probe"),
    ("study",),
    ("run",),
    ("execute",),
    ("cluster",),
    (
        "tuning",
        "conformance",
        "estimate",
        "calibration",
        "scheduling",
        "testing",
        "docgen",
        "live",
        "leaderboard",
    ),
    ("cli",),
)
"""The folders of ``bench/``: each imports those above it here, and those of its own line."""

ABOVE_ALL = ("", "__main__")
"""The facade ``bench`` and ``python -m bench``."""

READS_THE_FACADE = "bench.registry.moved"
"""Says to authors of plugins which of the moved names ``bench`` has: it reads the list of them."""

FACADE, DEFAULTS, TEMPLATES = "bench", "bench.defaults", "bench.cli.templates"

ROOMS = {
    "datasets": (),
    "models": (),
    "methods": ("models.surgery",),
    "reports": (),
}
"""What each room may import beside the core; the core imports no room."""

ONLY_RECORDS = ("io", "errors", "registry", "records")
"""The folders of the core that reports may import: they see records and nothing that made them."""

OF_PROTOCOLS = "bench.contracts.protocol"
"""It says of a record's protocol which accuracies there are: reports may import it too."""

TYPES_ONLY = {
    # A method's signature names the window that it is given, and `skip` the cell; both are made
    # far above the contract, which calls nothing of theirs.
    ("bench.contracts.method", "bench.run.window"),
}
"""Imports for type checkers alone that may point the other way, each with its reason."""

FOLDER_LINES, MODULE_LINES = 2500, 450
NAMES_OF_COMPONENTS = re.compile("digits|xavier-nx|source-only")


@dataclass(frozen=True)
class Import:
    """``module`` imports ``target`` on ``line``."""

    module: str
    target: str
    line: int
    types_only: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@cache
def modules() -> dict[str, Path]:
    """All modules of the core and the rooms, under the names by which they are imported."""
    found = {}
    for top in ("bench", *ROOMS):
        for file in sorted((ROOT / top).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if top == "bench" and len(parts) > 1 and parts[1] in ROOMS:
                continue  # a checkout that links the rooms into the package
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(parts if top == "bench" else ("bench", *parts))] = file
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports() -> tuple[Import, ...]:
    """Every import of a module of this project by another one."""
    return tuple(
        Import(module, target, line, types_only)
        for module in modules()
        for target, line, types_only in sorted(set(_targets(module, tree(module), False)))
        if target != module
    )


def _targets(module: str, node: ast.AST, types_only: bool) -> Iterator[tuple[str, int, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                if _module_of(alias.name):
                    yield _module_of(alias.name), child.lineno, types_only
        elif isinstance(child, ast.ImportFrom):
            base = _base(module, child)
            for alias in child.names:
                if _module_of(f"{base}.{alias.name}"):
                    yield _module_of(f"{base}.{alias.name}"), child.lineno, types_only
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from _targets(module, ast.Module([statement], []), True)
            for statement in child.orelse:
                yield from _targets(module, ast.Module([statement], []), types_only)
        else:
            yield from _targets(module, child, types_only)


def _base(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of the module that a ``from ... import`` names."""
    if not node.level:
        return node.module or ""
    package = modules()[module].name == "__init__.py"
    parts = module.split(".")[: (1 if package else 0) - node.level or None]
    return ".".join([*parts, *(node.module or "").split(".")]).strip(".")


def _module_of(name: str) -> str:
    """The module that ``name`` is or lies in; empty if it is none of ours."""
    if name in modules():
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules() else ""


def room(module: str) -> str:
    """The room that a module lies in; empty for the core."""
    return folder(module) if folder(module) in ROOMS else ""


def folder(module: str) -> str:
    """The folder of the core, or the module directly in ``bench/``, that a module lies in."""
    return module.partition(".")[2].partition(".")[0]


def a_template(module: str) -> bool:
    """Whether a module is text that ``bench new-...`` copies into a room and its tests."""
    return f"{module}.".startswith(f"{TEMPLATES}.")


def rank(module: str) -> int:
    """The line of `CORE` on which the module's folder stands."""
    (found,) = (i for i, line in enumerate((*CORE, ABOVE_ALL)) if folder(module) in line)
    return found


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def listed(found: Iterable[object]) -> str:
    return "\n".join(map(str, found))


# --- arrows -----------------------------------------------------------------------------


def test_every_folder_of_the_core_has_its_place() -> None:
    placed = {name for line in (*CORE, ABOVE_ALL) for name in line}
    assert {folder(m) for m in modules() if not room(m)} <= placed


def test_each_folder_imports_what_stands_above_it_only() -> None:
    wrong = [
        each
        for each in imports()
        if not room(each.module) and not room(each.target)
        if each.target != FACADE
        if rank(each.target) > rank(each.module)
        if not (each.types_only and (each.module, each.target) in TYPES_ONLY)
    ]
    assert not wrong, listed(wrong)


def test_exceptions_for_type_checkers_are_in_use() -> None:
    used = {(each.module, each.target) for each in imports() if each.types_only}
    assert used >= TYPES_ONLY


def test_the_core_imports_no_room_and_not_its_own_facade() -> None:
    wrong = [
        each
        for each in imports()
        if not room(each.module) and not a_template(each.module)
        if room(each.target)
        or (
            (each.target == FACADE and folder(each.module) != "cli")
            and each.module != READS_THE_FACADE
        )
    ]
    assert not wrong, listed(wrong)


def test_rooms_import_the_core_and_what_the_table_allows() -> None:
    wrong = [
        each
        for each in imports()
        if room(each.module) and room(each.target) not in ("", room(each.module))
        if not any(
            f"{each.target}.".startswith(f"bench.{allowed}.")
            for allowed in ROOMS[room(each.module)]
        )
    ]
    assert not wrong, listed(wrong)


def test_reports_see_records_only() -> None:
    wrong = [
        each
        for each in imports()
        if room(each.module) == "reports" and not room(each.target)
        if each.target not in (FACADE, OF_PROTOCOLS) and folder(each.target) not in ONLY_RECORDS
    ]
    assert not wrong, listed(wrong)


def test_no_module_imports_itself_through_others() -> None:
    targets: dict[str, set[str]] = {module: set() for module in modules()}
    for each in imports():
        excepted = each.types_only and (each.module, each.target) in TYPES_ONLY
        if not excepted and (each.module, each.target) != (READS_THE_FACADE, FACADE):
            targets[each.module].add(each.target)
    wrong = [" <-> ".join(sorted(circle)) for circle in circles(targets)]
    assert not wrong, listed(wrong)


def circles(targets: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that reach each other, of two members or more (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(targets[module]):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            cut = stack.index(module)
            if len(stack) - cut > 1:
                found.append(set(stack[cut:]))
            del stack[cut:]

    for module in targets:
        if module not in index:
            visit(module)
    return found


def test_circles_are_found() -> None:
    targets = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "f"}, "f": {"e"}}
    assert sorted(map(sorted, circles(targets))) == [["b", "c"], ["e", "f"]]


# --- sizes ------------------------------------------------------------------------------


def test_no_folder_of_the_core_is_large() -> None:
    sizes: dict[str, int] = {}
    for module, file in modules().items():
        if not room(module) and not a_template(module) and file.parent != ROOT / "bench":
            sizes[folder(module)] = sizes.get(folder(module), 0) + lines(file)
    wrong = [f"bench/{name}: {size} lines" for name, size in sizes.items() if size > FOLDER_LINES]
    assert not wrong, listed(wrong)


def test_no_module_is_large() -> None:
    sizes = {module: lines(file) for module, file in modules().items()}
    wrong = [f"{name}: {size} lines" for name, size in sizes.items() if size > MODULE_LINES]
    assert not wrong, listed(wrong)


# --- what the core does not do ----------------------------------------------------------


def test_the_core_names_no_component_of_a_room_but_in_one_place() -> None:
    wrong = [
        f"{module}:{number}: {line.strip()}"
        for module, file in modules().items()
        if not room(module) and module != DEFAULTS and not a_template(module)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if NAMES_OF_COMPONENTS.search(line)
    ]
    assert not wrong, listed(wrong)


def subclasses(bases: set[str]) -> set[str]:
    """``bases`` and the names of all classes of the core that derive from them."""
    classes = [
        node
        for module in modules()
        if not room(module)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef)
    ]
    found = set(bases)
    for _ in classes:
        found |= {c.name for c in classes if found & {ast.unparse(b) for b in c.bases}}
    return found


@pytest.mark.parametrize("top", ["costs", "run"])
def test_nobody_asks_which_kind_of_costs_or_tracker_it_has(top: str) -> None:
    kinds = subclasses({"DeviceCosts", "CostTracker"})
    assert len(kinds) > 2
    wrong = [
        f"{module}:{node.lineno}: {ast.unparse(node)}"
        for module in modules()
        if folder(module) == top
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass")
        if kinds & {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
    ]
    assert not wrong, listed(wrong)


def test_the_core_uses_no_mocks() -> None:
    wrong = [
        f"{module}:{node.lineno}"
        for module in modules()
        if not room(module) and not a_template(module)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Import | ast.ImportFrom) and "unittest" in ast.unparse(node)
    ]
    assert not wrong, listed(wrong)
