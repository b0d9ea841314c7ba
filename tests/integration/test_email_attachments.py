"""Attachments: from the places that EMAIL_ATTACHMENTS names, and from nowhere else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rqjobs.config.file_urls import Place
from rqjobs.config.settings import Settings, get_settings, use_settings
from rqjobs.errors import InvalidSettings, PermanentFailure
from rqjobs.jobs import Attachment
from rqjobs.processors.email import attachments
from tests.support.receiver import Answer, Received, Receiver

Configure = Callable[..., None]
SECRET = b"the secret of this test"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder ``files``, and secrets around it."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"a")
    for secret in (tmp_path / "secret.txt", tmp_path / "files2.txt"):
        secret.write_bytes(SECRET)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "environ").symlink_to("/proc/self/environ")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / "secret_key").write_bytes(SECRET)
    (folder / "data").symlink_to(data)
    return folder


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver().start()
    yield running
    running.stop()


def read(source: str) -> bytes:
    (file,) = attachments.read_attachments([Attachment(source=source)], get_settings())
    return file.data


LOCAL = [
    "{tmp}/secret.txt", "file://{tmp}/secret.txt", "file:{tmp}/secret.txt", "local://{tmp}/secret.txt",
    "local:{tmp}/secret.txt", "FILE://{tmp}/secret.txt", "{files}/../secret.txt", "{files}/link.txt",
    "{files}/up/secret.txt", "{files}2.txt", "{files}/environ", "{files}/data/secret_key", "{tmp}/data/secret_key",
    "/etc/passwd", "/proc/self/environ", "/proc/self/root/etc/passwd", "/proc/self/cwd/secret.txt", "/dev/stdin",
    "/dev/fd/0", "/dev/zero", "/sys/kernel/version", "~/secret.txt", "~root/.bashrc", "{files}/*", "{files}",
    "{files}/pipe", "{files}/loop", "{files}/a.txt/x", "{files}/" + "x" * 300, "data:text/plain,hi",
]  # fmt: skip
REMOTE = [
    "ftp://169.254.169.254/x", "sftp://10.0.0.1/x", "ssh://10.0.0.1/x", "webhdfs://10.0.0.1/x", "hdfs://10.0.0.1/x",
    "smb://10.0.0.1/share/x", "github://owner:repo@main/x", "git://{tmp}:x", "zip://x::file://{tmp}/a.zip",
    "simplecache::http://127.0.0.1/", "filecache::s3://shop/invoices/a", "blockcache::file://{tmp}/secret.txt",
    "reference://x", "dask://x", "data://x", "libarchive://x", "gopher://127.0.0.1/x", "http://169.254.169.254/latest",
    "https://files.example/public/a.pdf", "https://files.example.evil.example/invoices/a.pdf",
    "https://files.example@evil.example/invoices/a.pdf", "https://evil.example#@files.example/invoices/a.pdf",
    "https://files.example:8443/invoices/a.pdf", "https://files.example/invoices/../public/a.pdf",
    "https://files.example/invoices/%2e%2e/public/a.pdf", "https://files.example/invoices/%252e%252e%252fpublic/a.pdf",
    "https://files.example/invoices%2f..%2fpublic/a.pdf", "https://files.example\\@evil.example/invoices/a",
    "https://files.example/invoices2/a.pdf", "HTTPS://files.example/invoices/a.pdf", "s3://shop2/invoices/a.pdf",
    "s3://shop/invoice/a.pdf", "s3://shop/invoices/../keys/a", "s3:///invoices/a.pdf", "S3://shop/invoices/a.pdf",
    "memory://boxes/x", "memory://box/../x", "nosuch://x/y", "://x", "http://", "https://",
]  # fmt: skip
PLACES = "{files} https://files.example/invoices s3://shop/invoices memory://box"


@pytest.mark.parametrize("places", ["", PLACES])
def test_attachments_outside_of_allowed_places_are_not_read(
    files: Path, tmp_path: Path, configure: Configure, places: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(LOCAL) + len(REMOTE) > 28

    def never(*arguments: object, **_options: object) -> object:
        raise AssertionError(f"something was opened: {arguments}")

    configure(EMAIL_ATTACHMENTS=places.format(files=files), HOME=str(tmp_path))
    monkeypatch.setattr("fsspec.core.url_to_fs", never)
    monkeypatch.setattr("socket.getaddrinfo", never)
    for source in (*LOCAL, *REMOTE):
        written = source.format(tmp=tmp_path, files=files)
        with pytest.raises(PermanentFailure, match="attachment"):
            read(written)


def test_by_default_nothing_is_read(files: Path, configure: Configure) -> None:
    with pytest.raises(PermanentFailure, match="not in a place that EMAIL_ATTACHMENTS names"):
        read(str(files / "a.txt"))
    configure(EMAIL_ATTACHMENTS=str(files))
    assert read(str(files / "a.txt")) == b"a"
    assert read(f"file://{files}/a.txt") == b"a"


def test_a_named_folder_opens_neither_proc_nor_our_own_data(files: Path, tmp_path: Path, configure: Configure) -> None:
    for places in ("/", "/proc /sys /dev", f"{tmp_path} {tmp_path}/data"):
        configure(EMAIL_ATTACHMENTS=places)
        for source in ("/proc/self/environ", "/proc/1/environ", "/sys/kernel/version", "/dev/zero",
                       f"{tmp_path}/data/secret_key", f"{files}/data/secret_key", f"{files}/environ"):  # fmt: skip
            with pytest.raises(PermanentFailure, match=r"is attached|not in a place"):
                read(source)
    assert read(str(tmp_path / "secret.txt")) == SECRET


def test_a_link_that_is_planted_after_the_check_is_not_followed(
    files: Path, tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(EMAIL_ATTACHMENTS=str(files))
    (files / "sub").mkdir()
    (files / "sub" / "secret.txt").write_bytes(b"honest")
    checked = attachments._allowed_path
    targets = {"secret.txt": files / "sub" / "secret.txt", "sub": files / "sub"}
    for planted in targets.values():

        def swap(*arguments: object, planted: Path = planted) -> Path:
            path = checked(*arguments)
            planted.rename(f"{planted}.aside")
            planted.symlink_to(tmp_path / "secret.txt" if planted.suffix else tmp_path)
            return path

        monkeypatch.setattr(attachments, "_allowed_path", swap)
        with pytest.raises(PermanentFailure, match="no such file"):
            read(str(files / "sub" / "secret.txt"))
        planted.unlink()
        Path(f"{planted}.aside").rename(planted)
    monkeypatch.setattr(attachments, "_allowed_path", checked)
    assert read(str(files / "sub" / "secret.txt")) == b"honest"


def test_from_the_web_only_through_the_guard(receiver: Receiver, configure: Configure) -> None:
    def answer(request: Received) -> Answer:
        return {
            "/files/a.pdf": Answer(body=b"%PDF"),
            "/files/moved.pdf": Answer(302, headers={"Location": receiver.url("/secret")}),
            "/files/packed.pdf": Answer(body=b"x", headers={"Content-Encoding": "gzip"}),
            "/files/busy.pdf": Answer(503),
        }.get(request.path, Answer(404))

    receiver.answer = answer
    place = receiver.url("/files")
    configure(EMAIL_ATTACHMENTS=place)
    with pytest.raises(PermanentFailure, match="refused by the rule"):
        read(f"{place}/a.pdf")
    assert not receiver.requests
    configure(EMAIL_ATTACHMENTS=place, WEBHOOK_ALLOW="127.0.0.1")
    assert read(f"{place}/a.pdf") == b"%PDF"
    for name in ("moved.pdf", "packed.pdf", "none.pdf"):
        with pytest.raises(PermanentFailure, match="the server answers"):
            read(f"{place}/{name}")
    with pytest.raises(OSError, match="the server answers 503"):
        read(f"{place}/busy.pdf")
    with pytest.raises(PermanentFailure, match="not in a place"):
        read(receiver.url("/secret"))
    assert "/secret" not in {request.path for request in receiver.requests}
    configure(EMAIL_ATTACHMENTS=place, WEBHOOK_ALLOW="127.0.0.1", EMAIL_MAX_ATTACHMENTS="3")
    with pytest.raises(PermanentFailure, match="EMAIL_MAX_ATTACHMENTS allows 3 bytes"):
        read(f"{place}/a.pdf")


def test_a_file_that_breaks_off_or_drips_is_tried_again(
    receiver: Receiver, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_off(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)

    configure(EMAIL_ATTACHMENTS=receiver.url("/files"), WEBHOOK_ALLOW="127.0.0.1")
    receiver.answer = lambda request: Answer(raw=break_off)
    with pytest.raises(OSError, match=r"attachment http://.*"):
        read(receiver.url("/files/a"))
    monkeypatch.setattr(attachments, "_WHOLE", 0.5)
    receiver.answer = lambda request: Answer(raw=drip)
    with pytest.raises(TimeoutError, match="not complete within"):
        read(receiver.url("/files/b"))


def test_an_attachment_is_retried_while_its_web_server_does_not_answer(configure: Configure) -> None:
    configure(EMAIL_ATTACHMENTS="http://", WEBHOOK_ALLOW="127.0.0.1")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens there
        with pytest.raises(OSError, match="failed"):
            read(f"http://127.0.0.1:{bound.getsockname()[1]}/a.pdf")


def test_a_named_store_is_read_as_its_key_is_written(configure: Configure) -> None:
    import fsspec

    for key in ("box/*.pdf", "box/a.pdf"):
        with fsspec.open(f"memory://{key}", "wb", expand=False) as file:
            file.write(key.encode())
    configure(EMAIL_ATTACHMENTS="memory://box")
    assert read("memory://box/a.pdf") == b"box/a.pdf"
    with pytest.raises(PermanentFailure, match="no such file"):
        read("memory://box/b*.pdf")


@pytest.mark.parametrize(
    "place", ["ftp://x/y", "s3://shop/../keys", "https://user@host/", "https://a/b#c", "webhdfs://x", "HTTPS://a/"]
)
def test_a_place_that_cannot_be_one_is_named_at_start_up(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMAIL_ATTACHMENTS", f"invoices {place}")
    use_settings(None)
    with pytest.raises(InvalidSettings, match="EMAIL_ATTACHMENTS"):
        Settings.load()


def test_a_place_contains_the_urls_below_it() -> None:
    def contains(place: str, url: str) -> bool:
        return Place.parse(place).contains(Place.parse(url))

    assert contains("https://", "https://any.example/x")
    assert contains("https://Files.example/a/", "https://files.EXAMPLE/a/b?c=d")
    assert contains("s3://shop", "s3://shop/a?versionId=1")
    assert contains("s3://shop/a.pdf", "s3://shop/a.pdf")
    assert not contains("https://files.example", "http://files.example/a")
    assert not contains("s3://shop/a", "s3://shop/ab")
    assert not contains("s3://shop/a", "s3://shop/?a/b")
