"""One process's exports, measured: ``python -m bench.export_one FORMAT RUNS``; prints one JSON document."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from statistics import median

from rqjobs.attempt import Attempt
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export
from rqjobs.sources import Source, register_source

COLUMNS = ("id", "user_id", "manychat_id", "ig_username", "first_name", "email", "phone", "follower_count",
           "is_subscribed", "created_at")  # fmt: skip


def peak() -> float:
    """MB that this process has held at most. Not ru_maxrss: that one remembers the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main(export_type: str, runs: int) -> None:
    register_source(Source(name="ten", table="contacts", columns=COLUMNS))
    job = DataExportJob(user_id="user_1", export_type=export_type, data_type="ten")
    # A worker's process has its libraries and connections after its first job.
    export(job.model_copy(update={"user_id": "nobody"}), Attempt(job_id="warm", queue="data-export"))
    seconds = []
    for run in range(runs):
        begin = time.perf_counter()
        result = export(job, Attempt(job_id=f"bench-{os.getpid()}-{run}", queue="data-export"))
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"rows": result["rows"], "seconds": median(seconds), "peak": peak()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
