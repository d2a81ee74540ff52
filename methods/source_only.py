"""The source model as deployed, never adapted: the reference that every method must beat."""

from __future__ import annotations

from typing import ClassVar

from bench import Method, register


@register("method", "source-only")
class SourceOnly(Method):
    """No adaptation: the source model predicts every domain."""

    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation",
        "detection", "visual-question-answering", "generation", "several-tasks",
    )  # fmt: skip
    family = "reference"
    shifts = ("domain", "class")
    paper = "none: the lower reference of every domain-adaptation study"
    equation = "w stays what it is"
