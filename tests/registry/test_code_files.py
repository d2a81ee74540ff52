"""Which files belong to a component's code: all that its author could edit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = """
import json, os, sys
from pathlib import Path
import bench.contracts.method
from bench import registry
from bench.errors import BenchError
from bench.registry.component_code import component_digest
from bench.registry.discovery import scan_project

scan_project()

def answer(task):
    sys.path[:0] = task["path"]
    try:
        for plugin in task["plugins"]:
            registry.add_plugin(plugin)
        return [component_digest(registry.entry("method", name)) for name in task["names"]]
    except BenchError as error:
        return str(error)

for task in json.load(sys.stdin):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(answer(task)).encode())
        os._exit(0)
    os.close(write)
    print("answer", os.fdopen(read).read())
    os.wait()
"""

METHOD = """
from bench import Method, register

@register("method", "mine")
class Mine(Method):
    pass
"""
BESIDE = "import pathlib, sys\nsys.path.insert(0, str(pathlib.Path(__file__).parent))\n"
HERE = "import pathlib\nHERE = pathlib.Path(__file__).parent\n"


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def answers(*tasks: dict) -> list:
    """What each task gives in a process of its own: digests by name, or an error."""
    known = {"path": [], "plugins": [], "names": ["mine"]}
    done = subprocess.run(
        [sys.executable, "-P", "-c", DRIVER],
        input=json.dumps([{**known, **task} for task in tasks]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said = [line.partition(" ") for line in done.stdout.splitlines()]
    return [json.loads(text) for word, _, text in said if word == "answer"]


def plugin(folder: Path, *path: Path) -> dict:
    return {"plugins": [str(folder / "plugin.py")], "path": [str(p) for p in path]}


REACHED = {
    "beside it": ({"plugin.py": BESIDE + "import knobs\n", "knobs.py": "A = 1\n"}, "knobs.py"),
    "a name of it": (
        {"plugin.py": BESIDE + "from knobs import A\n", "knobs.py": "A = 1\n"}, "knobs.py",
    ),
    "in a function": (
        {"plugin.py": f"def late():\n    {BESIDE.replace(chr(10), chr(10) + '    ')}import knobs\n",
         "knobs.py": "A = 1\n"}, "knobs.py",
    ),
    "in a package": (
        {"plugin.py": BESIDE + "from lab.deep import knobs\n", "lab/__init__.py": "",
         "lab/deep/__init__.py": "A = 1\n", "lab/deep/knobs.py": ""}, "lab/deep/__init__.py",
    ),
    "through others": (
        {"plugin.py": BESIDE + "import lab.first\n", "lab/__init__.py": "",
         "lab/first.py": "from . import second\n", "lab/second.py": "def f():\n    import third\n",
         "third.py": "A = 1\n"}, "third.py",
    ),
    "in a namespace package": (
        {"plugin.py": BESIDE + "import ns.inner.knobs\n", "ns/inner/knobs.py": "A = 1\n"},
        "ns/inner/knobs.py",
    ),
    "by importlib": (
        {"plugin.py": BESIDE + "import importlib\ndef f():\n    importlib.import_module('knobs')\n",
         "knobs.py": "A = 1\n"}, "knobs.py",
    ),
    "by a computed name": (
        {"plugin.py": BESIDE + "import importlib\nA = importlib.import_module('kno' + 'bs').A\n",
         "knobs.py": "A = 1\n"}, "knobs.py",
    ),
    "by its path": (
        {"plugin.py": HERE + "from importlib import util\ndef load(name):\n"
         "    spec = util.spec_from_file_location(name, HERE / 'lib' / f'{name}.py')\n"
         "    module = util.module_from_spec(spec)\n    spec.loader.exec_module(module)\n"
         "    return module.A\nA = load('knobs')\n",
         "lib/knobs.py": "A = 1\n"}, "lib/knobs.py",
    ),
    "by runpy": (
        {"plugin.py": HERE + "import runpy\nA = runpy.run_path(str(HERE / 'knobs.py'))['A']\n",
         "knobs.py": "A = 1\n"}, "knobs.py",
    ),
    "as a text": (
        {"plugin.py": HERE + "exec((HERE / 'knobs.txt').read_text())\n", "knobs.txt": "A = 1\n"},
        "knobs.txt",
    ),
    "as data of another module": (
        {"plugin.py": BESIDE + "import knobs\n", "data/knobs.json": '{"A": = 1}',
         "knobs.py": HERE + "TEXT = open(HERE / 'data' / 'knobs.json').read()\n"},
        "data/knobs.json",
    ),
}  # fmt: skip


def test_what_a_plugin_reaches_counts_and_its_place_does_not(tmp_path: Path) -> None:
    tasks = []
    for name, (files, changed) in REACHED.items():
        files = {**files, "plugin.py": files["plugin.py"] + METHOD, "unused.py": "A = 1\n"}
        other = {**files, changed: files[changed].replace("= 1", "= 2")}
        unused = {**files, "unused.py": "A = 2\n"}
        assert other != files
        for kind, each in (("here", files), ("there", unused), ("other", other)):
            tasks.append(plugin(lay(tmp_path / name / kind, each)))
    found = answers(*tasks)
    for i, name in enumerate(REACHED):
        here, there, other = found[3 * i : 3 * i + 3]
        assert isinstance(here, list), (name, here)
        assert here == there, name
        assert here != other, name


def test_a_module_on_the_path_counts_wherever_it_lies(tmp_path: Path) -> None:
    """As one that ``PYTHONPATH`` or an editable install adds."""
    lay(tmp_path, {"plugin.py": "from shared.tools import f\n" + METHOD})
    texts = {"a": "def f(): return 1\n", "b/c": "def f(): return 1\n", "d": "def f(): return 2\n"}
    for place, text in texts.items():
        lay(tmp_path / place, {"shared/__init__.py": "", "shared/tools.py": text})
    a, b, d = answers(*(plugin(tmp_path, tmp_path / place) for place in texts))
    assert a == b != d


def test_libraries_do_not_count(tmp_path: Path) -> None:
    lay(tmp_path, {"plugin.py": "import json, library\n" + METHOD})
    for place, text in (("a", "A = 1\n"), ("b", "A = 2\n")):
        lay(tmp_path / place / "site-packages", {"library.py": text})
    a, b = answers(*(plugin(tmp_path, tmp_path / place / "site-packages") for place in "ab"))
    assert a == b


def test_files_that_are_written_or_lie_elsewhere_do_not_count(tmp_path: Path) -> None:
    code = (
        HERE + "LOG = HERE / 'log.txt'\nN = len(LOG.read_text()) if LOG.exists() else 0\n"
        "LOG.write_text('x' * (N + 1))\nOTHER = (HERE.parent / 'machine.txt').read_text()\n"
        "HIDDEN = (HERE / '.cache' / 'x').read_text()\nprint('loaded')\n"
    )
    files = {"in/plugin.py": code + METHOD, "in/.cache/x": "1", "machine.txt": "1"}
    folder = lay(tmp_path, files)
    first = answers(plugin(folder / "in"))
    lay(tmp_path, {"in/.cache/x": "2", "machine.txt": "2"})
    assert answers(plugin(folder / "in")) == first


def test_the_order_in_which_plugins_are_loaded_does_not_matter(tmp_path: Path) -> None:
    code = BESIDE + "import importlib\nA = importlib.import_module('kno' + 'bs').A\n" + METHOD
    lay(tmp_path, {"knobs.py": "A = 1\n"})
    for name in ("a", "b"):
        lay(tmp_path, {f"{name}.py": code.replace('"mine"', f'"{name}"')})
    both = [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
    ab, ba = answers({"plugins": both, "names": ["a", "b"]}, {"plugins": both, "names": ["b", "a"]})
    assert ab == ba[::-1]


def test_two_plugins_with_a_module_of_one_name_are_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        code = BESIDE + "import knobs\n" + METHOD.replace('"mine"', f'"{name}"')
        lay(tmp_path / name, {"plugin.py": code, "knobs.py": f"A = {name!r}\n"})
    both = [str(tmp_path / name / "plugin.py") for name in ("a", "b")]
    (text,) = answers({"plugins": both, "names": ["a", "b"]})
    assert "imports 'knobs', of which there are two" in text
    assert str(tmp_path / "a" / "knobs.py") in text
    assert str(tmp_path / "b" / "knobs.py") in text
    assert text.endswith("rename one of them")


@pytest.mark.parametrize(
    "files",
    [
        {"plugin.py": "from one import f\nfrom two import g\n"},
        {"plugin.py": "import one as f\nimport two as g\n"},
        {"plugin.py": "try:\n    from one import f\nexcept ImportError:\n    from two import f\n"},
        {"plugin.py": "from middle import f, g\n", "middle.py": "from one import f\n"
         "from two import g\n"},
    ],
)  # fmt: skip
def test_which_module_a_name_comes_from_counts(tmp_path: Path, files: dict[str, str]) -> None:
    (name,) = [n for n, text in files.items() if "one" in text]
    swap = files[name].replace("one", "zero").replace("two", "one").replace("zero", "two")
    helpers = {n: f"def f(): return {n!r}\ndef g(): return {n!r}\n" for n in ("one", "two")}
    tasks = []
    for kind, each in (("a", files), ("b", {**files, name: swap})):
        laid = {**each, **{f"{n}.py": text for n, text in helpers.items()}}
        laid["plugin.py"] = BESIDE + laid["plugin.py"] + METHOD
        tasks.append(plugin(lay(tmp_path / kind, laid)))
    a, b = answers(*tasks)
    assert a != b


# --- installed packages -------------------------------------------------------------------


def installed(folder: Path, value: str = "1", **more: str) -> dict:
    """A package with a method, as pip leaves it in a folder of ``site-packages``."""
    site = folder / "site-packages"
    info = "lab_methods-1.0.dist-info"
    record = f"lab_methods/__init__.py,sha256={value},1\n../../../bin/lab,sha256={folder.name},1\n"
    lay(
        site,
        {
            f"{info}/METADATA": "Name: lab-methods\nVersion: 1.0\n",
            f"{info}/entry_points.txt": "[bench.methods]\nlab = lab_methods.idea\n",
            f"{info}/RECORD": record + f"{info}/RECORD,,\n",
            "lab_methods/__init__.py": "",
            "lab_methods/idea.py": METHOD,
            **more,
        },
    )
    return {"path": [str(site)]}


def test_an_installed_package_counts_with_its_version_and_record(tmp_path: Path) -> None:
    info = "lab_methods-1.0.dist-info"
    first, again, record, version, edited = answers(
        installed(tmp_path / "a"),
        installed(tmp_path / "b"),
        installed(tmp_path / "c", value="2"),
        installed(tmp_path / "d", **{f"{info}/METADATA": "Name: lab-methods\nVersion: 1.1\n"}),
        installed(tmp_path / "e", **{"lab_methods/__init__.py": "A = 2\n"}),
    )
    assert first == again
    assert len({str(each) for each in (first, record, version, edited)}) == 4


def test_a_plugin_file_that_uses_an_installed_plugin_counts_with_it(tmp_path: Path) -> None:
    code = "import lab_methods.idea\n" + METHOD.replace('"mine"', '"other"')
    lay(tmp_path, {"plugin.py": code})
    one, two = answers(
        *({**installed(tmp_path / v, value=v), "plugins": [str(tmp_path / "plugin.py")],
           "names": ["other"]} for v in ("1", "2"))
    )  # fmt: skip
    assert one != two


def test_an_editable_install_counts_with_the_code_where_it_lies(tmp_path: Path) -> None:
    url = json.dumps({"url": "file:///x", "dir_info": {"editable": True}})
    tasks = []
    for place, value in (("a", "1"), ("b", "1"), ("c", "2")):
        code = {"lab_methods/__init__.py": "", "lab_methods/idea.py": "from . import knobs\n"}
        code["lab_methods/idea.py"] += METHOD
        code["lab_methods/knobs.py"] = f"A = {value}\n"
        lay(tmp_path / place / "src", code)
        info = "lab_methods-1.0.dist-info"
        meta = {
            f"{info}/METADATA": "Name: lab-methods\nVersion: 1.0\n",
            f"{info}/entry_points.txt": "[bench.methods]\nlab = lab_methods.idea\n",
            f"{info}/RECORD": f"__editable__.lab.pth,sha256={place},1\n",
            f"{info}/direct_url.json": url,
        }
        site = lay(tmp_path / place / "site-packages", meta)
        tasks.append({"path": [str(site), str(tmp_path / place / "src")]})
    a, b, c = answers(*tasks)
    assert a == b != c
