"""A worker of the queue ``probe`` without a process: claims and outcomes, with the scripts of workers."""

from __future__ import annotations

import time
from collections.abc import Collection

import redis as redis_py

from rqjobs.broker.rq_schema import key
from rqjobs.broker.scripts import load_script
from rqjobs.config.settings import get_settings
from rqjobs.policies import get_policy
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.failures import Failure
from rqjobs.worker.protocol import WorkerProtocol, read_written
from rqjobs.worker.rescue import rescue


class Hand:
    """Claims jobs one by one, and writes how they ended."""

    def __init__(self, redis: redis_py.Redis, name: str = "hand") -> None:
        self._redis, self._name = redis, name
        self._protocol = WorkerProtocol(name, 60, {"probe": get_policy("probe")}, get_settings(), lambda *_: None)

    def claim(self, count: int = 1) -> list[ClaimedJob]:
        words = self._protocol.reserve({"probe": count}, records=False, parks=False)
        response = load_script("reserve")(args=words, client=self._redis)
        return self._protocol.read_claims(response).jobs

    def done(self, *jobs: ClaimedJob) -> Collection[int]:
        """Writes that they are done; the positions of those whose lease was lost."""
        for job in jobs:
            job.outcome = job.done("result", time.time())
        return self._finish(jobs)

    def dead(self, *jobs: ClaimedJob) -> Collection[int]:
        for job in jobs:
            job.outcome = job.failed(Failure("ValueError: no", permanent=True), time.time())
        return self._finish(jobs)

    def _finish(self, jobs: Collection[ClaimedJob]) -> Collection[int]:
        written = read_written(load_script("finish")(args=self._protocol.finish(jobs), client=self._redis))
        assert not written.refused, written.refused
        return written.lost

    def die(self, *jobs: ClaimedJob) -> None:
        """The worker of these jobs has died, and its watcher has put them back."""
        claims = {f"{job.job_id}:{job.execution}" for job in jobs}
        mine = key("worker", self._name, "executions")
        others = {member.decode() for member in self._redis.smembers(mine)} - claims
        self._redis.srem(mine, *others, "")
        rescue(self._redis, ["probe"], get_settings(), dead=self._name)
        self._redis.sadd(mine, *others, "")
