"""``make test-rq``: RQ's own tests, from the source distribution of the RQ that is installed, with our engine.

The source distribution comes from the package index into a temporary folder, and the tests use a Redis of their own.
Fails on every test that fails without standing in ``expected_failures.txt``, and on every one that stands there and
passes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import redis

from rqjobs.broker.embedded import find_server
from tests.support.servers import free_port

HERE = Path(__file__).parent
LEFT_OUT = ("test_spawn_worker.py",)  # its workers start Python anew for each job, with RQ's loop
LEFT_OUT_TESTS = (
    "test_kill_horse_command",  # it kills the work horse, which is the tests' own process here
    "test_stop_job_command",  # these two allow 0.25 s, and a thread inside a call of C is stopped after 0.2 to 0.3 s:
    "test_stop_execution_command",  # tests/acceptance/test_stop_job.py
)


def download(folder: Path) -> Path:
    """RQ's source distribution, unpacked, without RQ itself: the tests import the one that is installed.

    Its hash is that of requirements.lock, and pip reads its metadata with the build tools that are installed.
    """
    entry = rf"^rq=={re.escape(version('rq'))} \\\n(?: +--hash=\S+(?: \\)?\n)+"
    locked = re.search(entry, (HERE.parents[1] / "requirements.lock").read_text(), re.MULTILINE)
    if locked is None:
        sys.exit(f"RQ {version('rq')} is installed, and requirements.lock names another one: make")
    (folder / "rq.lock").write_text(locked[0])
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", ":all:", "--no-build-isolation", "--require-hashes", "--dest", str(folder)]
    subprocess.run([*command, "-r", str(folder / "rq.lock")], check=True)
    (archive,) = folder.glob("rq-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (source,) = (path for path in folder.glob("rq-*") if path.is_dir())
    shutil.rmtree(source / "rq")
    return source


def start_redis(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server on loopback that keeps nothing."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen([find_server(), *options], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    for _ in range(600):
        try:
            client.ping()
        except redis.exceptions.ConnectionError:
            time.sleep(0.1)
        else:
            client.close()
            return server
    server.kill()
    raise TimeoutError("the Redis of this run did not start")


def expected() -> dict[str, str]:
    """The tests that fail for a reason, and that reason."""
    lines = (HERE / "expected_failures.txt").read_text().splitlines()
    rows = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return dict(rows)


def run_tests(source: Path, folder: Path, port: int, more: list[str]) -> dict[str, set[str]]:
    """The tests' names by their outcome."""
    outcomes = folder / "outcomes"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RQ", "REDIS"))},
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "PYTHONPATH": os.pathsep.join((str(HERE), str(source))),
        "RQ_SUITE_PORT": str(port),
        "RQ_SUITE_DATA": str(folder / "data"),
        "RQ_SUITE_OUTCOMES": str(outcomes),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "rq_suite_plugin", "-p", "no:cacheprovider", "--tb=short"]
    command += [f"--ignore=tests/{name}" for name in LEFT_OUT]
    command += ["-k", " and ".join(f"not {name}" for name in LEFT_OUT_TESTS)]
    ended = subprocess.run([*command, *(more or ["tests"])], cwd=source, env=environment, check=False)
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {ended.returncode}")
    rows = [line.split(maxsplit=1) for line in outcomes.read_text().splitlines()]
    return {kind: {name for outcome, name in rows if outcome == kind} for kind in ("passed", "failed")}


def main(more: list[str]) -> int:
    """Runs RQ's tests, or those that ``more`` names, and compares."""
    folder = Path(tempfile.mkdtemp(prefix="rqjobs-rq-suite-"))
    server = None
    try:
        source = download(folder)
        port = free_port()
        server = start_redis(folder, port)
        found = run_tests(source, folder, port, more)
    finally:
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)
    known = set(expected())
    unexpected = {"fail without a reason": found["failed"] - known, "pass unexpectedly": found["passed"] & known}
    print(f"{len(found['passed'])} passed, {len(found['failed'])} failed, {len(known & found['failed'])} as expected")
    for what, names in unexpected.items():
        for name in sorted(names):
            print(f"{what}: {name}")
    return int(any(unexpected.values()) or not found["passed"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
