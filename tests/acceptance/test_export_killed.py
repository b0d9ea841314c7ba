"""An export whose process is killed with SIGKILL again and again: nothing half is ever seen, and it completes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rqjobs.database import get_engine
from rqjobs.processors.export.reading import BATCH
from tests.support import apptables
from tests.support.workers import ROOT

RUN = """
import os, random, signal, sys
from rqjobs.attempt import Attempt
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export, partial, processor
partial._CHECKPOINT_EVERY = processor._REPORT_EVERY = 0.0
calls_left = random.randrange(200)
most = int(sys.argv[2])
begun = 0

def count_down(frame, event, arg):
    global calls_left
    calls_left -= 1
    if calls_left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

def report(progress):
    global begun
    if not begun:
        begun = progress["rows"]
        print(begun, flush=True)
    if most and progress["rows"] >= begun + most:
        sys.setprofile(count_down)  # at some call soon: no other process could be relied on to be in time

job = DataExportJob(user_id="user_1", export_type=sys.argv[1], data_type="contacts")
result = export(job, Attempt(job_id="killed", queue="data-export", report=report))
print("done", result["rows"], flush=True)
"""
ROWS = 30_000


def run(export_type: str, rows: int = 0) -> subprocess.CompletedProcess[str]:
    """The export; killed when it has written some more than ``rows`` rows, if that is given."""
    command = [sys.executable, "-c", RUN, export_type, str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)


def killed_and_completed(export_type: str, kills: int) -> Path:
    apptables.make(get_engine())
    apptables.add_contacts(get_engine(), ROWS)
    resumed = export_type in ("csv", "ndjson")
    begun = []
    for _ in range(kills):
        killed = run(export_type, random.randrange(1, ROWS // (2 * kills) if resumed else ROWS // 2))
        assert killed.returncode == -signal.SIGKILL
        begun.append(int(killed.stdout))
        assert all(path.name.startswith(".") for path in Path(".rqjobs/exports").iterdir())
    last = run(export_type).stdout.split()
    assert last[1:] == ["done", str(ROWS)]
    begun.append(int(last[0]))
    assert begun == sorted(set(begun)) if resumed else set(begun) == {BATCH}  # each run went on, or started over
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
