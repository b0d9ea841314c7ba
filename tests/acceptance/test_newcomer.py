"""The README as a newcomer follows it, word for word, in an empty folder: the first delivered webhook, the first
failure, found and run again. Only the ports are others, so that nobody else's server is in the way.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import free_port
from tests.support.workers import ROOT, eventually

README = (ROOT / "README.md").read_text()
README_LINES = {" ".join(line.split()) for line in README.splitlines()}
OURS = re.compile(r"RQJOBS_|REDIS_|DATABASE_|WEBHOOK_|TEST_")
STAYS = re.compile(r"sandbox webhooks|app run|runserver|uvicorn|rqjobs worker")
PORTS = {
    "app run": ("5000", "--port {}"),
    "runserver": ("8000", "{}"),
    "uvicorn": ("8000", "--port {}"),
    "sandbox webhooks": ("8977", "--port {}"),
}


class Terminals:
    """One empty folder and any number of terminals in it, with none of this test's own settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in ("8977", "5000", "8000")}
        self.settings = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        self.settings["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.settings['PATH']}"
        self.running: dict[str, subprocess.Popen[str]] = {}

    def type(self, line: str) -> str:
        """What a command says; one that goes on until Ctrl-C is left running, in the place of an earlier one."""
        for port, ours in self.ports.items():
            line = line.replace(f":{port}", f":{ours}")
        kind = STAYS.search(line)
        if kind is None:
            done = subprocess.run(
                line, shell=True, cwd=self.folder, env=self.settings, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
            return done.stdout
        if kind[0] in PORTS:
            default, option = PORTS[kind[0]]
            line = f"{line} {option.format(self.ports[default])}"
        self.end(kind[0])
        with self.log(kind[0]).open("w") as log:
            self.running[kind[0]] = subprocess.Popen(
                f"exec {line}", shell=True, cwd=self.folder, env=self.settings, stdout=log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        return ""

    def log(self, kind: str) -> Path:
        return self.folder / f"{kind.replace(' ', '-')}.log"

    def end(self, kind: str) -> None:
        if process := self.running.pop(kind, None):
            os.killpg(process.pid, signal.SIGTERM)  # Django's reloader has a child
            process.wait(60)

    def paste_exports(self) -> None:
        """The receiver prints what to paste into the other terminals."""
        text = eventually(lambda: (text := self.log("sandbox webhooks").read_text()).count("export ") == 2 and text)
        self.settings |= dict(re.findall(r"export (\w+)=(\S+)", text))

    def received(self, path: str) -> int:
        """How many signed requests the receiver has shown."""
        return len(
            re.findall(rf"^{path} \S+ signature verified", self.log("sandbox webhooks").read_text(), re.MULTILINE)
        )


@pytest.fixture
def terminals(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    opened = Terminals(folder)
    yield opened
    for kind in list(opened.running):
        opened.end(kind)
    if (pid := folder / ".rqjobs/redis/redis.pid").exists():
        opened.type(f"kill $(cat {pid})")  # docs/tutorial.md


def section(start: str, end: str) -> str:
    return README[README.index(start) : README.index(end)]


def console(text: str) -> list[str]:
    """The commands of a part of the README."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line.split("#")[0].strip() for block in blocks for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE)]


def python(text: str) -> str:
    return re.search(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]


def follow(terminals: Terminals, lines: list[str], code: Path) -> None:
    """Types the lines, then has the app send what fails, finds that, and runs it again."""
    *starts, book, failed = lines
    assert book.startswith("curl -X POST")
    assert failed.endswith("failed list")
    text = code.read_text().replace(":8977", f":{terminals.ports['8977']}")
    for path in ("/ok", "/status/404"):
        code.write_text(text.replace("/ok", path))
        for line in starts:
            terminals.type(line)
        eventually(lambda: "worker started" in terminals.log("rqjobs worker").read_text())
        answer = eventually(lambda: booked(terminals, book))
        assert '"job"' in answer
        eventually(lambda path=path: terminals.received(path) == 1)
        if path == "/ok":
            assert "no dead letters" in terminals.type(failed)
    shown = eventually(lambda: "answered 404" in (said := terminals.type(failed)) and said)
    assert f"run again: {failed.replace('list', 'requeue ID')} " in shown  # as it was typed
    job_id = shown.splitlines()[1].split()[0]
    assert "answered 404" in terminals.type(failed.replace("list", f"show {job_id}"))
    assert "requeued: 1" in terminals.type(failed.replace("list", f"requeue {job_id}"))
    eventually(lambda: terminals.received("/status/404") == 2)


def booked(terminals: Terminals, line: str) -> str:
    try:
        return terminals.type(line.replace("curl", "curl -sS"))
    except AssertionError:  # the server is not there yet
        return ""


def test_the_readme_works_in_three_terminals(terminals):
    lines = console(section("Next, your own jobs.", "## Enqueue"))
    receiver, worker, good, bad, health, listed, requeue = lines
    terminals.type(receiver)
    terminals.paste_exports()
    terminals.type(worker)
    for line in (good, bad):
        terminals.type(line)
    eventually(lambda: terminals.received("/ok") == terminals.received("/status/404") == 1)
    shown = eventually(lambda: re.search(r"webhooks +0 +0 +0 +1 +1 +1 ", said := terminals.type(health)) and said)
    assert shown.splitlines()[0] in README  # the page shows the output of today
    shown = terminals.type(listed)
    assert "answered 404" in shown
    assert {" ".join(line.split()) for line in shown.splitlines() if "404" not in line} <= README_LINES
    assert "requeued: 1" in terminals.type(requeue)
    eventually(lambda: terminals.received("/status/404") == 2)


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [("**Flask.**", "**Django.**", "app.py"), ("**FastAPI, asyncio.**", "**Your own jobs**", "main.py")],
    ids=["flask", "fastapi"],
)
def test_an_app_in_one_file(terminals, start, end, name):
    text, code = section(start, end), terminals.folder / name
    code.write_text(python(text))
    terminals.type("rqjobs sandbox webhooks")
    terminals.paste_exports()
    follow(terminals, console(text), code)


def test_django(terminals):
    text = section("**Django.**", "**FastAPI, asyncio.**")
    (command,) = re.findall(r"`(django-admin [^`]+)`", text)
    terminals.type(command)
    settings = terminals.folder / "shop" / "settings.py"
    (app,) = re.findall(r'add `("[\w.]+")` to `INSTALLED_APPS`', " ".join(text.split()))
    settings.write_text(settings.read_text().replace("INSTALLED_APPS = [", f"INSTALLED_APPS = [{app},"))
    urls = terminals.folder / "shop" / "urls.py"
    urls.write_text(python(text))
    terminals.type("rqjobs sandbox webhooks")
    terminals.paste_exports()
    follow(terminals, console(text), urls)
