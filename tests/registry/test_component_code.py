"""Content digests of values and of code."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.io.digest import digest, file_digest
from bench.registry.component_code import code_digest, component_digest

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """The value with its types, so that 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return ("dict", frozenset((k, shape(v)) for k, v in value.items()))
    if isinstance(value, list):
        return ("list", tuple(shape(v) for v in value))
    return (type(value).__name__, repr(value))


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: reordered(value[k]) for k in reversed(list(value))}
    return [reordered(v) for v in value] if isinstance(value, list) else value


@given(VALUES)
def test_the_order_of_keys_does_not_matter_at_any_depth(value: Any) -> None:
    assert digest(reordered(value)) == digest(value)


@given(VALUES, VALUES)
def test_digests_are_equal_exactly_when_the_values_are(a: Any, b: Any) -> None:
    assert (digest(a) == digest(b)) == (shape(a) == shape(b))


@given(VALUES)
def test_a_digest_survives_json(value: Any) -> None:
    assert digest(json.loads(json.dumps(value))) == digest(value)


def test_the_order_of_a_list_matters() -> None:
    assert digest([1, 2]) != digest([2, 1])


def test_a_digest_is_the_sha256_of_compact_sorted_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":true}').hexdigest()
    assert digest({"b": True, "a": [1, 2.5, None]}) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused_at_any_depth(bad: float) -> None:
    for value in (bad, [bad], {"a": {"b": bad}}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            digest(value)


@pytest.mark.parametrize("bad", [{1, 2}, object(), b"bytes", Path("x"), 1j])
def test_other_types_are_refused(bad: object) -> None:
    with pytest.raises(TypeError):
        digest({"a": bad})


@pytest.mark.parametrize("key", [1, 1.5, True, None])
def test_a_key_that_is_no_string_does_not_meet_its_text(key: object) -> None:
    """Unequal things must not meet in one digest: {1: 0} and {"1": 0} are unequal."""
    text = json.loads(json.dumps({key: 0}))
    try:
        with_key = digest({key: 0})
    except (TypeError, ValueError):
        return
    assert with_key != digest(text)


def test_file_digest_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\x00abc\r\n")
    assert file_digest(tmp_path / "data") == hashlib.sha256(b"\x00abc\r\n").hexdigest()


# --- code -------------------------------------------------------------------

CODE = '''"""A module."""

import math


class Thing:
    """A thing."""

    rate = 0.5

    def area(self, radius):
        """Area of a circle."""
        return math.pi * radius**2 * self.rate
'''
SAME = {
    "comments": CODE.replace("    rate = 0.5", "    # why\n    rate = 0.5  # because"),
    "layout": CODE.replace("\n\n\n", "\n").replace(
        "math.pi * radius**2 * self.rate", "(\n            math.pi*radius ** 2\n * self.rate )"
    ),
    "another docstring": CODE.replace("Area of a circle.", "Surface,\n\n        in pixels."),
    "a paper and an equation": CODE.replace(
        "    rate = 0.5", '    paper = "A"\n    equation: str = "x"\n    rate = 0.5'
    ),
    "no docstrings": "\n".join(line for line in CODE.splitlines() if '"""' not in line),
}
MOVED = {
    "another module": "from bench.elsewhere import take\nfrom bench.method import Method\n",
    "one line": "from bench import Method, take\n",
    "a relative import": "from ._here import take\nfrom . import Method\n",
    "for type checkers": "from bench import Method, take\nfrom typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n    from bench import Window\n",
}
OTHER = {
    "a number": CODE.replace("0.5", "0.25"),
    "an operator": CODE.replace("**2", "**3"),
    "a name": CODE.replace("area", "surface"),
    "a string that is no docstring": CODE.replace("rate = 0.5", "rate = '0.5'"),
    "another statement": CODE + "\nThing.rate = 1\n",
    "an import": CODE.replace("import math", "import cmath as math"),
    "a default": CODE.replace("radius)", "radius=1)"),
}


def digest_of(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name.replace(' ', '_')}.py"
    path.write_text(text)
    return code_digest(path)


@pytest.mark.parametrize("name", SAME)
def test_documentation_and_layout_do_not_change_a_code_digest(tmp_path: Path, name: str) -> None:
    assert SAME[name] != CODE
    assert digest_of(tmp_path, name, SAME[name]) == digest_of(tmp_path, "original", CODE)


@pytest.mark.parametrize("name", OTHER)
def test_code_changes_a_code_digest(tmp_path: Path, name: str) -> None:
    assert OTHER[name] != CODE
    assert digest_of(tmp_path, name, OTHER[name]) != digest_of(tmp_path, "original", CODE)


@pytest.mark.parametrize("name", MOVED)
def test_where_a_name_of_the_project_comes_from_does_not_change_a_code_digest(
    tmp_path: Path, name: str
) -> None:
    typing = "from typing import TYPE_CHECKING\n" * ("TYPE_CHECKING" in MOVED[name])
    original = f"from bench.data import take\n{typing}from bench.method import Method\n"
    assert digest_of(tmp_path, "a", MOVED[name]) == digest_of(tmp_path, "b", original)
    other = original.replace("take", "batch_length")
    assert digest_of(tmp_path, "a", MOVED[name]) != digest_of(tmp_path, "c", other)


def test_the_place_of_a_file_does_not_change_its_code_digest(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert digest_of(tmp_path, "a", CODE) == digest_of(tmp_path / "elsewhere", "b", CODE)


def test_file_and_digest_agree_between_processes_with_other_hash_seeds(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    code = (
        "import sys; from pathlib import Path\n"
        "from bench.io.digest import digest\n"
        "from bench.registry.component_code import code_digest\n"
        "print(code_digest(Path(sys.argv[1])), digest({'b': 1, 'a': [None, 'ä']}))"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "a.py")],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outs) == 1


def room_digest(folder: Path, files: dict[str, str], of: str) -> str:
    """Digest of file ``of`` among ``files`` laid into the room of methods, in a fresh process."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = (
        "import sys; from pathlib import Path; import bench.methods\n"
        "bench.methods.__path__.append(sys.argv[1])\n"
        "from bench.registry.component_code import code_digest\n"
        "print(code_digest(Path(sys.argv[1], sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(folder), of]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def changes(tmp_path: Path, files: dict[str, str], of: str, changed: str) -> bool:
    before = room_digest(tmp_path / "before", files, of)
    assert room_digest(tmp_path / "again", files, of) == before
    after = {**files, changed: files[changed].replace("= 1", "= 2")}
    assert after != files
    return room_digest(tmp_path / "after", after, of) != before


@pytest.mark.parametrize(
    "line",
    [
        "from bench.methods.zz_helper import RATE",
        "import bench.methods.zz_helper",
        "import bench.methods.zz_helper as h",
        "from bench.methods import zz_helper",
        "def late():\n    from bench.methods.zz_helper import RATE",
    ],
)
def test_a_change_in_an_imported_room_module_changes_the_digest(tmp_path: Path, line: str) -> None:
    files = {"zz_mine.py": f"{line}\n", "zz_helper.py": "RATE = 1\n"}
    assert changes(tmp_path, files, "zz_mine.py", "zz_helper.py")


def test_imports_are_followed_through_other_room_modules(tmp_path: Path) -> None:
    files = {
        "zz_mine.py": "from bench.methods import zz_middle\n",
        "zz_middle.py": "import bench.methods.zz_far\nfrom bench.methods import zz_mine\n",
        "zz_far.py": "RATE = 1\n",
    }
    assert changes(tmp_path, files, "zz_mine.py", "zz_far.py")


def test_a_room_module_that_is_not_imported_does_not_change_the_digest(tmp_path: Path) -> None:
    files = {"zz_mine.py": "RATE = 1\n", "zz_other.py": "RATE = 1\n"}
    assert not changes(tmp_path, files, "zz_mine.py", "zz_other.py")


def test_a_relative_import_counts_like_an_absolute_one(tmp_path: Path) -> None:
    files = {"zz_mine.py": "from .zz_helper import RATE\n", "zz_helper.py": "RATE = 1\n"}
    assert changes(tmp_path, files, "zz_mine.py", "zz_helper.py")


@pytest.mark.parametrize("changed", ["knowledge.py", "deep/__init__.py", "deep/neurons.py"])
def test_a_component_in_a_folder_counts_with_what_it_imports_there(
    tmp_path: Path, changed: str
) -> None:
    """Importing a file of a subfolder also runs the subfolder's ``__init__.py``."""
    files = {
        "zz_edge/method.py": "from .knowledge import RATE\n",
        "zz_edge/knowledge.py": "from .deep import neurons\nRATE = 1\n",
        "zz_edge/deep/__init__.py": "RATE = 1\n",
        "zz_edge/deep/neurons.py": "RATE = 1\n",
        "zz_edge/unused.py": "RATE = 1\n",
    }
    assert changes(tmp_path, files, "zz_edge/method.py", f"zz_edge/{changed}")
    assert not changes(tmp_path / "other", files, "zz_edge/method.py", "zz_edge/unused.py")


# --- tensors ---------------------------------------------------------------


def test_the_digest_of_tensors_is_that_of_names_shapes_types_and_bytes() -> None:
    import torch

    from bench.contracts.model import tensors_digest

    a, b = torch.arange(6.0).view(2, 3), torch.tensor([True, False])
    plain = tensors_digest({"a": a, "b": b})
    same = [
        {"b": b, "a": a},
        {"a": a.t().contiguous().t(), "b": b},  # other strides
        {"a": torch.zeros(9).index_put_((torch.arange(6),), a.flatten())[:6].view(2, 3), "b": b},
        {"a": a.clone().requires_grad_(True), "b": b},
    ]
    assert {tensors_digest(tensors) for tensors in same} == {plain}
    others = [
        {"a": a},
        {"a": a, "c": b},
        {"a": b, "b": a},
        {"a": a.view(3, 2), "b": b},
        {"a": a.view(torch.int32), "b": b},  # the same bytes
        {"a": a.double(), "b": b},
        {"a": a + torch.eye(2, 3) * 1e-7, "b": b},
        {"a": a, "b": b.view(torch.uint8)},
        {"a": a, "b": ~b},
        {"a": a, "b": b, "none": torch.zeros(0)},
    ]
    digests = [tensors_digest(tensors) for tensors in others]
    assert len({plain, *digests}) == len(others) + 1


def test_tensors_of_every_kind_have_a_digest() -> None:
    import torch

    from bench.contracts.model import tensors_digest

    one = torch.tensor(1.0)  # no dimension
    kinds = (torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.uint8, torch.bool)
    assert len({tensors_digest({"x": one.to(kind)}) for kind in kinds}) == len(kinds)
    assert tensors_digest({"x": one}) != tensors_digest({"x": one.view(1)})


# --- run-time components -----------------------------------------------------

RATE = 0.5


def helper(x: float) -> float:
    return x * RATE


def test_a_run_time_component_counts_with_what_it_uses_of_its_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench import Method, registry

    with registry.isolated():

        @registry.register("method", "made-here")
        class Made(Method):
            def predict(self, x: float) -> float:  # type: ignore[override]
                return helper(x)

        component = registry.entry("method", "made-here")
        before = component_digest(component)
        assert component_digest(component) == before
        monkeypatch.setattr(sys.modules[__name__], "RATE", 0.25)
        assert component_digest(component) != before


def test_a_run_time_component_without_source_is_refused() -> None:
    from bench import Method, registry
    from bench.errors import BenchError

    with registry.isolated():
        made = type("Made", (Method,), {"__module__": "nowhere"})
        registry.register("method", "made-here")(made)
        with pytest.raises(BenchError, match="Python does not know its source"):
            component_digest(registry.entry("method", "made-here"))
