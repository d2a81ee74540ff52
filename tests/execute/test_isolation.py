"""Inside a run the name `datasets` is Hugging Face's or nobody's, wherever one starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ASKS = '''
import importlib.util, sys
from bench import Method, register

@register("method", "asks")
class Asks(Method):
    """Says where top-level packages would come from."""
    def adapt(self, domain, window):
        for name in ("datasets", "models", "methods", "reports"):
            spec = importlib.util.find_spec(name)
            print("found", name, spec and spec.origin)
'''


def test_our_rooms_do_not_shadow_other_packages_in_a_run_started_in_the_checkout(workplace):
    (workplace.folder / "asks.py").write_text(ASKS)
    command = [
        sys.executable, "-m", "bench", "run",
        "--suite", str(workplace.folder / "tiny.yaml"),
        "--plugin", str(workplace.folder / "plugin.py"),
        "--plugin", str(workplace.folder / "asks.py"),
        "--store", str(workplace.folder / "store"),
        "--methods", "asks", "--seeds", "0",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=workplace.environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    record = workplace.records()[("asks", 0, "xavier-nx")]
    said = (workplace.folder / "store" / record.log).read_text()
    found = dict(line.split()[1:3] for line in said.splitlines() if line.startswith("found"))
    assert set(found) == {"datasets", "models", "methods", "reports"}
    for origin in found.values():
        assert origin == "None" or not Path(origin).is_relative_to(ROOT), origin
