"""Workers killed with -9 at random, Redis restarted: every job's effect is there, none is lost."""

from __future__ import annotations

import random
import re
import time
from collections import Counter

import pytest

from rqjobs import enqueue_many
from rqjobs.connection import connect
from rqjobs.dead_letters import requeue
from rqjobs.embedded import ensure_server, stop_server
from tests.support.tasks import BatchTask, CoroutineTask, Task, notes
from tests.support.workers import eventually

NAMES = ("tasks", "coroutines", "batches")


class Crew:
    """Workers, of which some are killed."""

    def __init__(self, workers, size):
        self.workers = workers
        self.alive = []
        for _ in range(size):
            self.start()

    def start(self):
        log = self.workers.folder / f"process-{len(self.workers.processes)}.log"
        options = ("--threads", "6")  # few, so that the jobs last longer than the killing
        self.alive.append((self.workers.start(*NAMES, *options, RQJOBS_IMPORT="tests.support.tasks"), log))

    def ready(self):
        self.look_after()
        return [one for one in self.alive if "worker started" in one[1].read_text()]

    def look_after(self):
        """Starts others for those that ended by themselves: they were starting while Redis was away."""
        for ended in [one for one in self.alive if one[0].poll() is not None]:
            assert "cannot be used" in ended[1].read_text()
            self.alive.remove(ended)
            self.start()

    def kill_one(self, chance, redis):
        """Kills a worker that works, and answers what it had in hand; one that still starts has nothing to lose."""
        ready = eventually(self.ready)
        victim = chance.choice(ready)
        time.sleep(chance.uniform(0, 0.5))
        name = re.search(r"worker started name=(\w+)", victim[1].read_text())[1]
        victim[0].kill()
        victim[0].wait()
        members = redis.smembers(f"rq:worker:{name}:executions")  # at once: the others will take them back
        self.alive.remove(victim)
        self.start()
        return members


def chaos(workers, tmp_path, monkeypatch, *, jobs, kills, restarts, seed, crew=3):
    """Runs ``jobs`` jobs, or more, while ``kills`` workers are killed and Redis is restarted ``restarts`` times.

    Returns:
        How many runs there were more than jobs.
    """
    chance = random.Random(seed)
    folder, log = tmp_path / "redis", tmp_path / "log"
    monkeypatch.setenv("TASKS_LOG", str(log))
    monkeypatch.setenv("RQJOBS_LEASE", "2")
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
    held: Counter[str] = Counter()  # how often each job was in the hands of a worker that was killed
    killed_while_busy = 0

    def completed():
        band.look_after()
        for name in NAMES:  # three workers died under them: an operator looks, and says again
            if ids := redis.zrange(f"rq:failed:{name}", 0, -1):
                requeue([job_id.decode() for job_id in ids], connection=redis)
        return sum(int(redis.hget(f"rqjobs:totals:{name}", "completed") or 0) for name in NAMES)

    for kill in range(kills):
        eventually(lambda kill=kill: completed() >= jobs * 0.8 * kill / kills, 180)  # however fast the machine is
        if kill in restart_at:
            stop_server(folder)
            time.sleep(0.3)
            ensure_server(folder)
            redis.config_set("appendfsync", "always")
        enqueue(max(0, 150 - len(marks) + completed()))  # however fast the machine is, they work when they are killed
        members = band.kill_one(chance, redis)
        held.update(marks[member.decode().partition(":")[0]] for member in members)
        killed_while_busy += bool(members)

    eventually(lambda: completed() == len(marks), 180, 0.3)
    workers.stop()
    begun = Counter(words[0] for words in notes(log) if words[2] == "begins" or words[2].startswith("batch"))
    ended = {words[0] for words in notes(log) if words[2] != "begins"}
    left = {name: redis.zcard(f"rq:wip:{name}") + redis.llen(f"rq:queue:{name}") for name in NAMES}
    redis.close()
    stop_server(folder)
    assert ended == set(marks.values())
    assert not any(left.values()), left
    assert killed_while_busy > kills / 2
    for job_id, number in workers.taken_back().items():  # a machine that stands still hides what was in hand
        held[marks[job_id]] = max(held[marks[job_id]], number)
    for job_id, lost in workers.lost_leases().items():  # and may cut a worker off
        held[marks[job_id]] += lost
    assert {mark: (runs, held[mark]) for mark, runs in begun.items() if runs > 1 + held[mark]} == {}
    again = sum(begun.values()) - len(marks)
    print(f"{kills} kills, {killed_while_busy} of busy workers, {again} runs more than {len(marks)}")
    return again


def test_nothing_is_lost_when_workers_are_killed(workers, tmp_path, monkeypatch):
    assert chaos(workers, tmp_path, monkeypatch, jobs=150, kills=5, restarts=1, seed=1, crew=2) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_when_workers_are_killed_a_hundred_times(workers, tmp_path, monkeypatch, seed):
    assert chaos(workers, tmp_path, monkeypatch, jobs=2000, kills=100, restarts=2, seed=seed) > 0
