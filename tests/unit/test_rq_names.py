"""RQ's private names that rqjobs uses, and RQ's methods that it overrides: one list, checked against RQ's source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import rq
from redis import Redis
from rq import Queue, SimpleWorker, Worker
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.worker import BaseWorker

import rqjobs
from rqjobs.broker.rq_schema import RegisteredJob
from rqjobs.testing.helpers import _InlineWorker
from rqjobs.worker.dependents import ReleasingQueue
from rqjobs.worker.rq_compat import RQCompatWorker, _Watched
from rqjobs.worker.rq_worker import StockWorker

METHODS = {
    "_finalize_failure": (BaseWorker, ["self", "job", "queue", "execution", "exc_info"], BaseWorker.perform_job),
    "_handle_stopped_job": (Worker, ["self", "job", "queue", "execution"], Worker.monitor_work_horse),
    "_install_signal_handlers": (BaseWorker, ["self"], BaseWorker.work),
    "_enqueue_rate_limited_job": (Queue, ["self", "job", "pipeline", "at_front"], Queue.enqueue_job),
}
"""Methods of RQ that rqjobs calls or overrides: the class, the parameters, and a method of RQ that calls it."""

ATTRIBUTES = {
    "_result": Job._handle_success,
    "_status": Job.get_status,
    "_success_callback_name": Job.restore,
    "_failure_callback_name": Job.restore,
    "_stopped_callback_name": Job.restore,
    "_dependency_ids": Job.restore,
    "_job": Execution.job.fget,
    "_timeout": BaseDeathPenalty.__init__,
    "_ordered_queues": BaseWorker.dequeue_job_and_maintain_ttl,
    "_exc_handlers": BaseWorker.handle_exception,
    "_stop_requested": BaseWorker.work,
    "_stopped_job_id": BaseWorker.handle_job_failure,
}
"""Attributes of RQ's objects that rqjobs reads or writes, and a method of RQ that uses the same attribute."""

OWN_NAMES = {("broker/job_records.py", "_key"), ("worker/loop.py", "_sleep")}
"""Names of our own functions that RQ's source happens to have as well."""

OVERRIDDEN = {
    StockWorker: (
        Worker,
        {"cleanup_execution", "dequeue_timeout", "handle_exception", "handle_job_failure", "handle_job_retry",
         "handle_job_success", "heartbeat", "job_class", "log_job_description", "log_result_lifespan", "perform_job",
         "queue_class", "register_birth", "register_death", "run_maintenance_tasks"},
    ),
    RQCompatWorker: (
        Worker,
        {"death_penalty_class", "handle_execution_ended", "handle_job_failure", "handle_job_success", "heartbeat",
         "procline", "_finalize_failure"},
    ),
    _InlineWorker: (
        SimpleWorker,
        {"death_penalty_class", "handle_job_failure", "handle_job_success", "_install_signal_handlers"},
    ),
    _Watched: (BaseDeathPenalty, {"cancel_death_penalty", "setup_death_penalty"}),
    RegisteredJob: (Job, {"func", "func_name", "restore", "to_dict"}),
    ReleasingQueue: (Queue, {"enqueue_ready_jobs_by_queue"}),
}  # fmt: skip
"""Each class of ours, the class of RQ that it extends, and the names that it overrides. If RQ renames one, RQ no longer
calls our method."""


def private_names(file: Path) -> set[str]:
    """The names with one underscore that a source file defines as functions or uses as attributes."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def sources(package: object) -> Iterator[Path]:
    return Path(inspect.getfile(package)).parent.rglob("*.py")  # type: ignore[arg-type, return-value]


def test_every_private_name_of_rq_that_rqjobs_uses_is_listed() -> None:
    of_rq = set().union(*map(private_names, sources(rq)))
    root = Path(inspect.getfile(rqjobs)).parent
    used = set()
    for file in sources(rqjobs):
        text = file.read_text()
        if "from rq." in text or "from rq import" in text or "RQCompatWorker" in text:
            names = {(file.relative_to(root).as_posix(), name) for name in private_names(file) & of_rq}
            used |= {name for _, name in names - OWN_NAMES}
    assert used == {*METHODS, *ATTRIBUTES}


@pytest.mark.parametrize("name", METHODS)
def test_rq_calls_its_private_method_with_the_same_parameters(name: str) -> None:
    owner, parameters, caller = METHODS[name]
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters
    assert name in attributes_in(caller)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_rq_uses_its_private_attribute(name: str) -> None:
    assert name in attributes_in(ATTRIBUTES[name])


def attributes_in(function: object) -> set[str]:
    source = inspect.cleandoc("\n" + inspect.getsource(function))  # type: ignore[arg-type]
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("ours", OVERRIDDEN, ids=lambda ours: ours.__name__)
def test_our_classes_override_names_that_rq_has(ours: type) -> None:
    base, names = OVERRIDDEN[ours]
    assert {name for name in vars(ours) if hasattr(base, name) and not name.startswith("__")} == names


@pytest.mark.parametrize("ours", OVERRIDDEN, ids=lambda ours: ours.__name__)
def test_our_methods_take_what_rq_passes(ours: type) -> None:
    base, names = OVERRIDDEN[ours]
    for name in names:
        theirs = inspect.getattr_static(base, name)
        if not inspect.isfunction(theirs):
            continue
        mine = list(inspect.signature(vars(ours)[name]).parameters.values())
        if any(each.kind is each.VAR_POSITIONAL for each in mine):
            continue
        expected = [each for each in inspect.signature(theirs).parameters.values() if each.kind is not each.VAR_KEYWORD]
        assert [each.name for each in mine][: len(expected)] == [each.name for each in expected], name


def test_values_that_rqjobs_sets_on_rq_objects_are_what_rq_then_uses() -> None:
    job = Job(id="a", connection=Redis(), serializer=JSONSerializer)  # it never connects
    job._result, job._status = {"sum": 3}, JobStatus.FINISHED
    job.data = b"[]"
    assert job.to_dict()["result"] == JSONSerializer.dumps({"sum": 3})
    assert job.get_status(refresh=False) is JobStatus.FINISHED
    execution = Execution("x", "a", job.connection)
    execution._job = job
    assert execution.job is job
    assert BaseDeathPenalty(7, ValueError)._timeout == 7
