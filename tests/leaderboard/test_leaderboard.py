"""The leaderboard: what is accepted, what is rejected and why, and the site that comes of it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.cli import main
from bench.costs.device_profile import load_device, profile_digest
from bench.errors import BenchError
from bench.leaderboard.site import write_site
from bench.leaderboard.submissions import Submission, read_submissions
from bench.records.cell import Cell, Component
from bench.records.record import Amount, Costs, DomainResult, MethodFacts, Record, Results
from bench.records.store import Store

DEVICE = "xavier-nx"
Submit = Callable[..., Path]


def amount(value: float, unit: str = "B", kind: str = "modelled") -> Amount:
    return Amount(value=value, unit=unit, kind=kind, how="profile x")  # type: ignore[arg-type]


def results(after: float = 0.75, **costs: Any) -> Results:
    """Two domains of 100 samples, a second each at 6 W."""
    domains = [
        DomainResult(
            name=name, before=0.5, after=after, final=after, adaptation_samples=100,
            test_samples=100, steps=2, time_s=1.0, energy_j=6.0, window_closed=False,
        )
        for name in ("noise", "blur")
    ]  # fmt: skip
    fields: dict[str, Any] = {
        "adaptation_time": amount(2.0, "s"), "adaptation_energy": amount(12.0, "J"),
        "peak_memory": amount(4e7), "runtime_memory": amount(1e9),
        "source_storage": amount(0.0, kind="measured"), "inference_time": amount(1e-4, "s/sample"),
        "inference_energy": amount(1e-3, "J"), "steps": {"adapt": 4}, "flops": 1e9, "bytes": 1e8,
        "launches": 9, "tracing_s": 0.1,
    }  # fmt: skip
    return Results(
        source_before=0.9, source_after=0.8, source_samples=100, domains=domains,
        costs=Costs(**fields | costs),
    )  # fmt: skip


def record(method: str = "tent", seed: int = 0, **more: Any) -> Record:
    """Of a method of this project with the code that it has, unless said otherwise."""
    known = registry.entries("method").get(method)
    code = more.pop("code", "c0de")
    facts = {
        "family": "UDA", "paper": "none", "needs": [], "changed": {},
        "provenance": "plugin" if known is None else known.facts["provenance"],
    } | more.pop("facts", {})  # fmt: skip
    cell = Cell(
        method=Component(name=method, config={}, code=code),
        model=Component(name="digits-vit", config={}, code="beef"),
        stream=Component(name="digits-shift", config={}, code="cafe"),
        data="da7a", device=DEVICE, device_digest=profile_digest(load_device(DEVICE)),
        protocol={"name": "periodic", "window_s": 60.0}, seed=seed, **more.pop("cell", {}),
    )  # fmt: skip
    fields: dict[str, Any] = {
        "identity": cell.identity, "run": "r", "suite": "domain-shift", "status": "ok",
        "cell": cell, "method": MethodFacts(**facts), "started": "2026-01-01T00:00:00+00:00",
        "wall_s": 3.0, "results": results(), "environment": {"processor": "some CPU"},
    }  # fmt: skip
    return Record(**fields | more)


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    """Writes a submission into the folder; by default with who made it."""

    def write(name: str, *records: Record, claim: str | None = "by: A Lab") -> Path:
        store = Store(tmp_path / "in" / name)
        store.records.mkdir(parents=True)
        for each in records:
            store.write(each)
        if claim is not None:
            store.root.with_name(f"{name}.yaml").write_text(claim, encoding="utf-8")
        return store.root

    return write


def read(path: Path) -> list[Submission]:
    return read_submissions(path.parent)


def test_two_labs_are_one_report_and_an_index(submit: Submit, tmp_path: Path) -> None:
    submit("alpha", *(record(m, s) for m in ("source-only", "tent") for s in range(3)))
    claim = "{by: 'B <b>Lab</b>', link: 'https://example.org/b', note: plugin beside the paper}"
    own = [record("my-idea", s, results=results(0.9)) for s in range(3)]
    found = read(submit("beta", *own, record("tent", 0), claim=claim))
    assert [each.accepted for each in found] == [True, True]
    assert [each.problems for each in found] == [[], []]
    assert "methods of the submitter's own: my-idea" in found[1].remarks
    assert "1 of its runs are also in alpha, with the same score" in found[1].remarks
    assert "run with other code than this version's: source-only, tent" in found[0].remarks
    paths = write_site(found, tmp_path / "site")
    assert paths[0].name == "index.html"
    index = paths[0].read_text(encoding="utf-8")
    assert "show 9 runs" in index  # the one that both have counts once
    assert "self-reported" in index
    assert "B &lt;b&gt;Lab&lt;/b&gt;" in index
    assert '<a href="https://example.org/b" rel="noopener nofollow">' in index
    assert re.findall(r'(?:src|href)="(?!https://example.org/b|report.html)', index) == []
    report = (tmp_path / "site" / "report.html").read_text(encoding="utf-8")
    assert "my-idea" in report
    assert "Leaderboard of 2 submissions, self-reported" in report
    assert "yours" in report  # the origin of a plugin's method


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: record("my-idea", facts={"provenance": "published"}),
         "method my-idea calls itself 'published', and is none of this project's"),
        (lambda: record("tent", facts={"provenance": "chosen-here"}),
         "method tent calls itself 'chosen-here', and is 'published' here"),
        (lambda: record("ewc"),
         "method ewc needs target labels and is not marked as a supervised reference"),
        (lambda: record("my-idea", facts={"needs": ["target_labels"]}), "needs target labels and"),
        (lambda: record("tent", facts={"settings_origin": "oracle"},
                        cell={"settings_origin": "tuned"}), "its settings are oracle and tuned"),
        (lambda: record("tent", facts={"changed": {"epochs": 9}}),
         "tells a setting epochs=9 that it did not run with"),
        (lambda: record("tent", environment={}, results=results(
            adaptation_time=amount(2.0, "s", "measured"))), "measured, and the record names no"),
        (lambda: record("tent", results=results(0.7512)),
         "accuracy 0.7512 (after) is no share of 100 test samples"),
        (lambda: record("tent", results=results(adaptation_time=amount(1.0, "s"))),
         "time_s of the domains adds up to 2, its total is 1"),
        (lambda: record("tent", results=results(adaptation_energy=amount(3.0, "J"))),
         "energy_j of the domains adds up to 12, its total is 3"),
        (lambda: record("tent", results=results(steps={"adapt": 3})), "steps of the domains do"),
        (lambda: record("tent", results=results(flops=1e15)), "are more than xavier-nx's peak of"),
        (lambda: record("tent", results=results(peak_memory=amount(1e12))), "do not fit xavier-nx"),
        (lambda: record("tent", results=results(peak_memory=amount(-1.0))), "peak_memory is neg"),
        (lambda: record("tent", wall_s=1.0, results=results(
            adaptation_time=amount(2.0, "s", "measured"))), "was measured to take 2 s of a run of"),
        (lambda: record("tent", started="2999-01-01T00:00:00+00:00"), "is not a time in the past"),
        (lambda: record("tent", started="yesterday"), "started 'yesterday' is no time"),
        (lambda: record("tent", wall_s=0.0), "the run took 0 s"),
    ],
)  # fmt: skip
def test_what_claims_too_much_or_cannot_be_is_rejected(
    submit: Submit, made: Callable[[], Record], why: str
) -> None:
    good, bad = read(submit("good", record())), made()
    assert good[0].accepted
    submission = read(submit("bad", record(), bad))[0]
    assert not submission.accepted
    assert any(bad.identity in line and why in line for line in submission.problems)
    assert all("\n" not in line for line in submission.problems)


def test_labels_that_are_due_are_accepted(submit: Submit) -> None:
    reference = record("ewc", cell={"target_labels": True}, facts={"needs": ["target_labels"]})
    failed = record("shot", 1, status="failed", reason="it broke", results=None)
    (found,) = read(submit("fair", record(), reference, failed))
    assert found.problems == []
    assert (len(found.records), len(found.results)) == (3, 2)


def test_files_that_are_no_records_are_named(submit: Submit) -> None:
    root = submit("edited", record("tent", 0), record("tent", 1))
    file = sorted((root / "records").glob("*.json"))[0]
    content = json.loads(file.read_text(encoding="utf-8"))
    content["cell"]["seed"] = 7
    file.write_text(json.dumps(content), encoding="utf-8")
    (root / "records" / "x.json").write_text("{", encoding="utf-8")
    (found,) = read(root)
    assert not found.accepted
    told = " ".join(found.problems)
    assert f"is no record: {file.name}: its identity" in told
    assert "is no record: x.json" in told
    many = submit("many", record())
    for i in range(9):
        (many / "records" / f"{i}.json").write_text("{", encoding="utf-8")
    assert "and 4 more" in read(many)[1].problems


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (None, "lab.yaml beside it is missing: write 'by: '"),
        ("link: https://x.org", "lab.yaml beside it: key 'by': missing; add it"),
        ("{by: A, lnik: x}", "'lnik': unknown; did you mean 'link'"),
        ("{by: A, link: 'javascript:alert(1)'}", "key 'link'"),
        ("- by", "lab.yaml beside it"),
        ("by: [", "lab.yaml"),
    ],
)
def test_a_submission_says_who_made_it(submit: Submit, claim: str | None, why: str) -> None:
    (found,) = read(submit("lab", record(), claim=claim))
    assert not found.accepted
    (problem,) = found.problems
    assert why in problem
    assert "\n" not in problem


def test_one_name_is_one_method_and_one_submission(submit: Submit, tmp_path: Path) -> None:
    submit("alpha", record("my-idea", code="aaaa"))
    beta = submit("beta", record("my-idea", code="bbbb"))
    first, second = read(beta)
    assert first.accepted
    assert second.problems == ["its method my-idea is another than that of alpha: rename it"]
    shutil.make_archive(str(tmp_path / "in" / "alpha"), "zip", tmp_path / "in" / "alpha")
    twice = [each for each in read(beta) if each.name == "alpha"]
    assert [each.accepted for each in twice] == [False, False]


def test_an_archive_is_a_submission_and_others_are_told(submit: Submit, tmp_path: Path) -> None:
    root = submit("lab", record())
    shutil.make_archive(str(root), "zip", root)
    shutil.rmtree(root)
    (found,) = read(root)
    assert found.accepted
    (tmp_path / "in" / "bad name.zip").write_bytes(b"no archive")
    (tmp_path / "in" / "empty").mkdir()
    told = {each.name: each.problems for each in read(root)}
    assert told["bad name"] == ["its name has other signs than letters, numbers and . _ -"]
    assert any("no records there" in line for line in told["empty"])
    with pytest.raises(BenchError, match="holds no store; a submission is a folder"):
        read_submissions(tmp_path / "in" / "empty")
    with pytest.raises(BenchError, match=r"cannot be read: .*; name a folder of stores"):
        read_submissions(tmp_path / "nowhere")


def test_the_command_checks_first_and_says_by_its_exit_code(
    submit: Submit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submit("good", record(), record("source-only"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bench", "leaderboard", "in", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out + told.err

    code, told = run("--check")
    assert (code, "good: accepted; 2 of 2 runs with results" in told) == (0, True)
    assert not (tmp_path / "leaderboard").exists()
    submit("bad", record("tent", 1, wall_s=0.0))
    code, told = run()
    assert (code, "bad: rejected" in told) == (1, True)
    index = (tmp_path / "leaderboard" / "index.html").read_text(encoding="utf-8")
    assert "rejected" in index
    assert "the run took 0 s" in index
    shutil.rmtree(tmp_path / "in" / "good")
    code, told = run()
    assert (code, "no submission is accepted" in told) == (2, True)
