"""EmailJob: what is refused at the call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.config.addresses import parse_address
from rqjobs.errors import InvalidJob
from rqjobs.jobs import EmailJob

GOOD = {"to": "ada@example.com", "subject": "s", "template": "t", "data": {}}


def test_both_spellings_and_the_way_back() -> None:
    job = EmailJob(**GOOD | {
        "to": ["Ada, Countess <ada@ex\u00e4mple.de>"], "from": "Shop <shop@example.com>", "replyTo": "help@example.com",
        "attachments": ["/a/b.pdf", {"source": "s3://b/c", "contentType": "text/csv"}], "tags": ["booking"],
    })  # fmt: skip
    assert job.sender == "Shop <shop@example.com>"
    assert job.attachments[1].content_type == "text/csv"
    assert EmailJob.parse(job.dump()) == job
    assert EmailJob(**GOOD, sender="a@b.example").sender == "a@b.example"


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ada@example.com", "", "ada@example.com"),
        ("Ada <ada@Example.COM>", "Ada", "ada@example.com"),
        ('"Lovelace, \\"Ada\\"" <ada@example.com>', 'Lovelace, "Ada"', "ada@example.com"),
        ("Lovelace, Ada <ada@example.com>", "Lovelace, Ada", "ada@example.com"),
        ("\u00c5sa \U0001f600 <\u00e5sa@b\u00fccher.example>", "\u00c5sa \U0001f600", "\u00e5sa@xn--bcher-kva.example"),
        (
            "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627 <ada@a.example>",
            "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",
            "ada@a.example",
        ),
        ("\U0001f469\u200d\U0001f467 <ada@a.example>", "\U0001f469\u200d\U0001f467", "ada@a.example"),
        ("\u5c71\u7530\u3000\u592a\u90ce <ada@a.example>", "\u5c71\u7530\u3000\u592a\u90ce", "ada@a.example"),
        ("ada+tag@\u4f8b\u5b50.example", "", "ada+tag@xn--fsqu00a.example"),
    ],
)
def test_addresses(text: str, name: str, address: str) -> None:
    box = parse_address(text)
    assert (box.name, box.address) == (name, address)


@pytest.mark.parametrize(
    "text",
    ["", "ada", "ada@", "@example.com", "ada@localhost", "a b@example.com", "a@b.example, c@d.example", "a@b.example;",
     "a@b.example\r\nBcc: c@d.example", "A\nB <a@b.example>", "a@[127.0.0.1]", "a..b@example.com", "a@-x.example",
     "a@ex_ample.com", f"{'a' * 65}@example.com", f"a@{'a.' * 130}example",
     "<a@b.example> c@d.example", "a@example.com>", "Ada a@example.com>", "Ada <a@example.com>>", "a@b.example\x00",
     "=?utf-8?q?x=0D=0ABcc=3A_c?=@d.example", "a@\u2028.example",
     "Ada \u202egpj <a@b.example>", "Ada \u2066 <a@b.example>", "\ud800 <a@b.example>", "a\u200cb@c.example",
     "a@b\u200c.example", "a@b.example\n", "a@b@c.example", "a@xn--\u00fc.example"],
)  # fmt: skip
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidJob, match="'to'"):
        EmailJob(**GOOD | {"to": text})


@given(st.text())
def test_no_text_breaks_the_parser_and_no_address_holds_a_line_break(text: str) -> None:
    try:
        box = parse_address(text)
    except ValueError:
        return
    assert box.domain.isascii()
    assert not any(char in "\r\n\x00 <>," for char in box.address)
    assert "\n" not in box.name


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"to": []}, "'to': 0 addresses"),
        ({"cc": ["a@b.example"] * 51}, "'cc': 51 addresses"),
        ({"to": ["a@b.example", "x"]}, "'to': address 2"),
        ({"to": {"a": 1}}, "'to': one address, or a list"),
        ({"subject": "a\r\nBcc: x@y.example"}, "'subject': one line"),
        ({"subject": "a\u2028b"}, "'subject': one line"),
        ({"subject": ""}, "'subject'"),
        ({"from": "x"}, "from"),
        ({"replyTo": "a@b.example\nX: y"}, "replyTo"),
        ({"headers": {"X-A": "b\r\nBcc: x@y.example"}}, "'X-A' is not one line"),
        ({"headers": {"X-A\r\nBcc": "b"}}, "not a header's name"),
        (
            {"headers": {"bcc": "b@c.example", "Content-Type": "x", "message-id": "<x>"}},
            "'message-id' is set by rqjobs",
        ),
        ({"attachments": [{"source": "a", "name": "a\r\nb"}]}, "one line"),
        ({"attachments": [{"source": "a", "content_type": "text/plain\r\nX: y"}]}, "attachments.0"),
        ({"attachments": [{"source": "a", "content_id": "a>\r\nX: y"}]}, "attachments.0"),
        ({"attachments": [7]}, "a path, a URL"),
        ({"tags": ["a b"]}, "tags.0"),
    ],
)
def test_faults_are_named_at_the_call(fields: dict, fault: str) -> None:
    with pytest.raises(InvalidJob) as error:
        EmailJob(**GOOD | fields)
    assert fault in str(error.value)
