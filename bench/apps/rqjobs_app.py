"""rqjobs: a queue of a validated model, thread and coroutine processors."""

import os
from typing import Any, ClassVar

from pydantic import Field

from bench.apps import marks
from rqjobs import enqueue, enqueue_many
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, register_queue

SLOTS = int(os.environ.get("BENCH_SLOTS", "50"))


class Noop(JobModel):
    """The payload of the other systems, as a model."""

    queue: ClassVar[str] = "bench-noop"
    webhook_id: str
    event: str
    url: str
    payload: dict[str, Any] = Field(default_factory=dict)

    def label(self):
        return f"webhook {self.webhook_id} {self.event}"


class Sleep(Noop):
    """The same for the job that sleeps."""

    queue: ClassVar[str] = "bench-sleep"


def noop(job, attempt):
    marks.mark()


def sleep(job, attempt):
    marks.sleep(job)


for model, function in ((Noop, "noop"), (Sleep, "sleep")):
    register_queue(
        QueuePolicy(
            name=model.queue, kind=model.queue, model=model, processor=f"{__name__}:{function}", concurrency=SLOTS
        )
    )
MODELS = {"noop": Noop, "sleep": Sleep}


def one(kind, data):
    enqueue(MODELS[kind].parse(data))


def many(kind, datas):
    model = MODELS[kind]
    enqueue_many([model.parse(data) for data in datas])
