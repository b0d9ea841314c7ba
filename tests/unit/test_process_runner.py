"""ProcessRunner alone: every slot is used, whenever the jobs come."""

import threading
import time
from queue import SimpleQueue

from rqjobs.policies import get_policy
from rqjobs.worker.runners.processes import ProcessRunner
from tests.support.workers import eventually


class SlowQueue(SimpleQueue):
    """A thread that has taken a job out of it comes to its next line only later, as on a busy machine."""

    def get(self, *args, **kwargs):
        job = super().get(*args, **kwargs)
        time.sleep(0.1)
        return job


def test_a_job_does_not_wait_while_a_slot_is_free(monkeypatch):
    running, release = set(), threading.Event()

    def run(runner, job, child):
        running.add(job)
        release.wait(120)

    monkeypatch.setattr(ProcessRunner, "_run", run)
    runner = ProcessRunner(get_policy("data-export"), 2, None)
    runner._queue = SlowQueue()
    runner.submit(["first"])
    time.sleep(0.05)
    runner.submit(["second"])
    eventually(lambda: len(running) == 2)
    runner.submit(["third"])
    assert runner.waiting() == ["third"]
    release.set()
    runner.close()
