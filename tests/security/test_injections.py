"""Texts of strangers in exports and mails: none becomes a formula, a header, a recipient or a part; counted."""

from __future__ import annotations

import csv
import email
import email.policy
import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rqjobs.config.addresses import Mailbox
from rqjobs.processors.email.message import File, Mail, build
from rqjobs.processors.export.excel import ExcelWriter
from rqjobs.processors.export.text import CsvWriter
from rqjobs.processors.export.values import Batch, normalised
from rqjobs.processors.export.writer import Heading

HEADING = Heading(columns=("a", "b"), title="t", created_at=datetime(2026, 1, 1, tzinfo=UTC))
BEFORE = ("", " ", "\t", "\r", "\n", "\u00a0", "\ufeff", "\u200b", "\x00")
CALLS = ("=1+1", "+1+1|x", "-1+cmd|'/c calc'!A0", "@SUM(A1)", '=HYPERLINK("http://e.example")',
         "\uff1d1+1", "\uff0bA1", "\uff20SUM(A1)")  # fmt: skip
"""Beginnings and formulas: each of them together is a text that a spreadsheet would run, unless it is guarded."""

WORDS = ("=?utf-8?q?x=0D=0ABcc:_eve=40e.example=0D=0A=0D=0Abody?=", "=?utf-8?b?eA0KQmNjOiBldmVAZS5leGFtcGxl?=",
         'x" <eve@e.example>, "y', "x, eve@e.example", "x; filename=a.exe", "<eve@e.example>",
         "x\u2028Bcc: eve@e.example",
         "x\u0085Bcc: eve@e.example", "=?utf-8?q?" + "x" * 500, "%0D%0ABcc: eve@e.example", "x" * 990 + " Bcc: y",
         "--=_boundary--", "(comment) x")  # fmt: skip
FIELDS = ("subject", "to", "cc", "sender", "reply_to", "file")


def written(writer: Any, texts: list[str], **options: Any) -> bytes:
    file = io.BytesIO()
    out = writer(file, HEADING, **options)
    out.write(Batch(normalised([texts, ["after"] * len(texts)])))
    out.close()
    return file.getvalue()


def test_no_cell_of_an_export_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [before + call for before in BEFORE for call in CALLS]
    table = written(CsvWriter, texts).decode("utf-8-sig")
    cells = [row[0] for row in csv.reader(io.StringIO(table, newline=""))][1:]
    assert cells == [f"'{text}" for text in texts]
    with zipfile.ZipFile(io.BytesIO(written(ExcelWriter, texts, workspace=tmp_path))) as book:
        sheets = [book.read(name).decode() for name in book.namelist() if "/worksheets/" in name]
    assert sheets
    assert not any("<f>" in sheet or "<f " in sheet for sheet in sheets)
    assert 2 * len(texts) >= 100
    with capsys.disabled():
        print(f"\ninjections into exports: {2 * len(texts)} cells defused, 0 open")


def mails() -> Iterator[tuple[Mail, str]]:
    plain = Mailbox("", "ada", "a.example")
    for word in WORDS:
        for field in FIELDS:
            box = Mailbox(word, "ada", "a.example")
            given: dict[str, Any] = {"subject": "s", "to": [plain], "sender": plain}
            named: dict[str, Any] = {"to": [box], "cc": [box], "sender": box, "reply_to": box, "subject": word,
                                     "file": None}  # fmt: skip
            if field == "file":
                given["files"] = [File(word, "text/plain", b"x")]
            else:
                given[field] = named[field]
            yield Mail(key="k", text="body", **given), field


def test_no_text_of_a_mail_adds_a_header_a_recipient_or_a_part(capsys: pytest.CaptureFixture[str]) -> None:
    usual = {"Message-ID", "Date", "From", "To", "Subject", "Content-Type", "MIME-Version", "Cc", "Reply-To",
             "Content-Transfer-Encoding"}  # fmt: skip
    tried = 0
    for mail, field in mails():
        message = email.message_from_bytes(build(mail), policy=email.policy.default)
        assert set(message.keys()) <= usual, mail
        for name in ("From", "To", "Cc", "Reply-To"):
            addresses = message[name].addresses if message[name] else ()
            assert {box.addr_spec for box in addresses} <= {"ada@a.example"}, mail
        assert mail.recipients == ["ada@a.example"]
        assert len(list(message.iter_attachments())) == (field == "file")
        body = message.get_body(("plain",))
        assert body is not None
        assert body.get_content().strip() == "body"
        tried += 1
    with capsys.disabled():
        print(f"\ninjections into mails: {tried} stay text, 0 open")
