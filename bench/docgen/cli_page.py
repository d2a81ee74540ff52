"""The page of all commands and options in Markdown, from the command line itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bench.docgen.markdown import table

HEAD = """\
# Commands

Written by `bench docs` from the command line itself; do not edit. `bench COMMAND --help` prints the
same. Options may be given in any order; a repeatable one is given once for each value.
"""


def page(root: Any) -> str:
    """The whole page; ``root`` is the click group of ``bench``."""
    context = root.context_class(root, info_name="bench")
    leaves = list(_leaves(root, context))
    rows = [[f"[`{p}`](#{p.replace(' ', '-')})", _paragraphs(leaf)[0]] for p, leaf, _ in leaves]
    parts = [HEAD.strip(), table(["command", "what it does"], rows)]
    for path, leaf, context in leaves:
        pieces = " ".join(leaf.collect_usage_pieces(context))
        parts += [f"## {path}", *_paragraphs(leaf), f"```text\n{path} {pieces}\n```"]
        options = [_option(record) for p in leaf.params if (record := p.get_help_record(context))]
        if options:
            parts.append(table(["option", "meaning"], options))
    return "\n\n".join(parts) + "\n"


def _leaves(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """The commands that do something: (what to type, command, context)."""
    if not hasattr(command, "commands"):
        yield context.command_path, command, context
        return
    for name, child in command.commands.items():
        yield from _leaves(child, child.context_class(child, info_name=name, parent=context))


def _paragraphs(command: Any) -> list[str]:
    return [" ".join(part.split()) for part in (command.help or "").split("\n\n")]


def _option(record: tuple[str, str]) -> list[str]:
    # A list is a repeatable option: the type of one value says more.
    name = re.sub(r"<list\[(.+)\]>", r"<\1>", record[0])
    return [f"`{name}`", record[1].replace("  [", " [")]
