"""Workers killed with -9 and stopped at random, Redis restarted: every job's effect is there, none is lost."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections import Counter

import pytest

from rqjobs import enqueue_many
from rqjobs.broker.attempts import read_history
from rqjobs.broker.connection import connect
from rqjobs.broker.embedded import ensure_server, stop_server
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.dead_letters.letters import requeue
from tests.support.tasks import BatchTask, CoroutineTask, Task, notes
from tests.support.workers import eventually

NAMES = ("tasks", "coroutines", "batches")
LEASE = 2  # seconds
STARTED = re.compile(r"worker started name=(\w+)")


class Crew:
    """Workers, of which some are killed, and some stand still for a while."""

    def __init__(self, workers, size):
        self.workers = workers
        self.alive = []
        self.killed, self.stopped = set(), {}  # by name; the latter with the longest time, in seconds
        for _ in range(size):
            self.start()

    def start(self):
        log = self.workers.folder / f"process-{len(self.workers.processes)}.log"
        options = ("--threads", "6")  # few, so that the jobs last longer than the killing
        self.alive.append((self.workers.start(*NAMES, *options, RQJOBS_IMPORT="tests.support.tasks"), log))

    def ready(self):
        return [(process, name[1]) for process, log in self.alive if (name := STARTED.search(log.read_text()))]

    def look_after(self):
        """Starts others for those that ended by themselves: they were starting while Redis was away."""
        for ended in [one for one in self.alive if one[0].poll() is not None]:
            assert "cannot be used" in ended[1].read_text()
            self.alive.remove(ended)
            self.start()
        return True

    def kill_one(self, chance, redis):
        """Kills a worker that works, and answers what it had in hand; one that still starts has nothing to lose."""
        victim, name = chance.choice(eventually(lambda: self.look_after() and self.ready()))
        time.sleep(chance.uniform(0, 0.5))
        victim.kill()
        victim.wait()
        self.killed.add(name)
        members = redis.smembers(f"rq:worker:{name}:executions")  # at once: the others will take them back
        self.alive = [one for one in self.alive if one[0] is not victim]
        self.start()
        return members

    def stop_some(self, chance, over):
        """One worker after the other stands still, for up to twice its lease."""
        while not over.wait(chance.uniform(0.1, 1)):
            for process, name in chance.sample(ready := self.ready(), min(1, len(ready))):
                began = time.monotonic()
                process.send_signal(signal.SIGSTOP)
                try:
                    time.sleep(chance.uniform(0.1, 2 * LEASE))
                finally:
                    process.send_signal(signal.SIGCONT)
                self.stopped[name] = max(self.stopped.get(name, 0), time.monotonic() - began)

    def excused(self):
        """Whose jobs others may have: who was killed, stopped, or cut off by the machine, as they say themselves."""
        logs = [text for path in self.workers.folder.glob("process-*.log") if "lease" in (text := path.read_text())]
        return self.killed.union(self.stopped, (name[1] for text in logs if (name := STARTED.search(text))))


def chaos(workers, tmp_path, monkeypatch, *, jobs, kills, restarts, seed, crew=3, stops=False):
    """Runs ``jobs`` jobs, or more, while ``kills`` workers are killed and Redis is restarted ``restarts`` times.

    With ``stops``, workers stand still now and then as well.

    Returns:
        How many runs there were more than jobs.
    """
    chance = random.Random(seed)
    folder, log = tmp_path / "redis", tmp_path / "log"
    monkeypatch.setenv("TASKS_LOG", str(log))
    monkeypatch.setenv("RQJOBS_LEASE", str(LEASE))
    monkeypatch.setenv("RQJOBS_KEEP_COMPLETED", "1000000")  # their history is to be read
    monkeypatch.setenv("REDIS_URL", f"unix://{ensure_server(folder)}")
    redis = connect()
    redis.config_set("appendfsync", "always")
    longest = 0.5  # seconds
    models = (Task, Task, CoroutineTask, BatchTask)
    marks: dict[str, str] = {}

    def enqueue(number):
        work = [
            models[n % 4](
                do="return" if n % 4 == 3 else "sleep", mark=str(n), args={"seconds": chance.uniform(0, longest)}
            )
            for n in range(len(marks), len(marks) + number)
        ]
        for job, task in zip(enqueue_many(work, attempts=100, backoff="fixed:0s", connection=redis), work, strict=True):
            marks[job.id] = task.mark

    enqueue(jobs)
    band = Crew(workers, crew)
    restart_at = set(chance.sample(range(kills), restarts))
    killed_while_busy = 0
    over = threading.Event()
    stopper = threading.Thread(target=band.stop_some, args=(random.Random(seed), over))
    if stops:
        stopper.start()

    def completed():
        band.look_after()
        for name in NAMES:  # three workers died under them: an operator looks, and says again
            if ids := redis.zrange(f"rq:failed:{name}", 0, -1):
                requeue([job_id.decode() for job_id in ids], connection=redis)
        return total()

    def total():
        return sum(int(redis.hget(f"rqjobs:totals:{name}", "completed") or 0) for name in NAMES)

    for kill in range(kills):
        eventually(lambda kill=kill: completed() >= jobs * 0.8 * kill / kills, 180)  # however fast the machine is
        if kill in restart_at:
            stop_server(folder)
            time.sleep(0.3)
            ensure_server(folder)
            redis.config_set("appendfsync", "always")
        enqueue(max(0, 150 - len(marks) + completed()))  # however fast the machine is, they work when they are killed
        killed_while_busy += bool(band.kill_one(chance, redis))
    over.set()
    if stops:
        stopper.join()

    eventually(lambda: completed() == len(marks), 180, 0.3)
    workers.stop()
    begun = Counter(words[0] for words in notes(log) if words[2] == "begins" or words[2].startswith("batch"))
    ended = {words[0] for words in notes(log) if words[2] != "begins"}
    left = {name: redis.zcard(f"rq:wip:{name}") + redis.llen(f"rq:queue:{name}") for name in NAMES}
    finished = total()
    histories = {job_id: read_history(fetch_job(job_id, redis)) for job_id in marks}
    redis.close()
    stop_server(folder)
    assert ended == set(marks.values())
    assert not any(left.values()), left
    assert killed_while_busy > kills / 2
    # Each is done once, whoever ran it besides.
    assert finished == len(marks)
    assert {job_id for job_id, runs in histories.items() if [run.outcome for run in runs].count("done") != 1} == set()
    # Nobody's jobs were taken who was there, and only those that were taken, or said to be, ran again.
    died = {job_id: [run for run in runs if "WorkerDied" in str(run.error)] for job_id, runs in histories.items()}
    assert {run.worker for runs in died.values() for run in runs} <= band.excused()
    said = workers.taken_back() | workers.lost_leases()  # a batch's job that only waited has nothing in its history
    taken = {marks[job_id]: max(len(runs), said[job_id]) for job_id, runs in died.items()}
    assert {mark: (runs, taken[mark]) for mark, runs in begun.items() if runs > 1 + taken[mark]} == {}
    if stops:
        assert max(band.stopped.values()) > LEASE
    again = sum(begun.values()) - len(marks)
    print(f"{kills} kills, {killed_while_busy} of busy workers, {len(band.stopped)} others stopped for up to "
          f"{max(band.stopped.values(), default=0):.1f} s, {again} runs more than {len(marks)}")  # fmt: skip
    return again


def test_nothing_is_lost_when_workers_are_killed(workers, tmp_path, monkeypatch):
    assert chaos(workers, tmp_path, monkeypatch, jobs=100, kills=3, restarts=1, seed=1, crew=2) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_when_workers_are_killed_a_hundred_times(workers, tmp_path, monkeypatch, seed):
    assert chaos(workers, tmp_path, monkeypatch, jobs=2000, kills=100, restarts=2, seed=seed, stops=True) > 0
