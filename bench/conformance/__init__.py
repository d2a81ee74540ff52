"""The conformance suite: what methods, models, streams and data sets promise, checked in seconds.

``bench check`` prints it, and a component's own test asks for it::

    assert not [result.line for result in check_method("my-idea") if not result.passed]
    assert not [r.line for r in check_component("model", "my-network") if not r.passed]

A check is a function with a one-line docstring that states the promise (see
`bench.conformance.base`).
"""

from __future__ import annotations

from bench.conformance.base import CHECKS, Check, Result
from bench.conformance.suite import (
    check_component,
    check_method,
    components_of_file,
    methods_of_file,
)

__all__ = [
    "CHECKS",
    "Check",
    "Result",
    "check_component",
    "check_method",
    "components_of_file",
    "methods_of_file",
]
