"""The conformance suite: what every method promises, checked on real data in seconds.

``bench check`` prints it, and a method's own test asks for it::

    assert not [result.line for result in check_method("my-idea") if not result.passed]

A check is a function with a one-line docstring that states the promise (see
`bench.conformance.base`).
"""

from __future__ import annotations

from bench.conformance.base import CHECKS, Check, Result
from bench.conformance.suite import check_method, methods_of_file

__all__ = ["CHECKS", "Check", "Result", "check_method", "methods_of_file"]
