"""Whatever a plugin or an installed package does while it is imported is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from warm_bench import BENCH, warm_bench

from bench import registry
from bench.errors import BenchError
from bench.registry.declarations import LONGEST_NAME

METHOD = """
from bench import Method, register

@register("method", "mine")
class Mine(Method):
    pass
"""

pytestmark = pytest.mark.usefixtures("empty_registry")


@pytest.fixture
def loading(tmp_path: Path) -> Callable[[str], str]:
    """The error of loading a plugin with some code at its end."""

    def load(code: str) -> str:
        path = tmp_path / "plugin.py"
        path.write_text(f"import os, sys\n{METHOD}\n{code}\n")
        registry.add_plugin(path)
        with pytest.raises(BenchError) as caught:
            registry.load("method", "mine")
        text = str(caught.value)
        assert text.startswith(f"plugin {path}: ")
        assert "\n" not in text
        return text

    return load


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit(0)", "it ends Python while it is imported (exit 0); remove that"),
        ("raise SystemExit('bye')", "it ends Python while it is imported (exit 'bye')"),
        ("raise KeyboardInterrupt('mine')", "KeyboardInterrupt: mine"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise type('Own', (BaseException,), {})('a\\nb')", "Own: a b"),
    ],
)
def test_what_ends_python_is_an_error_of_the_plugin(
    loading: Callable[[str], str], code: str, said: str
) -> None:
    assert said in loading(code)


def test_ctrl_c_while_a_plugin_is_imported_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(f"import os, signal\n{METHOD}\nos.kill(os.getpid(), signal.SIGINT)\nprint()\n")
    registry.add_plugin(path)
    with pytest.raises(KeyboardInterrupt):
        registry.load("method", "mine")


def test_a_handled_sigterm_stays_what_it_is_too_and_so_does_what_its_handler_set(
    tmp_path: Path,
) -> None:
    """As a task of a queue is stopped: once."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    path = tmp_path / "plugin.py"
    path.write_text(f"import os, signal\n{METHOD}\nos.kill(os.getpid(), signal.SIGTERM)\nprint()\n")
    registry.add_plugin(path)
    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            registry.load("method", "mine")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, earlier)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_stop_between_two_calls_that_set_handlers_is_a_stop(
    loading: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Two set the handlers that note it, two set the earlier ones again."""
    real, calls = signal.signal, []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def counted(number: int, handler: object) -> object:
        earlier = real(number, handler)  # type: ignore[arg-type]
        calls.append(number)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return earlier

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    real(signal.SIGTERM, stop)
    real(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
    monkeypatch.setattr(signal, "signal", counted)
    try:
        with pytest.raises(KeyboardInterrupt):
            loading("")
        assert len(calls) >= call
    finally:
        for number, handler in before.items():
            real(number, handler)


def test_what_a_plugin_prints_and_changes_does_not_reach_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plugin.py"
    changes = "print('hello')\nos.chdir('/')\nos.umask(0o777)\nsys.argv = []\nsys.stdout = None\n"
    path.write_text(f"import os, sys\n{METHOD}\n{changes}")
    registry.add_plugin(path)
    before = os.umask(0o022)
    os.umask(before)
    out, arguments = sys.stdout, sys.argv
    assert registry.load("method", "mine").registered_name == "mine"
    assert os.getcwd() == str(tmp_path)
    assert (sys.stdout, sys.argv) == (out, arguments)
    assert os.umask(before) == before
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "hello\n"


@pytest.mark.parametrize("name", ["", "a,b", "a b", "a/b", "x" * 256, "a\nb", "-a", "a@8", "a:8"])
def test_a_name_that_commands_or_tables_cannot_take_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(METHOD.replace('"mine"', repr(name)))
    with pytest.raises(BenchError) as caught:
        registry.add_plugin(path)
    text = str(caught.value)
    assert f"{path}:5: " in text
    assert f"is no name of a method: write 1 to {LONGEST_NAME} letters" in text
    assert len(text) < 400
    with pytest.raises(BenchError, match=r"register: .* is no name of a method"):
        registry.register("method", name)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tasks = 5", "tasks is 5: write a tuple of texts, as ('a',)"),
        ("tasks = ('classification')", "tasks is 'classification': write a tuple of texts"),
        ("needs = (None,)", "needs is (None,): write a tuple of texts"),
        ("family = ('CL',)", "family is ('CL',): write a text, as 'a'"),
        ("uses_device_clock = 'no'", "uses_device_clock is 'no': write True or False"),
        ("task = 'segmentation'", "task is 'segmentation': nobody reads it; write tasks = ('a',)"),
    ],
)
@pytest.mark.parametrize("computed", [False, True])
def test_a_declaration_of_a_wrong_type_is_told(
    tmp_path: Path, line: str, said: str, computed: bool
) -> None:
    path = tmp_path / "plugin.py"
    attribute, _, value = line.partition(" = ")
    written = f"{attribute} = next(iter([{value}]))" if computed else line
    path.write_text(METHOD.replace("pass", written))

    def load() -> None:
        registry.add_plugin(path)
        registry.load("method", "mine")

    with pytest.raises(BenchError) as caught:
        load()
    assert f"method 'mine': {said}" in str(caught.value)


@pytest.mark.parametrize(
    "written",
    [
        *(("pass", f"Config = {each}") for each in ("5", "dict", "None")),
        ('"mine"', '"mine", Config=5'),
    ],
)
def test_settings_that_are_no_class_of_settings_are_told(
    tmp_path: Path, written: tuple[str, str]
) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(METHOD.replace(*written))
    registry.add_plugin(path)
    with pytest.raises(BenchError, match=r"make it a subclass of bench\.MethodConfig"):
        registry.load("method", "mine")


def test_a_path_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such file"):
        registry.add_plugin(tmp_path / ("x" * 300 + ".py"))


# --- installed packages -------------------------------------------------------------------


def install(site: Path, package: str, init: str, idea: str | None = METHOD) -> None:
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bench.methods]\n{package} = {package}.idea\n")
    (site / package).mkdir()
    (site / package / "__init__.py").write_text(init)
    if idea is not None:
        (site / package / "idea.py").write_text(idea.replace('"mine"', f'"of-{package}"'))


def test_installed_packages_that_are_broken_leave_the_commands_alone(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    install(site, "raises", "raise RuntimeError('no board')\n")
    install(site, "exits", "import sys\nsys.exit(0)\n")
    install(site, "missing", "", None)
    install(site, "spoiled", "", "def (")
    install(site, "sound", "")
    environment = {**os.environ, "COLUMNS": "200"}

    def bench(*arguments: str) -> subprocess.CompletedProcess:
        code = f"import sys; sys.path.insert(0, {str(site)!r}); {BENCH}"
        return warm_bench().run(arguments, tmp_path, environment, timeout=120, code=code)

    listed = bench("list", "methods")
    assert listed.returncode == 0, listed.stderr
    for name in ("tent", "of-raises", "of-exits", "of-sound"):
        assert f"\n  {name} " in listed.stdout
    warnings = listed.stderr.splitlines()
    assert len(warnings) == 2
    start = "bench: warning: entry point {0!r} of group 'bench.methods': "
    assert sum(line.startswith(start.format("missing")) for line in warnings) == 1
    assert sum(line.startswith(start.format("spoiled")) for line in warnings) == 1

    assert bench("plan", "--suite", "smoke", "--methods", "of-sound").returncode == 0
    for name, said in (
        ("of-raises", "method 'of-raises' cannot be imported from raises.idea: RuntimeError: no b"),
        ("of-exits", "method 'of-exits' cannot be imported from exits.idea: it ends Python while"),
        ("nothing-like-it", "unknown method 'nothing-like-it'"),
    ):
        done = bench("plan", "--suite", "smoke", "--methods", name)
        assert done.returncode == 2
        assert done.stderr.startswith(f"bench: {said}")
        assert done.stderr.count("\n") == 1
