"""Files are the user's own: modes whatever the umask, files of older versions, planted links and folders."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rqjobs.attempt import Attempt
from rqjobs.broker.connection import connect
from rqjobs.broker.embedded import EmbeddedServerError, ensure_server, socket_path, stop_server
from rqjobs.config import settings as settings_module
from rqjobs.config.private_files import make_private_folder, open_new
from rqjobs.config.settings import Settings, close_data_folder, data_folder, use_settings
from rqjobs.jobs import EmailJob
from rqjobs.processors.email import send

EVERYTHING = """
import sys
from sqlalchemy import text
from rqjobs.attempt import Attempt
from rqjobs.broker.connection import connect
from rqjobs.config.secret_key import secret_key
from rqjobs.config.settings import get_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.jobs import DataExportJob, EmailJob
from rqjobs.processors.email import send
from rqjobs.processors.export.partial import PartialFile
from rqjobs.processors.export.storage import get_storage
import os
os.umask(int(sys.argv[1], 8))
secret_key()
connect().set("x", 1)
init_database(get_engine())
with get_engine().begin() as connection:
    connection.execute(text("CREATE TABLE IF NOT EXISTS t (x)"))
    connection.execute(text("INSERT INTO t VALUES (1)"))
job = EmailJob(to="a@b.example", subject="s", template="booking-confirmation", data=DATA)
send(job, Attempt(job_id="m", queue="email"))
with PartialFile(get_storage(), "bookings-x.csv", "c", resumable=True) as partial:
    partial._next = 0
    partial.file.write(b"private")
    partial.checkpoint(1, ("k",))
    sys.stdout.write(repr([(name, os.lstat(name).st_mode & 0o7777) for path, folders, files
        in os.walk(get_settings().rqjobs_data) for name in [path, *(os.path.join(path, file) for file in files)]]))
    partial.publish()
"""


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in [folder, *folder.rglob("*")]
        if not path.is_symlink()
    }


def are_private(found: dict[str, int]) -> bool:
    return all(not mode & 0o077 for mode in found.values())


@pytest.fixture
def data(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """RQJOBS_DATA with the database and the exports in it, and an embedded Redis."""
    folder = Path(tempfile.mkdtemp(prefix="rq")) / "d"  # short: the socket is in it
    monkeypatch.setenv("RQJOBS_DATA", str(folder))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{folder}/rqjobs.db")
    monkeypatch.setenv("EXPORT_URL", str(folder / "exports"))
    use_settings(None)
    yield folder
    stop_server(folder / "redis")
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("umask", ["000", "022"])
def test_all_files_are_private_with_any_umask(data: Path, umask: str) -> None:
    program = EVERYTHING.replace("DATA", "{'name': 'A', 'service': 'x', 'date': 'y', 'time': 'z'}", 1)
    command = [sys.executable, "-c", program, umask]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = modes(data)
    made = {"secret_key", "rqjobs.db", "redis/redis.sock", "redis/redis.log", "exports/bookings-x.csv"}
    assert made <= found.keys()
    assert any(name.startswith("mail/") for name in found)
    assert are_private(found), found
    while_written = dict(eval(done.stdout))  # our own program's
    assert {Path(name).suffix for name in while_written} >= {".part", ".checkpoint", ".db-wal", ".db-shm", ".eml"}
    assert are_private(while_written), while_written


def plant_old_files(folder: Path) -> None:
    """What a version before, under umask 022, has left."""
    before = os.umask(0o022)
    try:
        for name in (
            "redis/appendonlydir/x.aof",
            "mail/a.eml",
            "exports/b.csv",
            "rqjobs.db",
            "rqjobs.db-wal",
            "secret_key",
        ):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x" * 43)
    finally:
        os.umask(before)


def test_files_of_the_version_before_are_closed_at_the_start(data: Path) -> None:
    plant_old_files(data)
    elsewhere = data.parent / "elsewhere"
    elsewhere.write_text("not ours")
    elsewhere.chmod(0o644)
    (data / "mail" / "link").symlink_to(elsewhere)
    assert not are_private(modes(data))
    close_data_folder()
    assert are_private(modes(data)), modes(data)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o644


def test_foreign_files_in_a_shared_folder_are_not_changed(data: Path) -> None:
    plant_old_files(data)
    (data / "uploads").mkdir(mode=0o755)
    (data / "uploads" / "logo.png").write_text("served by nginx")
    (data / "uploads" / "logo.png").chmod(0o644)
    close_data_folder()
    found = modes(data)
    assert (found["."], found["uploads"], found["uploads/logo.png"]) == (0o755, 0o755, 0o644)
    assert are_private({name: mode for name, mode in found.items() if name != "." and not name.startswith("uploads")})


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give files away")
def test_files_of_another_user_are_left_alone(data: Path) -> None:
    plant_old_files(data)
    os.chown(data / "mail" / "a.eml", 12345, -1)
    close_data_folder()
    assert modes(data)["mail/a.eml"] == 0o644
    assert modes(data)["exports/b.csv"] == 0o600


@pytest.mark.parametrize("command", [["worker", "--burst"], ["health"]])
def test_commands_that_use_the_folder_close_it(data: Path, command: list[str]) -> None:
    make_private_folder(data)
    data.chmod(0o755)
    (data / "mail").mkdir(mode=0o755)
    (data / "mail" / "a.eml").write_text("private")
    subprocess.run([sys.executable, "-m", "rqjobs", *command], capture_output=True, timeout=180, check=True)
    assert are_private(modes(data)), modes(data)


def test_a_mail_does_not_follow_a_planted_link(data: Path) -> None:
    target = data.parent / "target"
    target.write_text("mine")
    values = {"name": "A", "service": "x", "date": "y", "time": "z"}
    job = EmailJob(to="a@b.example", subject="s", template="booking-confirmation", data=values)
    send(job, Attempt(job_id="m", queue="email"))
    (mail,) = (data / "mail").glob("*.eml")
    mail.unlink()
    connect().flushall()  # it is to be sent again
    for link in (mail, mail.with_name(f".{mail.stem}.{os.getpid()}")):
        link.symlink_to(target)
    send(job, Attempt(job_id="m", queue="email"))
    assert target.read_text() == "mine"
    assert not mail.is_symlink()
    assert mail.read_bytes()


def test_a_new_file_takes_no_planted_name(data: Path) -> None:
    target = data_folder() / "target"
    for planted_name in ("link", "file"):
        path = data / planted_name
        path.symlink_to(target) if planted_name == "link" else path.write_text("mine")
        with pytest.raises(FileExistsError):
            open_new(path)
    assert not target.exists()


def test_exports_outside_are_private_files_and_their_folder_stays_as_it_is(
    data: Path, tmp_path: Path, configure: Callable[..., None]
) -> None:
    from rqjobs.processors.export.partial import PartialFile
    from rqjobs.processors.export.storage import get_storage

    folder = tmp_path / "served"
    folder.mkdir()
    folder.chmod(0o755)
    configure(EXPORT_URL=str(folder))
    with PartialFile(get_storage(), "a.csv", "c", resumable=False) as partial:
        partial.file.write(b"x")
        partial.publish()
    assert modes(folder) == {".": 0o755, "a.csv": 0o600}


@pytest.fixture
def far_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose path is too long for a socket, and a temporary folder of the test's own."""
    short = tempfile.mkdtemp(prefix="t")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: short)
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    yield folder
    shutil.rmtree(short)


