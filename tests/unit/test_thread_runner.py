"""ThreadRunner alone: when threads wake each other, and when check_waiting() must."""

import gc
import threading
import time

from rqjobs.policies import get_policy
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.outcomes import Released
from rqjobs.worker.protocol import read_job
from rqjobs.worker.runners import time_limits
from rqjobs.worker.runners.base import raised
from rqjobs.worker.runners.threads import QUICK, ThreadRunner
from rqjobs.worker.runners.time_limits import TimeLimit, TimeLimitThread
from tests.support import tasks
from tests.support.workers import eventually

DATA = b'["rqjobs.worker.entry.perform",null,["tasks",{"mark":"%s"}],{}]'
RELEASE = threading.Event()


class FakeEngine:
    """Notes what was settled."""

    def __init__(self):
        self.time_limits = TimeLimitThread(lambda slot, jobs: None)
        self.done = []

    wants_starts = False

    def started(self, jobs):
        pass

    def settled(self, job):
        self.done.append(job.job_id)


def claimed(name, timeout=b"60"):
    stamp = b"2026-01-01T00:00:00.000000Z"
    words = (name.encode(), b"e", 1, b"", DATA % name.encode(), timeout, b"", b"", stamp, b"", b"", stamp)
    return read_job(words, "tasks", get_policy("tasks"), lambda *_: None)


def processor(job, attempt):
    if job.mark == "blocks":
        RELEASE.wait(120)


def test_a_quick_job_waits_for_one_that_blocks_only_until_check_waiting_is_called(monkeypatch):
    monkeypatch.setattr(tasks, "do", processor)
    RELEASE.clear()
    engine = FakeEngine()
    runner = ThreadRunner(get_policy("tasks"), 4, engine)

    def is_quick():
        engine.done.clear()
        runner.submit([claimed("j")])
        eventually(lambda: engine.done, every=0.001)
        return runner._took < QUICK

    eventually(is_quick, every=0)
    # A thread that a job before woke has found nothing.
    eventually(lambda: not runner._waking and runner._idle == runner._threads and runner._tokens.empty())
    begun = runner._begun
    runner.submit([claimed("blocks"), claimed("quick")])
    eventually(lambda: runner._begun > begun)
    time.sleep(0.1)
    assert engine.done[-1] != "quick"
    assert runner.check_waiting()  # something was begun since the last time
    assert runner.check_waiting()
    eventually(lambda: engine.done[-1] == "quick")
    RELEASE.set()
    runner.close()


def test_jobs_that_block_wake_other_threads_at_once(monkeypatch):
    monkeypatch.setattr(tasks, "do", processor)
    RELEASE.clear()
    engine = FakeEngine()
    runner = ThreadRunner(get_policy("tasks"), 4, engine)
    runner.submit([claimed("blocks"), claimed("blocks"), claimed("blocks"), claimed("quick")])
    eventually(lambda: engine.done == ["quick"])
    RELEASE.set()
    runner.close()


def test_a_job_that_has_ended_is_freed_without_the_collector():
    def alive():
        return any(isinstance(each, ClaimedJob) and each.job_id == "freed" for each in gc.get_objects())

    gc.disable()
    try:
        job = claimed("freed")
        job.prepare()
        job.settle(job.done(None, 0.0))
        assert alive()
        del job
        assert not alive()
    finally:
        gc.enable()


class StuckEngine(FakeEngine):
    """Replaces threads that are given up, as the engine does."""

    def __init__(self):
        super().__init__()
        self.time_limits = TimeLimitThread(self.abandon)

    def failed(self, job, error):
        """No handlers."""

    def abandon(self, slot, jobs):
        for job in jobs:
            if job.settle(raised(job, TimeLimit(), slot.began, self)):
                self.settled(job)
        self.runner.replace(jobs[0])


def test_no_more_threads_are_stuck_than_twice_the_slots(monkeypatch):
    monkeypatch.setattr(tasks, "do", processor)
    monkeypatch.setattr(time_limits, "PATIENCE", 0.01)
    RELEASE.clear()
    engine = StuckEngine()
    engine.runner = runner = ThreadRunner(get_policy("tasks"), 1, engine)
    engine.time_limits.start()
    runner.submit([claimed("blocks", b"0.05"), claimed("blocks", b"0.05")])
    eventually(lambda: engine.done == ["blocks", "blocks"])
    eventually(lambda: runner.room() == 0)
    waits = claimed("waits")
    runner.submit([waits])
    runner.replace(waits)  # one more is given up: what waits is for other workers
    assert isinstance(waits.outcome, Released)
    runner._came_back()
    assert runner.room() == 0
    RELEASE.set()
    eventually(lambda: runner.room() == 1)
    runner.submit([claimed("after")])
    eventually(lambda: engine.done[-1] == "after")
    runner.close()
    engine.time_limits.stop()
