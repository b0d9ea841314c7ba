"""Jobs that the version before enqueued run under this version, and the other way round.

The version before is a wheel of the last commit before the modules moved; both versions share Redis, the database and
the data folder, as in an upgrade.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import rqjobs
from rqjobs import JobFailed, enqueue_batch, enqueue_chain, wait_for_result
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine, open_engine
from rqjobs.dead_letters import groups
from rqjobs.testing.sandbox.manychat import DEFAULT_TOKEN, ManyChatSandbox
from rqjobs.testing.sandbox.receiver import Receiver, signing_secret
from tests.support import apptables, versions
from tests.support.servers import free_port
from tests.support.workers import ROOT, Workers, eventually

BEFORE = "7a82c88"
"""The last commit of the version before."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the version before, as ``pip install --no-deps --target`` makes it."""
    folder = tmp_path_factory.mktemp("before")
    archive = folder / "source.tar"
    paths = ["rqjobs", "pyproject.toml", "README.md", "LICENSE"]
    git = ["git", "-C", str(ROOT), "archive", "-o", str(archive), BEFORE, *paths]
    try:
        subprocess.run(git, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", error)
        pytest.skip(f"NOT TESTED: no git, or a clone without commit {BEFORE} (git fetch --unshallow): {why}")
    with tarfile.open(archive) as source:
        source.extractall(folder / "source", filter="data")
    build = [sys.executable, "-c", f"import hatchling.build as b; print(b.build_wheel({str(folder)!r}))"]
    done = subprocess.run(build, capture_output=True, text=True, check=True, cwd=folder / "source")
    zipfile.ZipFile(folder / done.stdout.split()[-1]).extractall(folder / "installed")
    return folder / "installed"


@dataclass
class Version:
    """One of the two versions, as processes that import its ``rqjobs``."""

    folder: Path
    workers: Workers

    @property
    def path(self) -> str:
        return f"{self.folder}{os.pathsep}{ROOT}"

    def __call__(self, function: str, *arguments: Any) -> dict[str, str]:
        """Calls a function of tests.support.versions in a process of this version."""
        code = "import sys; from tests.support import versions; versions.main(*sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", code, function, *map(json.dumps, arguments)],
            env={**os.environ, "PYTHONPATH": self.path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout)
        assert Path(printed["rqjobs"]).parents[1] == self.folder
        return dict(printed["answer"])

    def worker(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": self.path, "RQJOBS_IMPORT": "tests.support.versions", **environment}
        return self.workers.command("-m", "rqjobs", "worker", *arguments, program="python", **environment)

    def ran(self, line: dict[str, Any]) -> bool:
        return Path(line["by"]).parents[1] == self.folder


@pytest.fixture
def old(before: Path, workers: Workers) -> Version:
    return Version(before, workers)


@pytest.fixture
def new(workers: Workers) -> Version:
    return Version(Path(rqjobs.__file__).parents[1], workers)


@pytest.fixture
def both(request: pytest.FixtureRequest, old: Version, new: Version) -> tuple[Version, Version]:
    """The version that begins, and the one that goes on."""
    return (old, new) if request.param == "old first" else (new, old)


BOTH_WAYS = pytest.mark.parametrize("both", ["old first", "new first"], indirect=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(signing_secret(), more_secrets=[signing_secret()]) as started:
        yield started


@pytest.fixture(autouse=True)
def manychat(redis, receiver, monkeypatch, tmp_path) -> Iterator[ManyChatSandbox]:
    """ManyChat; with it the settings of both versions, and the tables of the app."""
    with ManyChatSandbox() as manychat:
        for name, value in {
            "RECEIVER": receiver.url,
            "NOTES": str(tmp_path / "notes"),
            "WEBHOOK_SIGNING_SECRET": receiver.secret,
            "ENDPOINT_SECRET": receiver.more_secrets[0],
            "WEBHOOK_ALLOW": "127.0.0.1",
            "MANYCHAT_API_URL": manychat.url,
            "MANYCHAT_API_TOKEN": DEFAULT_TOKEN,
            "EXPORT_URL": str(tmp_path / "exports"),
            "EMAIL_BACKEND": "file",
        }.items():
            monkeypatch.setenv(name, value)
        use_settings(None)
        engine = open_engine(os.environ["DATABASE_URL"])
        apptables.make(engine)
        apptables.add_contacts(engine, 3)
        engine.dispose()
        yield manychat


def notes() -> list[dict[str, Any]]:
    """The runs of notes, in order."""
    path = Path(os.environ["NOTES"])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def results(ids: dict[str, str]) -> dict[str, Any]:
    """The result of each job by its name, or why it failed."""
    found: dict[str, Any] = {}
    for name, job_id in ids.items():
        try:
            found[name] = wait_for_result(job_id, "100s")
        except JobFailed as error:
            found[name] = str(error)
    return found


def check(ids: dict[str, str], version: Version, receiver: Receiver, manychat: ManyChatSandbox, folder: Path) -> None:
    """What the jobs of ``versions.enqueue`` return and do, run by ``version``."""
    found = results(ids)
    delivered = [name for name in ("webhook", "high", "low", "flaky", "delayed") if found[name]["status"] == 204]
    assert len(delivered) == 5
    assert "410" in found["gone"]
    assert "was told to fail" in found["dead"]
    assert version.ran(found["note"])
    assert (found["note"]["attempt"], found["note"]["of"], found["contact"]["outcome"]) == (2, 3, "created")
    assert (found["mail"]["accepted"], found["export"]["rows"]) == (1, 3)

    paths = Counter(request.path for request in receiver.received if request.verified)
    assert paths["/flaky/1"] == 2
    assert all(paths[path] == 1 for path in ("/ok", "/ok?high", "/ok?low", "/ok?delayed", "/gone"))
    assert Counter((line["name"], line["attempt"]) for line in notes()) == {
        ("note", 1): 1,
        ("note", 2): 1,
        ("dead", 1): 1,
    }
    (contact,) = manychat.account.subscribers.values()
    assert (contact.profile["first_name"], list(manychat.account.tags.values())) == ("Ada", ["vip"])
    (mail,) = (folder / "data" / "mail").glob("*.eml")
    assert "ada@example.com" in mail.read_text()
    (export,) = (folder / "exports").glob("*.csv")
    assert export.read_text(encoding="utf-8-sig").count("\n") == 4  # the heading, and three contacts
    with get_engine().connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM rqjobs_qr_events")).scalar() == 3  # one was sent twice


def test_this_version_runs_the_jobs_of_the_version_before(old, new, receiver, manychat, tmp_path):
    ids = old("enqueue_with_secrets")
    new.worker()
    check(ids, new, receiver, manychat, tmp_path)
    found = results(ids)
    assert [found[name]["status"] for name in ("endpoint", "headers", "outbox")] == [204, 204, 204]
    requests = {request.path: request for request in receiver.received if request.verified}
    assert requests["/ok?headers"].headers["x-api-key"] == "key"
    assert "/ok?endpoint" in requests


def test_the_version_before_runs_the_jobs_of_this_version(old, receiver, manychat, tmp_path):
    ids = versions.enqueue()
    old.worker()
    check(ids, old, receiver, manychat, tmp_path)


@pytest.mark.slow
def test_the_engine_rq_runs_the_jobs_of_the_version_before(old, new, receiver, manychat, tmp_path):
    ids = old("enqueue")
    new.worker("--engine", "rq")
    check(ids, new, receiver, manychat, tmp_path)


@pytest.mark.slow
def test_workers_of_both_versions_share_the_jobs_of_both(old, new, tmp_path):
    held = [versions.note.enqueue({"name": "held", "wait_for": str(tmp_path / "go")}) for _ in range(4)]
    for version in (old, new):
        version.worker("versions", "--threads", "2", RQJOBS_KEEP_COMPLETED="1000")
    eventually(lambda: len(notes()) == 4)  # two in each worker: both are there before the others arrive
    ids = [version("enqueue_notes", 300) for version in (old, new)]
    (tmp_path / "go").touch()
    found = [results(each) for each in ids]
    assert {wait_for_result(job, "100s")["attempt"] for job in held} == {1}
    expected = {f"note-{n}": 4 if n % 3 == 0 else 2 for n in range(300)}
    assert Counter(line["name"] for line in notes()) == {"held": 4, **expected}
    assert all(each[f"note-{n}"]["attempt"] == (2 if n % 3 == 0 else 1) for each in found for n in range(300))
    assert all(sum(version.ran(line) for line in notes()[:4]) == 2 for version in (old, new))


@pytest.mark.slow
@BOTH_WAYS
def test_a_job_of_a_killed_worker_runs_in_a_worker_of_the_other_version(both, tmp_path):
    first, second = both
    ids = first("enqueue_note", {"name": "long", "wait_for": str(tmp_path / "go")}, 3)
    killed = first.worker("versions", RQJOBS_LEASE="10s")
    eventually(notes)
    second.worker("versions", RQJOBS_LEASE="10s")
    killed.send_signal(signal.SIGKILL)
    eventually(lambda: len(notes()) == 2, timeout=200)
    (tmp_path / "go").touch()
    assert second.ran(results(ids)["long"])
    assert [first.ran(notes()[0]), second.ran(notes()[1]), len(notes())] == [True, True, 2]


@pytest.mark.slow
@BOTH_WAYS
def test_retries_go_on_under_the_other_version(both):
    first, second = both
    ids = first("enqueue_note", {"name": "stubborn", "fail": 2}, 3)
    assert first.worker("versions", "--max-jobs", "1").wait(100) == 0
    second.worker("versions")
    assert second.ran(results(ids)["stubborn"])
    assert [line["attempt"] for line in notes()] == [1, 2, 3]


@pytest.mark.slow
def test_what_the_version_before_does_not_know_is_completed_by_this_one(old, new):
    def note(name: str) -> Any:
        return versions.note.job({"name": name})

    batch = enqueue_batch([note("one"), note("two")], then=note("then"))
    chain = enqueue_chain([note("first"), note("second"), note("third")])
    grouped = versions.note.enqueue({"name": "grouped"}, group="customer-7")
    worker = old.worker("versions")
    eventually(lambda: len(notes()) == 3)
    worker.terminate()
    assert worker.wait(100) == 0
    assert sorted(line["name"] for line in notes()) == ["first", "one", "two"]  # members run, and no more
    new.worker("versions")
    assert new.ran(wait_for_result(grouped, "200s"))
    eventually(lambda: len(notes()) == 7, timeout=300)
    assert sorted(line["name"] for line in notes()[3:]) == ["grouped", "second", "then", "third"]
    eventually(lambda: (batch.progress().done, chain.progress().done) == (2, 3), timeout=300)


@pytest.mark.slow
def test_dead_jobs_of_the_version_before_are_in_a_failure_group_and_run_again(old, new, workers):
    for number in range(3):
        old("enqueue_note", {"name": f"dead-{number}", "fail": 1}, 1)
    assert old.worker("versions", "--burst").wait(100) == 0
    (group,) = groups.look().groups
    assert (group.fingerprint.queue, group.count) == ("versions", 3)
    assert workers.run("failed", "requeue", "--all", RQJOBS_IMPORT="tests.support.versions").returncode == 0
    assert new.worker("versions", "--burst").wait(100) == 0
    assert len(notes()) == 6


@pytest.mark.slow
def test_parked_deliveries_of_the_version_before_are_sent(old, new, redis, monkeypatch):
    port = free_port()
    monkeypatch.setenv("RECEIVER", f"http://127.0.0.1:{port}")
    for name, value in {"FAILURES": "2", "AFTER": "0s", "PAUSE": "2s"}.items():
        monkeypatch.setenv(f"WEBHOOK_BREAKER_{name}", value)
    ids = old("enqueue_webhooks", "/ok", 30)
    worker = old.worker("webhooks")
    eventually(lambda: sum(redis.zcard(key) for key in redis.keys("rqjobs:webhooks:breaker:*:line")) > 20)
    worker.terminate()
    assert worker.wait(100) == 0
    with Receiver(os.environ["WEBHOOK_SIGNING_SECRET"], port=port) as late:
        new.worker("webhooks")
        found = results(ids)
    assert {result["status"] for result in found.values()} == {204}
    assert Counter(request.path for request in late.received) == {f"/ok?{n}": 1 for n in range(30)}
