"""An export whose process is killed with SIGKILL again and again: nothing half is ever seen, and it completes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rqjobs.database import get_engine
from tests.support import apptables
from tests.support.workers import ROOT

RUN = """
import sys
from rqjobs.attempt import Attempt
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export, partial, process
partial._CHECKPOINT_EVERY = 0.02
process._REPORT_EVERY = 0.0

def report(progress):
    print(progress["rows"], flush=True)

job = DataExportJob(user_id="user_1", export_type=sys.argv[1], data_type="contacts")
result = export(job, Attempt(job_id="killed", queue="data-export", report=report))
print("done", result["rows"], flush=True)
"""
ROWS = 6_000


def start(export_type: str) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, export_type]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd(), env=environment())


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def kill_at(export_type: str, rows: int) -> int:
    """Runs the export until it has written ``rows`` rows, and kills it there; how many it began with."""
    process = start(export_type)
    first = 0
    for line in process.stdout:
        first = first or int(line)
        if int(line) >= rows:
            break
    process.kill()
    process.stdout.close()
    process.wait()
    return first


def killed_and_completed(export_type: str, kills: int) -> Path:
    apptables.make(get_engine())
    apptables.add_contacts(get_engine(), ROWS)
    begun = []
    for _ in range(kills):
        begun.append(kill_at(export_type, random.randrange(1, ROWS - 1000)))
        published = [path for path in Path(".rqjobs/exports").iterdir() if not path.name.startswith(".")]
        assert published == []
    if export_type in ("csv", "ndjson"):
        assert max(begun) > 500  # it went on, it did not start over
    last = start(export_type)
    output = last.communicate()[0]
    assert output.splitlines()[-1] == f"done {ROWS}"
    (file,) = Path(".rqjobs/exports").iterdir()  # nothing is left behind, hidden or not
    return file


def check(export_type: str, file: Path) -> None:
    if export_type == "excel":
        with zipfile.ZipFile(file) as book:
            assert book.testzip() is None
            assert book.read("xl/worksheets/sheet1.xml").count(b"<row ") == ROWS + 1
    elif export_type == "pdf":
        assert file.read_bytes().endswith(b"%%EOF\n")
    elif export_type == "json":
        assert [row["id"] for row in json.loads(file.read_text())] == list(range(1, ROWS + 1))
    else:
        lines = file.read_text("utf-8-sig").splitlines()
        ids = (
            [line.split(",")[0] for line in lines[1:]] if export_type == "csv" else [json.loads(x)["id"] for x in lines]
        )
        assert list(map(int, ids)) == list(range(1, ROWS + 1))


@pytest.mark.parametrize(("export_type", "kills"), [("csv", 3), ("excel", 1)])
def test_killed_some_times(settings, export_type, kills):
    check(export_type, killed_and_completed(export_type, kills))


@pytest.mark.slow
@pytest.mark.parametrize("export_type", ["csv", "json", "ndjson", "excel", "pdf"])
def test_killed_ten_times(settings, export_type):
    check(export_type, killed_and_completed(export_type, 10))
