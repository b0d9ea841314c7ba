"""Header fields: any subject and any name reads back, by Python's parser and by a strict decoder of RFC 2047."""

from __future__ import annotations

import base64
import email
import email.policy
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rqjobs.config.addresses import Mailbox
from rqjobs.processors.email.headers import write_mailboxes, write_text
from rqjobs.processors.email.message import Mail, build

LINE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=400)
SPACED = st.lists(st.text("a\u00fc \U0001f600", max_size=40), min_size=1, max_size=12).map(" ".join).filter(bool)
WORDS = st.lists(st.text('abcdefgh?=_"\\,;<>@.', min_size=1, max_size=90), min_size=1, max_size=12).map("  ".join)
TEXT = LINE | SPACED | WORDS
HOSTILE = "=?utf-8?q?x=0D=0ABcc:_eve=40e.example=0D=0A=0D=0Abody?="
ENCODED = re.compile(r"=\?([!-<>@-~]+)\?([bqBQ])\?([!->@-~]*)\?=")
IN_PHRASE = re.compile(r"[A-Za-z0-9!*+/=_-]*")  # RFC 2047, 5 (3)


def unfolded(field: str) -> str:
    """The value of a field, after the checks of its lines' lengths (RFC 5322, 2.1.1 and 2.2.3; RFC 2047, 2)."""
    lines = field.split("\r\n")
    assert not any("\r" in line or "\n" in line for line in lines)
    assert all(line[0] == " " and line.strip() for line in lines[1:])
    assert all(len(line.encode()) <= (76 if "=?" in line else 998) for line in lines)
    return "".join(lines).partition(": ")[2]


def decoded(value: str, *, phrase: bool = False) -> str:
    """``value`` as RFC 2047 has it: words between blanks, each of whole characters; blanks between two do not count."""
    found, between, last_was_encoded = "", "", False
    for token in re.split("( +)", value):
        if token.startswith(" ") or not token:
            between += token
            continue
        if match := ENCODED.fullmatch(token):
            charset, encoding, text = match.groups()
            assert (len(token) <= 75, charset) == (True, "utf-8")
            if encoding in "qQ":
                assert not phrase or IN_PHRASE.fullmatch(text)
                plain = re.sub("=([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), text.replace("_", " "))
                word = plain.encode("latin-1").decode()
            else:
                word = base64.b64decode(text, validate=True).decode()
            found += ("" if last_was_encoded else between) + word
        else:
            assert "=?" not in token
            found += between + token
        last_was_encoded, between = match is not None, ""
    return found + between


def test_the_decoder_of_this_test_is_right() -> None:
    # the examples of RFC 2047, 8
    assert decoded("=?utf-8?q?a?= b") == "a b"
    assert decoded("=?utf-8?q?a?= =?utf-8?q?b?=") == "ab"
    assert decoded("=?utf-8?q?a?=    =?utf-8?q?b?=") == "ab"
    assert decoded("=?utf-8?q?a_b?=") == "a b"
    assert decoded("=?utf-8?q?a?= =?utf-8?b?IMO8?=") == "a \u00fc"


@given(TEXT)
@example("Gr\u00fc\u00dfe  aus  K\u00f6ln " * 20)
@example("\u00e4" * 998)
@example("x" * 998)
@example(HOSTILE)
@example(" ")
@settings(max_examples=300, derandomize=True)
def test_any_subject_reads_back(subject: str) -> None:
    field = write_text("Subject", subject)
    assert field.isascii()
    assert decoded(unfolded(field)) == subject
    mail = Mail(key="k", sender=Mailbox("", "a", "b.example"), to=[Mailbox("", "c", "d.example")],
                subject=subject, text="t")  # fmt: skip
    message = email.message_from_bytes(build(mail), policy=email.policy.default)
    assert message["Subject"] == subject
    assert message["Bcc"] is None


@given(TEXT, st.integers(1, 64), st.booleans())
@example("\u00fc" * 1200, 64, True)
@example("x" * 1200, 64, False)
@example('Ada "the first" Lovelace, (Countess) \\', 3, False)
@example(HOSTILE, 3, True)
@settings(max_examples=300, derandomize=True)
def test_any_name_reads_back(name: str, length: int, twice: bool) -> None:
    box = Mailbox(name, "a" * length, "a.example")
    field = write_mailboxes("To", [box] * (1 + twice))
    value = unfolded(field)
    assert field.isascii()
    spec = f" <{box.address}>"
    assert value.endswith(spec)
    shown = value[: value.index(spec)]
    strict = re.sub(r"\\(.)", r"\1", shown[1:-1]) if shown[0] == '"' else decoded(shown, phrase=True)
    assert strict == name
    message = email.message_from_string(f"{field}\r\n\r\n", policy=email.policy.default)
    found = [(blankless(read.display_name), read.addr_spec) for read in message["To"].addresses]
    assert found == [(blankless(name), box.address)] * (1 + twice)


def blankless(text: str) -> str:
    """Python's parser makes one blank of several in a name, and before 3.13 puts one between encoded words."""
    return "".join(text.split())


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("", "To: ada@a.example"),
        ("Ada Lovelace", "To: Ada Lovelace <ada@a.example>"),
        ("Lovelace, Ada", 'To: "Lovelace, Ada" <ada@a.example>'),
        ("J. R.", 'To: "J. R." <ada@a.example>'),
        ("\u00c4nne", "To: =?utf-8?q?=C3=84nne?=\r\n <ada@a.example>"),
    ],
)
def test_a_name_stays_readable_where_it_can(name: str, field: str) -> None:
    assert write_mailboxes("To", [Mailbox(name, "ada", "a.example")]) == field


def test_a_subject_of_ascii_words_is_folded_at_its_blanks() -> None:
    subject = "word " * 60 + "end"
    field = write_text("Subject", subject)
    assert "=?" not in field
    assert max(map(len, field.split("\r\n"))) <= 78
    assert unfolded(field) == subject
