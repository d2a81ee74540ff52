"""Discovery by reading source text, plugin files, and their one-line errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError, did_you_mean

GOOD = '''
from bench import Method, register

@register("method", "{name}")
class Mine(Method):
    """Does nothing,
    on two lines.

    A second paragraph.
    """

    family = "CL"
    needs = ("source_data", "replay_memory")
    tasks: tuple = ("classification", "detection")
    settings = {{"depth": [1, 2.5, None, True]}}
    computed = len("four")
'''


pytestmark = pytest.mark.usefixtures("empty_registry")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to(text: str, name: str = "plugin.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return to


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_listing_every_kind_and_adding_a_plugin_imports_neither_torch_nor_a_component(
    write: Callable[..., Path],
) -> None:
    plugin = write(GOOD.format(name="mine"))
    out = python(
        "import sys\n"
        "from bench import registry\n"
        f"registry.add_plugin({str(plugin)!r})\n"
        "names = [n for k in registry.KINDS for n in registry.entries(k)]\n"
        "assert {'tent', 'digits-vit', 'digits-shift', 'mine'} <= set(names), names\n"
        "loaded = [m for m in sys.modules if m.split('.')[0] in ('torch', 'timm', 'sklearn')\n"
        "          or m.startswith(('bench.methods.', 'bench.models.', 'bench_plugin'))]\n"
        "print('torch' in sys.modules, loaded)"
    )
    assert out == "False []"


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, bench; bench.register; bench.BenchError; print('torch' in sys.modules)"
    assert python(code) == "False"


def test_the_packages_lazy_names_are_the_contracts() -> None:
    import bench
    from bench.contracts.method import Method, MethodConfig
    from bench.contracts.model import FoundationModel
    from bench.contracts.stream import Stream

    assert bench.Method is Method
    assert bench.MethodConfig is MethodConfig
    assert bench.FoundationModel is FoundationModel
    assert bench.Stream is Stream
    with pytest.raises(AttributeError, match="nothing_such"):
        bench.nothing_such  # noqa: B018


def test_shipped_components_are_found_with_their_file_and_facts() -> None:
    tent = registry.entry("method", "tent")
    assert tent.module == "bench.methods.tent"
    assert tent.attribute == "Tent"
    assert tent.file.name == "tent.py"
    assert tent.origin == "bench"
    assert tent.facts["family"] == "UDA"
    assert tent.facts["provenance"] == "published"
    assert "ICLR 2021" in tent.facts["paper"]
    assert tent.summary.startswith("Entropy minimisation on normalization parameters")


@pytest.mark.parametrize("kind", ["method", "model", "stream"])
def test_every_shipped_component_loads_under_its_own_name(kind: str) -> None:
    names = list(registry.entries(kind))
    assert names == sorted(names)
    assert names
    for name in names:
        assert registry.load(kind, name).registered_name == name


def test_every_shipped_methods_facts_agree_with_the_class() -> None:
    for name, entry in registry.entries("method").items():
        loaded = registry.load("method", name)
        for fact in ("family", "provenance", "paper", "needs", "tasks"):
            if fact in entry.facts:
                assert entry.facts[fact] == getattr(loaded, fact), (name, fact)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BenchError) as caught:
        registry.entry("method", "tnet")
    assert str(caught.value).startswith("unknown method 'tnet': did you mean 'tent'")


def test_a_name_near_to_none_is_answered_with_all() -> None:
    with pytest.raises(BenchError, match=r"unknown model 'zzzz': known: .*digits-vit"):
        registry.load("model", "zzzz")


def test_did_you_mean_without_known_names() -> None:
    assert did_you_mean("x", []) == "known: none"
    assert did_you_mean("exc", ["ewc", "lora"]) == "did you mean 'ewc'?"


def test_register_marks_the_thing_and_returns_it() -> None:
    def thing() -> int:
        return 7

    assert registry.register("report", "seven")(thing) is thing
    assert thing.registered_name == "seven"  # type: ignore[attr-defined]


def test_register_refuses_an_unknown_kind() -> None:
    with pytest.raises(BenchError, match="unknown kind 'metod'; use one of method"):
        registry.register("metod", "x")


def test_a_good_plugin_is_listed_and_loaded(write: Callable[..., Path]) -> None:
    path = write(GOOD.format(name="mine"))
    registry.add_plugin(path)
    registry.add_plugin(path)  # twice is once
    entry = registry.entry("method", "mine")
    assert registry.plugins() == [path.resolve()]
    assert entry.origin == f"plugin {path}"
    assert entry.summary == "Does nothing, on two lines."
    loaded = registry.load("method", "mine")
    assert (loaded.__name__, loaded.registered_name) == ("Mine", "mine")
    assert registry.load("method", "mine") is loaded


def test_literal_class_attributes_are_facts_and_computed_ones_are_left_out(
    write: Callable[..., Path],
) -> None:
    registry.add_plugin(write(GOOD.format(name="mine")))
    inherited = registry.entry("method", "source-only").facts.keys()
    facts = registry.entry("method", "mine").facts
    assert "computed" not in facts
    assert {k: v for k, v in facts.items() if k not in inherited or k in ("family", "needs")} == {
        "family": "CL",
        "needs": ("source_data", "replay_memory"),
        "settings": {"depth": [1, 2.5, None, True]},
    }
    assert facts["tasks"] == ("classification", "detection")
    assert facts["provenance"] == "chosen-here"  # of `bench.Method`


def test_facts_follow_base_classes_also_imported_ones(write: Callable[..., Path]) -> None:
    text = (
        "from bench import register\nfrom bench.methods.tent import Tent\n"
        "class Middle(Tent):\n    family = 'CL'\n    needs = tuple(['source_data'])\n"
        "@register('method', 'mine')\nclass Mine(Middle):\n    protocols = ('online',)\n"
    )
    registry.add_plugin(write(text))
    mine, tent = registry.entry("method", "mine"), registry.entry("method", "tent")
    assert mine.facts["family"] == "CL"
    assert mine.facts["protocols"] == ("online",)
    assert mine.facts["paper"] == tent.facts["paper"]
    assert "needs" not in mine.facts  # computed, so that only importing tells


def test_one_class_under_a_further_name_has_other_defaults_and_declarations(
    write: Callable[..., Path],
) -> None:
    text = (
        "from bench import Method, MethodConfig, register\n"
        "class C(MethodConfig):\n    rate: float = 0.5\n"
        "@register('method', 'slow', config={'rate': 0.25}, family='CL', summary='Slowly.')\n"
        "@register('method', 'plain')\n"
        "class Plain(Method):\n    'At once.'\n    Config = C\n"
    )
    registry.add_plugin(write(text))
    plain, slow = registry.load("method", "plain"), registry.load("method", "slow")
    assert (plain.Config().rate, slow.Config().rate, slow.Config(rate=2).rate) == (0.5, 0.25, 2)
    assert (plain.family, slow.family) == ("UDA", "CL")
    assert (plain.registered_name, slow.registered_name) == ("plain", "slow")
    assert registry.entry("method", "slow").facts["family"] == "CL"
    assert registry.entry("method", "slow").summary == "Slowly."
    assert registry.entry("method", "plain").summary == "At once."
    assert issubclass(slow, plain)
    assert registry.load("method", "slow") is slow


def test_a_class_registered_at_run_time_is_found_and_the_last_of_a_name_counts() -> None:
    from bench import Method

    for _ in range(2):  # as a notebook's cell that is run again

        @registry.register("method", "made-here")
        class Made(Method):
            """Made in a test."""

    found = registry.entry("method", "made-here")
    assert (found.origin, found.file, found.summary) == ("run time", None, "Made in a test.")
    assert registry.load("method", "made-here") is Made
    with registry.isolated():
        assert "made-here" not in registry.entries("method")
    assert "made-here" in registry.entries("method")


def test_a_shipped_name_cannot_be_taken_at_run_time() -> None:
    from bench import Method

    @registry.register("method", "tent")
    class Mine(Method):
        pass

    with pytest.raises(BenchError, match=r"'tent' is registered twice, in .*tent.py and at run"):
        registry.entries("method")


def test_another_packages_decorator_of_that_name_registers_nothing(
    write: Callable[..., Path],
) -> None:
    text = (
        "from bench import register\nimport other\n"
        "@register('method', 'mine')\nclass Mine: ...\n"
        "@other.register('a', 'b')\nclass Theirs: ...\n"
    )
    registry.add_plugin(write(text))
    assert "mine" in registry.entries("method")


def test_a_function_can_be_registered_and_other_decorators_are_passed_over(
    write: Callable[..., Path],
) -> None:
    text = (
        "import functools\nimport bench\nNAME = 'x'\n"
        "@functools.cache\n@bench.register('report', 'table')\ndef table():\n    '''A table.'''\n"
    )
    registry.add_plugin(write(text))
    assert registry.entry("report", "table").summary == "A table."


def one_line(error: pytest.ExceptionInfo[BenchError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError) as caught:
        registry.add_plugin(tmp_path / "nowhere.py")
    assert "nowhere.py: no such file; give the path of a Python file" in one_line(caught)


def test_a_folder_is_no_plugin(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such file"):
        registry.add_plugin(tmp_path)


def test_a_plugin_with_a_syntax_error_names_file_and_line(write: Callable[..., Path]) -> None:
    path = write("x = 1\nclass (:\n")
    with pytest.raises(BenchError) as caught:
        registry.add_plugin(path)
    text = one_line(caught)
    assert str(path) in text
    assert "not valid Python" in text
    assert "line 2" in text
    assert registry.plugins() == []


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x = 1\x00\n"])
def test_a_plugin_that_is_no_text_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "binary.py"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"binary\.py: not valid Python"):
        registry.add_plugin(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "class Mine: pass\n",
        "from bench import register\nNAME = 'a'\n@register('method', NAME)\nclass A: ...\n",
    ],
)
def test_a_plugin_that_registers_nothing_says_how_to(write: Callable[..., Path], text: str) -> None:
    with pytest.raises(BenchError) as caught:
        registry.add_plugin(write(text))
    assert 'registers nothing; decorate a class with @register("method", "name")' in one_line(
        caught
    )


def test_a_plugin_with_an_unknown_kind_names_the_line(write: Callable[..., Path]) -> None:
    path = write("from bench import register\n\n@register('metod', 'x')\nclass A: ...\n")
    with pytest.raises(BenchError) as caught:
        registry.add_plugin(path)
    assert f"{path}:4: unknown kind 'metod'" in one_line(caught)


def test_a_plugin_that_raises_on_import_is_listed_but_does_not_load(
    write: Callable[..., Path],
) -> None:
    path = write(GOOD.format(name="mine") + "\nraise RuntimeError('no board here')\n")
    registry.add_plugin(path)
    assert "mine" in registry.entries("method")
    before = set(sys.modules)
    for _ in range(2):  # a half-made module must not be found the second time
        with pytest.raises(BenchError) as caught:
            registry.load("method", "mine")
        assert one_line(caught) == f"plugin {path}: RuntimeError: no board here"
    assert not [m for m in set(sys.modules) - before if m.startswith("bench_plugin")]


def test_two_plugins_of_one_name_are_refused_naming_both_files(
    write: Callable[..., Path],
) -> None:
    first = write(GOOD.format(name="mine"), "first.py")
    second = write(GOOD.format(name="mine"), "second.py")
    registry.add_plugin(first)
    registry.add_plugin(second)
    with pytest.raises(BenchError) as caught:
        registry.entries("method")
    text = one_line(caught)
    assert "method 'mine' is registered twice" in text
    assert str(first) in text
    assert str(second) in text


def test_a_plugin_cannot_take_a_shipped_name(write: Callable[..., Path]) -> None:
    registry.add_plugin(write(GOOD.format(name="tent")))
    with pytest.raises(BenchError, match="method 'tent' is registered twice"):
        registry.entry("method", "tent")


def test_one_file_cannot_register_a_name_twice(write: Callable[..., Path]) -> None:
    text = "from bench import register\n" + "".join(
        f"@register('method', 'same')\nclass {name}: ...\n" for name in "AB"
    )

    def add() -> None:
        registry.add_plugin(write(text))
        registry.entry("method", "same")

    with pytest.raises(BenchError, match="twice"):
        add()


def test_plugins_of_one_file_name_in_two_folders_are_two_modules(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    registry.add_plugin(write(GOOD.format(name="mine-a"), "a/mine.py"))
    registry.add_plugin(write(GOOD.format(name="mine-b"), "b/mine.py"))
    assert registry.load("method", "mine-a").registered_name == "mine-a"
    assert registry.load("method", "mine-b").registered_name == "mine-b"
