"""docs/lifecycle.md lists the files to read to follow one webhook: here a webhook runs under a tracer."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import redis as redis_py

from rqjobs.testing.sandbox.receiver import Receiver, signing_secret
from tests.support.call_recorder import read_calls
from tests.support.workers import ROOT, Workers, eventually

_PAGE = (ROOT / "docs" / "lifecycle.md").read_text()
LIST, _, HELPERS = _PAGE.partition("<!-- the list")[2].partition("<!-- the end")[0].partition("Helpers")
FILES = re.findall(r"^\d+\. `(rqjobs/\S+)`", LIST, re.MULTILINE)
THREADS = re.compile(r"MainThread|loop|admission|names")
"""The others do what a worker does every second, with jobs or without."""
_APP = """
import sys
from rqjobs import WebhookJob, enqueue_webhook
from tests.support.call_recorder import recorded_calls, write_calls
def enqueue(url):
    enqueue_webhook(WebhookJob(webhook_id="wh_1", event="booking.created", url=url, payload={}))
enqueue(sys.argv[1] + "/ok")  # what is done once, at the first job: imports, the database's tables, Redis' scripts
sys.stdin.read()
with recorded_calls() as calls:  # a name that the worker has yet to look up and to check
    enqueue(sys.argv[1].replace("127.0.0.1", "localhost") + "/ok")
write_calls(calls, sys.argv[2])
"""
"""An app in a process of its own: a tracer in the test's process once looped for ever in the interpreter."""
BESIDE = re.findall(r"`(rqjobs/\S+)`", HELPERS)


def test_the_list_is_short_and_names_files_that_exist() -> None:
    assert 20 <= len(FILES) <= 30
    assert len(BESIDE) <= 25
    assert [name for name in FILES + BESIDE if not (ROOT / name).is_file()] == []
    assert len(set(FILES + BESIDE)) == len(FILES + BESIDE)


def test_no_other_file_works_on_a_webhook(redis: redis_py.Redis, workers: Workers, tmp_path: Path) -> None:
    arrived: list[float] = []
    with Receiver(signing_secret(), on_request=lambda _: arrived.append(time.monotonic())) as receiver:
        environment = {"WEBHOOK_SIGNING_SECRET": receiver.secret, "WEBHOOK_ALLOW": "127.0.0.1 localhost"}
        record = str(tmp_path / "calls")
        worker = workers.command(
            "-m", "tests.support.call_recorder", record, "worker", "webhooks",
            program="python", RQJOBS_IMPORT="", **environment,
        )  # fmt: skip
        app = subprocess.Popen(
            [sys.executable, "-c", _APP, receiver.url, str(tmp_path / "app")],
            env=workers.environment(), stdin=subprocess.PIPE,
        )  # fmt: skip
        eventually(lambda: len(arrived) == 1)
        eventually(lambda: redis.zcard("rq:finished:webhooks"))
        begin = time.monotonic()
        app.communicate(b"go on", timeout=60)
        assert app.returncode == 0
        eventually(lambda: len(arrived) == 2)
        worker.terminate()
        assert worker.wait(60) == 0
    meanwhile = [call for call in read_calls(Path(record)) if begin <= call.at <= arrived[1]]
    worked = {call.file for call in (*read_calls(tmp_path / "app"), *meanwhile) if THREADS.search(call.thread)}
    assert worked - {*FILES, *BESIDE} == set(), "add it to docs/lifecycle.md, or move the work"
    idle = {name for name in FILES if name.endswith(".py")} - worked
    assert idle == set(), "they take no part: take them off the list of docs/lifecycle.md"
