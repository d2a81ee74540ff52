"""``--isolate-labels``: equal results, and no label of a test split in the method's process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workplace import Workplace

LOOKS = '''
import gc
import torch
from bench import Method, register
from bench.run.label_process import HiddenLabels

@register("method", "looks-for-labels")
class Looks(Method):
    """Counts the int64 vectors of the test splits' size in this process."""
    def adapt(self, domain, window):
        found = [o for o in gc.get_objects() if isinstance(o, torch.Tensor)
                 and o.dtype == torch.int64 and o.ndim == 1 and o.numel() > 50
                 and set(o.tolist()) == set(range(10))]
        print("labels", len(found), flush=True)
'''


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    with (workplace.folder / "plugin.py").open("a") as file:
        file.write(LOOKS)
    return workplace


def test_results_are_equal_and_the_labels_are_elsewhere(place: Workplace) -> None:
    methods = ("--seeds", "0", "--methods", "source-only,tent,shot,looks-for-labels")
    place.run("run", *methods)
    place.run("run", *methods, "--store", "isolated", "--isolate-labels")
    together, apart = place.records(), place.records("isolated")
    assert together.keys() == apart.keys()
    for key, record in together.items():
        assert (record.status, apart[key].status) == ("ok", "ok")
        a, b = (json.loads(r.results.model_dump_json()) for r in (record, apart[key]))
        for results in (a, b):
            del results["costs"]["tracing_s"]
        assert a == b
    looks = next(key for key in together if key[0] == "looks-for-labels")

    def seen(record: object, store: str) -> list[str]:
        log = Path(place.folder / store / record.log).read_text()  # type: ignore[attr-defined]
        return [line for line in log.splitlines() if line.startswith("labels")]

    assert all(line != "labels 0" for line in seen(together[looks], "store"))
    # The source's adaptation split trains the model, and its labels are there.
    assert set(seen(apart[looks], "isolated")) <= {"labels 0", "labels 1"}
