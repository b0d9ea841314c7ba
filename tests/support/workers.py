"""Real worker processes for tests: started on this test's Redis, and no other process is ever ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Workers:
    """The processes that one test started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *args: str, **environment: str) -> subprocess.Popen[str]:
        """``rqjobs worker ARGS`` in the background; its log is in the test's folder."""
        return self.command("worker", *args, **environment)

    def command(self, *args: str, program: str = "rqjobs", **environment: str) -> subprocess.Popen[str]:
        """A command in the background."""
        command = [str(Path(sys.executable).parent / program), *args]
        with (self.folder / f"process-{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, text=True, env=self.environment(**environment)
            )
        self.processes.append(process)
        return process

    def environment(self, **extra: str) -> dict[str, str]:
        """This test's settings, and the test queue."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "RQJOBS_IMPORT": "tests.support.processors", **extra}

    def run(self, *args: str, timeout: float = 180, **environment: str) -> subprocess.CompletedProcess[str]:
        """``rqjobs ARGS`` to its end."""
        command = [str(Path(sys.executable).parent / "rqjobs"), *args]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=self.environment(**environment)
        )

    def json(self, *args: str, **environment: str) -> Any:
        """What ``rqjobs ARGS --json`` prints."""
        done = self.run(*args, "--json", **environment)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def logs(self) -> str:
        """What all processes have said."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("process-*.log")))

    def lost_leases(self) -> Counter[str]:
        """By job, how often a worker says that it was cut off for longer than its lease: then two run the job."""
        said = re.findall(r"(?:leases were lost[^\n]* ids|lease lost id)=(\"[^\"]*|\S+)", self.logs())
        return Counter(job_id for ids in said for job_id in ids.strip('"').split())

    def taken_back(self) -> Counter[str]:
        """By job, how often a worker says that it took it from one that was dead, or cut off for so long."""
        return Counter(re.findall(r"job of a dead worker id=(\S+)", self.logs()))

    def stop(self) -> None:
        """Ends them: with SIGTERM, three seconds later with a second one, which ends a worker's jobs, then SIGKILL."""
        for seconds in (3, 7):
            for process in self.processes:
                if process.poll() is None:
                    process.terminate()
            deadline = time.monotonic() + seconds
            for process in self.processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def eventually(check: Callable[[], Any], timeout: float = 60.0, every: float = 0.05) -> Any:
    """What ``check`` answers once it is true; fails with its last answer when the time is over.

    ``timeout`` only ends a test that hangs: whatever it is, it says nothing of how fast something is.
    """
    deadline = time.monotonic() + timeout
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {timeout} s"
        time.sleep(every)
