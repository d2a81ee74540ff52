"""A data set in one file: ROOT/DOMAIN.txt has a number and a class in each line."""

from __future__ import annotations

import torch

from bench import BenchError, DataSet, Split, register


@register("dataset", "toy-numbers")
class Numbers(DataSet):
    """ROOT/DOMAIN.txt: in each line a number and its class, 0 or 1."""

    class_names = ("low", "high")
    input_shape = (1,)

    def domains(self):
        return sorted(file.stem for file in self.root.glob("*.txt"))

    def split(self, domain, name):
        rows = []
        file = self.root / f"{domain}.txt"
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            value, _, label = line.partition(" ")
            if label not in ("0", "1"):
                raise BenchError(f"{file}:{number}: class {label!r}: write 0 or 1")
            rows.append((float(value), int(label)))
        x, y = zip(*rows, strict=True)
        return Split(torch.tensor(x).unsqueeze(1), torch.tensor(y))
