"""ImageNet-C as published by Hendrycks & Dietterich (ICLR 2019): folders of corrupted images."""

from __future__ import annotations

from pathlib import Path

from bench import BenchError, register

from .image_folder import ImageFolder, class_folders

SEVERITIES = {str(i) for i in range(1, 6)}


@register("dataset", "imagenet-c")
class ImageNetC(ImageFolder):
    """Images in ROOT/fog/3/CLASS/*.JPEG, or ROOT/weather/fog/3/CLASS/*.JPEG; domains as ``fog-3``.

    Every other folder ROOT/NAME/CLASS, as the clean images, is a domain of its own. Every domain
    has the same classes, numbered in the order of their names.
    """

    def _find_domains(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for kind in _kinds(self.root):
            if not _has_severities(kind):
                found[kind.name] = kind
                continue
            for severity in class_folders(kind):
                if severity.name not in SEVERITIES:
                    raise BenchError(
                        f"{severity}: is no severity from 1 to 5, as the folders beside it are: "
                        "move it away"
                    )
                found[f"{kind.name}-{severity.name}"] = severity
        if not any(name.rpartition("-")[2] in SEVERITIES for name in found):
            raise BenchError(
                f"root {self.root} has no folders of severities: this layout is "
                "ROOT/fog/3/CLASS/*.JPEG"
            )
        return found


def _has_severities(folder: Path) -> bool:
    return any(inner.name in SEVERITIES for inner in class_folders(folder))


def _kinds(root: Path) -> list[Path]:
    """The folders of the corruptions: in the root, or in those of the published archives."""
    found = []
    for folder in class_folders(root):
        inner = class_folders(folder)
        of_archive = not _has_severities(folder) and any(map(_has_severities, inner))
        found += inner if of_archive else [folder]
    return sorted(found, key=lambda each: each.name)