def planted(path: Path, kind: str) -> None:
    if kind == "open":
        path.mkdir()
        path.chmod(0o777)
    elif kind == "link":
        other = path.with_name("other")
        other.mkdir(mode=0o700)
        path.symlink_to(other)
    else:
        path.mkdir(mode=0o700)
        os.chown(path, 12345, 12345)


@pytest.mark.parametrize("kind", ["open", "link", "foreign"])
def test_a_planted_socket_folder_is_refused_before_the_first_connection(far_folder: Path, kind: str) -> None:
    if kind == "foreign" and os.getuid() != 0:
        pytest.skip("needs root to give a folder away")
    path = socket_path(far_folder).parent
    path.rmdir()
    planted(path, kind)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path / "redis.sock"))
        listener.listen()
        listener.setblocking(False)
        for call in (ensure_server, stop_server):
            with pytest.raises(EmbeddedServerError, match="another user"):
                call(far_folder)
        with pytest.raises(BlockingIOError):  # nobody has connected
            listener.accept()


def test_the_socket_folder_is_private_and_used(far_folder: Path) -> None:
    before = os.umask(0)
    try:
        path = ensure_server(far_folder)
    finally:
        os.umask(before)
    try:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert connect(f"embedded:{far_folder}").ping()
        assert are_private(modes(far_folder)), modes(far_folder)
    finally:
        stop_server(far_folder)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a link away")
def test_a_folder_that_is_another_users_link_is_refused(data: Path) -> None:
    target = data.parent / "t"
    target.mkdir()
    link = data.parent / "link"
    link.symlink_to(target)
    os.chown(link, 12345, -1, follow_symlinks=False)
    with pytest.raises(PermissionError, match="another user"):
        make_private_folder(link)


def test_the_folder_is_searched_once_per_process(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_folder()
    monkeypatch.setattr(settings_module, "close_folder", lambda *_: pytest.fail("again"))
    assert data_folder() == data
