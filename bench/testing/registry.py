"""A registry of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.registry import components


@contextmanager
def isolated_registry() -> Iterator[None]:
    """No plugin is known inside; what is added inside is forgotten, and those before are back.

    Components of installed packages stay known. Contexts may be nested.
    """
    kept = dict(components._plugins)
    components._plugins.clear()
    components._table.cache_clear()
    try:
        yield
    finally:
        components._plugins.clear()
        components._plugins.update(kept)
        components._table.cache_clear()
