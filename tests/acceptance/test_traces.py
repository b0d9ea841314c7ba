"""The trace of a request goes on in a real worker, by each engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from rqjobs import enqueue
from rqjobs.jobs import DataExportJob
from tests.support.processors import ProbeJob
from tests.support.workers import Workers, eventually


@pytest.mark.parametrize("engine", ["threads", "rq"])
def test_a_trace_continues_in_a_worker(workers: Workers, tmp_path: Path, engine: str) -> None:
    traces = tmp_path / "traces"
    traces.touch()
    with TracerProvider().get_tracer("app").start_as_current_span("request") as request:
        enqueue(ProbeJob(log=str(tmp_path / "log")))
        enqueue(DataExportJob(user_id="u", export_type="csv", data_type="contacts"), attempts=1)  # in a process
    imports = "tests.support.processors tests.support.traces"
    workers.start("probe", "data-export", "--engine", engine, RQJOBS_IMPORT=imports, TRACES=str(traces))
    spans = eventually(
        lambda: (
            len(lines := traces.read_text().rpartition("\n")[0].splitlines()) == 2 and [json.loads(x) for x in lines]
        )
    )
    assert {span["name"] for span in spans} == {"process probe", "process data-export"}
    for span in spans:
        assert int(span["context"]["trace_id"], 16) == request.get_span_context().trace_id
        assert int(span["parent_id"], 16) == request.get_span_context().span_id
