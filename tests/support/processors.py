"""A queue for tests: its jobs say what should happen to them. Workers import it through RQJOBS_IMPORT."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from rqjobs.attempt import Attempt
from rqjobs.broker.rq_schema import allow
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, register_queue


class ProbeJob(JobModel):
    """What should happen, and where to write down that it did."""

    queue: ClassVar[str] = "probe"

    log: str
    """A file that gets one JSON line for each run."""
    do: str = "succeed"
    fail_times: int = 0
    """Runs up to this attempt fail."""
    seconds: float = 0.0
    value: Any = None
    scope: str = ""
    """Of the dependency that is away: jobs that ``do`` "away" need it while the file ``<log>.away`` is there."""

    def label(self) -> str:
        return f"probe {self.do}"


def probe(job: ProbeJob, attempt: Attempt) -> Any:
    """Writes a line, then does what the job says."""
    line = {"id": attempt.job_id, "number": attempt.number, "at": time.time(), "pid": os.getpid(), "value": job.value}
    with Path(job.log).open("a") as file:
        file.write(json.dumps(line) + "\n")
    if job.seconds:
        time.sleep(job.seconds)
    while job.do == "wait" and not Path(f"{job.log}.go").exists():
        time.sleep(0.02)
    if job.do == "blame" or (job.do == "away" and Path(f"{job.log}.away").exists()):
        raise DependencyUnavailable("database", "it does not answer", scope=job.scope)
    if attempt.number <= job.fail_times:
        raise ConnectionError(f"attempt {attempt.number} of {attempt.of} was told to fail")
    match job.do:
        case "permanent":
            raise PermanentFailure("told to die")
        case "later":
            raise RetryLater(
                timedelta(seconds=1), "told to wait", counts=len(Path(job.log).read_text().splitlines()) > 1
            )
        case "spin":
            while True:
                time.sleep(0.01)
        case "exit":
            os._exit(3)
        case _:
            return {"value": job.value, "attempt": attempt.number}


@allow
def plain(value: int) -> int:
    """A plain RQ function that workers may run."""
    return value * 2


register_queue(
    QueuePolicy(
        name="probe",
        kind="probe",
        model=ProbeJob,
        processor="tests.support.processors:probe",
        timeout=timedelta(seconds=20),
    )
)
