"""A real Redis that errs at awkward moments, under a real worker at work: nothing is lost, nothing runs too often."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqjobs import enqueue_many
from rqjobs.broker.connection import connect
from rqjobs.broker.embedded import ensure_server, find_server, stop_server
from rqjobs.dead_letters.letters import dead_letters, requeue
from tests.support.tasks import BatchTask, CoroutineTask, Task, notes
from tests.support.workers import eventually

QUEUES = ("tasks", "coroutines", "batches")
LEASE = 3


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def server(tmp_path, monkeypatch, settings):
    """A Redis for this test alone, and a client of it that waits for nothing."""
    folder = tmp_path / "own-redis"
    url = f"unix://{ensure_server(folder)}"
    monkeypatch.setenv("REDIS_URL", url)
    client = connect(url, retry=Retry(NoBackoff(), 1))
    client.folder = folder
    yield client
    client.close()
    stop_server(folder)


class Load:
    """Jobs of every kind on a worker: quick ones, one that outlasts leases, ones that fail once, ones for later."""

    def __init__(self, server, log, workers, jobs=600, *, long=LEASE * 2.5, later=1.0, quick=0.02):
        self.server, self.log, self.crew = server, log, workers
        self.failing = {str(n) for n in range(0, jobs, 10)}
        models = (Task, CoroutineTask, BatchTask)
        args = [{"seconds": seconds, "times": 1} for seconds in (quick, quick, 0.02)]  # a batch's run one by one
        many = [
            models[n % 3](do="fail" if str(n) in self.failing else "sleep", mark=str(n), args=args[n % 3])
            for n in range(jobs)
        ]
        slow = [Task(do="sleep", mark=f"long-{n}", args={"seconds": long}) for n in range(3)]  # a worker has two slots
        late = [Task(mark=f"later-{n}") for n in range(20)]
        enqueued = [
            *enqueue_many(slow, priority="high", connection=server),
            *enqueue_many(many, attempts=3, backoff="fixed:0.3s", connection=server),
            *enqueue_many(late, delay=f"{later}s", connection=server),
        ]
        self.marks = {job.id: task.mark for job, task in zip(enqueued, [*slow, *many, *late], strict=True)}
        self.total = len(self.marks)
        options = ("--threads", "9")
        environment = {"RQJOBS_IMPORT": "tests.support.tasks", "RQJOBS_LEASE": str(LEASE)}
        self.workers = [workers.start(*QUEUES, *options, **environment) for _ in range(2)]
        eventually(lambda: workers.logs().count("worker started") == 2)
        eventually(lambda: len(notes(log)) > jobs / 20)

    def look_again(self):
        """A job that was under three workers when they were cut off is taken for the cause. Here we know better."""
        for name in QUEUES:
            letters = dead_letters(name, "WorkerDied", connection=self.server)
            requeue([letter.job_id for letter in letters], connection=self.server)

    def completed(self):
        return sum(int(self.server.hget(f"rqjobs:totals:{name}", "completed") or 0) for name in QUEUES)

    def cut_off(self):
        """How often each job was with a worker that a stalled machine had cut off for longer than the lease.

        Another took the job back then, which counts as an attempt, begun or not; and if it had begun, two ran it.
        """
        times = self.crew.lost_leases() + self.crew.taken_back()
        return Counter({self.marks[job_id]: number for job_id, number in times.items()})

    def wait(self):
        """Until all is done; whatever happened, no job ran more often than its outcomes ask for."""
        eventually(lambda: self.look_again() or self.completed() == self.total, 120, 0.2)
        assert [process.poll() for process in self.workers] == [None, None]
        runs = Counter(words[0] for words in notes(self.log) if words[2] == "begins" or words[2].startswith("batch"))
        assert len(runs) == self.total
        cut_off = self.cut_off()
        assert {mark: n for mark, n in runs.items() if abs(n - 1 - (mark in self.failing)) > cut_off[mark]} == {}
        left = [self.server.zcard(f"rq:{kind}:{name}") for kind in ("wip", "scheduled", "failed") for name in QUEUES]
        assert not any(left)


def test_a_full_redis_drains(server, log, workers):
    load = Load(server, log, workers, long=LEASE * 4, quick=0.2)
    server.config_set("maxmemory", 1)
    with pytest.raises(redis_py.exceptions.OutOfMemoryError):
        server.set("x", "y")
    before = load.completed()
    time.sleep(LEASE * 2 + 1)  # leases must be renewed, or the long jobs are taken for lost
    eventually(lambda: load.completed() > before + 20)
    eventually(lambda: len({words[0] for words in notes(log) if words[0].startswith("later")}) == 20)  # became due
    server.config_set("maxmemory", 0)
    assert "job released" not in workers.logs()  # because Redis would not note that they begin
    load.wait()


def test_a_master_that_becomes_a_replica_and_a_master_again(server, log, workers):
    load = Load(server, log, workers)
    server.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(redis_py.exceptions.ReadOnlyError):
        server.set("x", "y")
    time.sleep(LEASE / 2)
    server.execute_command("REPLICAOF", "NO", "ONE")
    load.wait()


def test_scripts_are_flushed_all_the_time(server, log, workers):
    load = Load(server, log, workers)
    for _ in range(60):
        server.script_flush()
        time.sleep(0.05)
    load.wait()


def test_connections_are_killed_all_the_time(server, log, workers):
    """Some are killed between a reservation and its answer: those jobs go back, and no attempt is counted."""
    load = Load(server, log, workers, jobs=1500, long=1)
    for _ in range(100):
        server.client_kill_filter(_type="normal", skipme=True)
        server.client_kill_filter(_type="pubsub", skipme=True)
        time.sleep(0.03)
    load.wait()


def test_connections_are_killed_while_the_loop_is_busy(server, log, workers):
    """Outcomes and reservations are on their way twice over then: each job runs once all the same."""
    jobs = kills = 0
    process = workers.start("tasks", RQJOBS_IMPORT="tests.support.tasks", RQJOBS_KEEP_COMPLETED="1000000")
    while kills < 15:
        if server.llen("rq:queue:tasks") < 4_000:  # however fast the worker is, it is not to come to an end
            enqueue_many([Task(mark=str(n)) for n in range(jobs, jobs + 4_000)], connection=server)
            jobs += 4_000
            eventually(lambda: notes(log))
        kills += server.client_kill_filter(_type="pubsub", skipme=True)
        time.sleep(0.1)
    eventually(lambda: server.zcard("rq:finished:tasks") == jobs)
    assert Counter(words[0] for words in notes(log) if words[2] == "begins") == {str(n): 1 for n in range(jobs)}
    assert process.poll() is None
    assert server.zcard("rq:wip:tasks") == 0


def test_a_redis_that_loads_for_longer_than_the_lease(server, log, workers):
    """Whoever runs a job gets a moment to say so before it is taken for dead."""
    load = Load(server, log, workers, long=LEASE * 4)
    server.execute_command("BGREWRITEAOF")
    eventually(lambda: not server.info("persistence")["aof_rewrite_in_progress"])
    keys = server.dbsize()
    stop_server(server.folder)
    loading = slow_start(server.folder, keys, LEASE + 2)
    try:
        log_of_redis = server.folder / "slow.log"
        took = eventually(lambda: re.search(r"DB loaded .*: ([\d.]+) seconds", log_of_redis.read_text()))
        assert float(took[1]) > LEASE
        load.wait()
    finally:
        workers.stop()  # they would wait for their Redis
        server.shutdown(save=False)
        loading.wait(60)


def slow_start(folder: Path, keys: int, seconds: float) -> subprocess.Popen[bytes]:
    """A server on the data of ``folder`` that takes ``seconds`` to load it."""
    delay = int(seconds * 1e6 / max(keys, 1))
    options = {"port": 0, "unixsocket": folder / "redis.sock", "dir": folder, "appendonly": "yes", "save": ""}
    (folder / "slow.log").touch()
    options |= {"logfile": folder / "slow.log", "key-load-delay": delay, "loading-process-events-interval-bytes": 1024}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.Popen([find_server(), *words], stdout=subprocess.DEVNULL)


def test_without_tracking_the_worker_polls(server, log, workers, monkeypatch):
    """A proxy or an ACL in between that knows no CLIENT TRACKING: new and delayed jobs are found all the same."""
    server.acl_setuser(
        "plain", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-client|tracking"]
    )
    monkeypatch.setenv("REDIS_URL", f"unix://plain@{server.folder}/redis.sock")
    workers.start("tasks", RQJOBS_IMPORT="tests.support.tasks")
    eventually(lambda: "worker started" in workers.logs())
    time.sleep(1)
    enqueue_many([Task(mark="now")], connection=server)
    enqueue_many([Task(mark="later")], delay="2s", connection=server)
    eventually(lambda: len(notes(log)) == 4)
