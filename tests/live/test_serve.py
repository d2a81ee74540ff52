"""``bench serve`` as a process: what it answers, what it refuses, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from warm_bench import program

from bench.execute.claims import Claims
from bench.records.log_tail import log_tail

SECRET = "root of all secrets"


def start(folder, *arguments):
    return program(
        [sys.executable, "-P", "-m", "bench", "serve", "--store", "store", *arguments],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def served(tmp_path):
    """A served store and its address; the process is ended if the test did not."""
    processes = []

    def made():
        process = start(tmp_path, "--port", "0")
        processes.append(process)
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.stderr.read()
        return process, url

    yield made
    for process in processes:
        process.kill()
        process.communicate()


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as found:
        return found.read().decode()


def wait_for(url, part, limit_s=300):
    deadline = time.monotonic() + limit_s
    while part not in (text := get(url)):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return text


def ask(url, method, path, host=None):
    """A request as no client library would send it; the status and the headers."""
    address = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    for name in [address] if host is None else host:
        connection.putheader("Host", name)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_the_page_follows_a_growing_store_and_ctrl_c_ends_it(reports, fill, tmp_path, served):
    make, nasty = reports.make_record, reports.NASTY
    store = fill(make("source-only", 0, after=0.5))
    with Claims(store) as mine:
        mine.take([make("tent", 0).cell])
        process, url = served()
        frame = get(url)
        assert 'src="/status"' in frame
        assert 'src="/report"' in frame
        status = wait_for(f"{url}status", "1 record: 1 ok")
        assert "tent · small-vit · board · seed 0" in status
        report = wait_for(f"{url}report", "source-only")
        assert "eata" not in report

        store.write(make("eata", 0, after=0.61))
        failed = make("shot", 0, status="failed", reason=nasty, run="shot-0", log="logs/shot-0.log")
        store.logs.mkdir()
        (store.logs / "shot-0.log").write_text("first line\n<b>last</b> \x1b[31mline\n")
        store.write(failed)
        status = wait_for(f"{url}status", "3 records: 1 failed, 2 ok")
        assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in status
        assert "&lt;b&gt;last&lt;/b&gt; line" in status
        assert "<script" not in status
        assert wait_for(f"{url}report", "eata").count("<script>alert") == 0
        log = get(f"{url}log/{failed.identity}")
        assert log == "first line\n<b>last</b> line\n"
    wait_for(f"{url}status", "Nothing runs.")
    assert not (store.root / "index.jsonl").exists()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "bench: stopping…\nbench: stopped; the page is gone\n"


def test_what_is_refused(reports, fill, tmp_path, served):
    store = fill(reports.make_record("tent", 0, status="failed", reason="x", log="../secret"))
    (tmp_path / "secret").write_text(SECRET)
    _, url = served()
    port = url.rstrip("/").rpartition(":")[2]
    wait_for(f"{url}status", "1 record: 1 failed")
    paths = ("/../secret", "/log/../../secret", "/log/%2e%2e%2fsecret", "/store", "//etc/passwd")
    for path in (*paths, "/log/" + "0" * 20, f"{url}secret", "/status/", "/log/"):
        status, _, body = ask(url, "GET", path)
        assert (status, body) == (404, b"404 Not Found\n"), path
    (identity,) = (path.stem for path in store.records.iterdir())
    assert SECRET not in get(f"{url}log/{identity}")
    assert "is no file in logs/" in get(f"{url}log/{identity}")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "WHATEVER"):
        status, headers, _ = ask(url, method, "/")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    for host in (["evil.example"], [f"evil.example:{port}"], ["127.0.0.1.evil.example"],
                 ["localhost@evil.example"], [""], [], ["localhost", "evil.example"]):  # fmt: skip
        status, _, body = ask(url, "GET", "/status", host)
        assert (status, body) == (403, b"403 Forbidden\n"), host
    for host in ("localhost", f"LOCALHOST:{port}", "127.0.0.1:1"):
        assert ask(url, "GET", "/status", [host])[0] == 200
    _, headers, _ = ask(url, "HEAD", "/status")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    status, headers, body = ask(url, "HEAD", "/report")
    assert (status, body) == (200, b"")
    assert headers["Content-Security-Policy"].startswith("frame-ancestors 'self'")  # and its own
    assert headers["X-Content-Type-Options"] == "nosniff"
    again = urllib.request.Request(f"{url}report", headers={"If-None-Match": headers["ETag"]})
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(again, timeout=30)


def test_only_the_loopback_interface_is_bound_and_a_taken_port_is_refused(
    reports, fill, tmp_path, served
):
    fill(reports.make_record("tent", 0))
    process, url = served()
    port = url.rstrip("/").rpartition(":")[2]
    network = Path(f"/proc/{process.pid}/net")
    table = "".join((network / name).read_text() for name in ("tcp", "tcp6"))
    listening = [row.split()[1] for row in table.splitlines() if f":{int(port):04X} " in row
                 and row.split()[3] == "0A"]  # fmt: skip
    assert listening == [f"0100007F:{int(port):04X}"]
    second = start(tmp_path, "--port", port)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert said == (
        f"bench: --port {port}: Address already in use; name another, or 0 for a free one\n"
    )
    # A connection that says nothing holds nobody up.
    with socket.create_connection(("127.0.0.1", int(port))):
        assert "<iframe" in get(url)


def test_a_store_without_results_says_so(reports, fill, served):
    fill(reports.make_record("tent", 0, status="failed", reason="<i>x</i>"))
    _, url = served()
    assert "none of 1 records has results" in wait_for(f"{url}report", "has results")


def test_logs_are_read_from_the_folder_of_logs_alone(fill, tmp_path):
    store = fill()
    store.logs.mkdir()
    (tmp_path / "secret").write_text(SECRET)
    (store.logs / "link.log").symlink_to(tmp_path / "secret")
    os.mkfifo(store.logs / "pipe.log")
    (store.logs / "folder.log").mkdir()
    (store.logs / "empty.log").touch()
    (store.logs / "long.log").write_text("".join(f"line {i}\n" for i in range(100_000)))
    (store.logs / "odd.log").write_bytes(b"\xff\xfe caf\xc3\xa9\x00\x1b[2J\n")
    for log in ("logs/link.log", "logs/pipe.log", "logs/folder.log", "logs/none.log", "logs/..",
                "../secret", "/etc/passwd", "logs/../secret", "", "logs/\0.log"):  # fmt: skip
        (line,) = log_tail(store, log, 10)
        assert line.startswith("(no log: "), log
        assert SECRET not in line
        assert line.isprintable()
    assert log_tail(store, "logs/empty.log", 10) == ["(the log is empty)"]
    assert log_tail(store, "logs/long.log", 2) == ["line 99998", "line 99999"]
    assert len(log_tail(store, "logs/long.log", 10**6)) < 7000  # the last 64 KiB
    assert log_tail(store, "logs/odd.log", 2) == ["�� café"]
