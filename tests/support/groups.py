"""Workers without processes: what Redis gives to a worker of the queue ``probe``, and what it makes of the outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis as redis_py

from rqjobs.broker.rq_schema import run_script, timestamp
from rqjobs.config.settings import get_settings
from rqjobs.policies import get_policy
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.outcomes import Dead, Done, Held, Outcome, Released, Retry
from rqjobs.worker.protocol import WorkerProtocol, Written, read_moved, read_written
from rqjobs.worker.rescue import rescue

LANES = ("probe:high", "probe", "probe:low")


def outcome(how: str, job: ClaimedJob) -> Outcome:
    """The outcome of a run that ended so."""
    left = max(0, job.retries_left - 1)
    outcomes: dict[str, Outcome] = {
        "done": Done("", 60, started=1.0, ended=2.0),
        "retry": Retry("e", job.number, left, 5.0, started=1.0, ended=2.0),
        "dead": Dead("e", job.number, 0, None, "1 2 e", started=1.0, ended=2.0),
        "released": Released(),
        "held": Held(5.0),
    }
    return outcomes[how]


class ScriptedWorker:
    """One worker of the queue ``probe``, with the policy of that moment."""

    def __init__(self, redis: redis_py.Redis, name: str = "w") -> None:
        self.redis, self.name = redis, name
        self.protocol = WorkerProtocol(name, 60, {"probe": get_policy("probe")}, get_settings(), lambda *_: None)
        self.more = False
        """Whether the last answer says that there is more to do."""
        self.wait = -1.0
        """Seconds until a rate lets a job through, by the last answer; -1 if none holds any back."""

    def claim(self, count: int) -> list[ClaimedJob]:
        words = self.protocol.reserve({"probe": count}, records=False, parks=False)
        claims = self.protocol.read_claims(self._run("reserve", words))
        self.more, self.wait = claims.full, claims.rate_wait
        return claims.jobs

    def finish(self, how: str, *jobs: ClaimedJob) -> Written:
        for job in jobs:
            assert job.settle(outcome(how, job))
        written = read_written(self._run("finish", self.protocol.finish(jobs)))
        assert (list(written.lost), written.refused) == ([], {})
        return written

    def die(self) -> None:
        """All that it has claimed is rescued."""
        rescue(self.redis, LANES, get_settings(), dead=self.name)

    def move_due(self) -> int:
        """Moves what is due, as the leader does."""
        return read_moved(run_script("schedule", self.redis, [timestamp(), 1000, *LANES])).moved

    def _run(self, script: str, words: Sequence[Any]) -> Any:
        return run_script(script, self.redis, words[1:])  # which adds RQ's prefix
