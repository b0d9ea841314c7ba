"""The message that a mail becomes: whatever people write into it, its headers are ours and it reads back."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rqjobs.config.addresses import Mailbox, parse_address
from rqjobs.processors.email.message import File, Mail, build
from rqjobs.processors.email.replies import is_hard_bounce, is_transient

LINE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=300)
WORD = "=?utf-8?q?x=0D=0ABcc:_eve=40e.example=0D=0A=0D=0Abody?="
EVIL = LINE | st.tuples(LINE, LINE).map(WORD.join)
"""Any text, at times with an encoded word (RFC 2047) that holds line breaks."""
HEADERS = ["Message-ID", "Date", "From", "To", "Subject", "Content-Type", "MIME-Version"]


def joined(text: str) -> str:
    """Without blanks: Python reads one too many between two encoded words of a name."""
    return "".join(text.split())


@given(subject=EVIL, name=EVIL, file=EVIL, body=st.text(st.characters(exclude_categories=("Cs",)), max_size=500))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_text_reads_back(subject: str, name: str, file: str, body: str) -> None:
    mail = Mail(
        key="k",
        sender=parse_address("a@b.example"),
        to=[Mailbox(name, "ada", "a.example")],
        subject=subject,
        text=body,
        html=f"<p>{body}</p>",
        files=[File(file, "application/octet-stream", b"\r\n.\r\n\x00")],
    )
    raw = build(mail)
    assert raw.isascii()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert sorted(message.keys()) == sorted(HEADERS)
    assert message["Subject"] == subject
    assert [box.addr_spec for box in message["To"].addresses] == ["ada@a.example"]
    assert joined(message["To"].addresses[0].display_name) == joined(name)
    attachment = next(message.iter_attachments())
    assert sorted(attachment.keys()) == [
        "Content-Disposition",
        "Content-Transfer-Encoding",
        "Content-Type",
        "MIME-Version",
    ]
    assert attachment.get_content() == b"\r\n.\r\n\x00"


@pytest.mark.parametrize("letter", ["x", "\u00fc"])
def test_a_long_name_makes_no_addresses(letter: str) -> None:
    name = f"{letter * 90} <boss@corp.example>, Boss <boss@corp.example>, {letter * 300}"
    sender = Mailbox(name, "ada", "a.example")
    mail = Mail(key="k", sender=sender, to=[sender] * 3, cc=[sender], reply_to=sender, subject="s", text="t")
    message = email.message_from_bytes(build(mail), policy=email.policy.default)
    for field, count in {"From": 1, "To": 3, "Cc": 1, "Reply-To": 1}.items():
        found = [(joined(box.display_name), box.addr_spec) for box in message[field].addresses]
        assert found == [(joined(name), "ada@a.example")] * count


def test_control_characters_of_a_text_do_not_go_raw_into_the_mail() -> None:
    box = Mailbox("", "ada", "a.example")
    text = "before\x00after\x1b[2J\x7f tab\t end"
    mail = Mail(key="k", sender=box, to=[box], subject="s", text=text, html=f"<p>{text}</p>")
    raw = build(mail)
    assert not {*raw} - {*range(0x20, 0x7F), *b"\t\r\n"}
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message.get_body(("plain",)).get_content().rstrip() == text
    assert message.get_body(("html",)).get_content().rstrip() == f"<p>{text}</p>"


def test_replies() -> None:
    assert is_transient(450, "4.2.0 busy")
    assert is_transient(550, "4.7.1 later")
    assert is_transient(552, "5.2.2 full", recipient=True)
    assert not is_transient(552, "5.2.2 full")
    assert not is_transient(550, "see 4.7.1 of the manual")
    assert is_hard_bounce("550 5.1.1 no such user")
    assert is_hard_bounce("5.1.10 null MX")
    assert not is_hard_bounce("550 5.1.12 odd")
    assert not is_hard_bounce("550 user unknown 5.1.1")
