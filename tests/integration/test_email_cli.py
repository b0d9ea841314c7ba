"""``rqjobs email``."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rqjobs import enqueue_email, enqueue_many
from rqjobs.attempt import Attempt
from rqjobs.cli import main
from rqjobs.config.settings import use_settings
from rqjobs.errors import InvalidJob
from rqjobs.jobs import EmailJob
from rqjobs.processors.email import send


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["email", *args])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_preview_writes_html_and_text(capsys, tmp_path: Path) -> None:
    code, out, _ = run(
        capsys, "preview", "welcome", "--data", '{"name": "Ada"}', "--out", str(tmp_path / "p"), "--json"
    )
    document = json.loads(out)
    assert (code, document["subject"]) == (0, "Welcome to rqjobs")
    assert "Hi Ada," in Path(document["html"]).read_text()
    assert "Hi Ada," in Path(document["text"]).read_text()
    (tmp_path / "data.json").write_text('{"url": "https://x.example/r"}')
    code, out, _ = run(capsys, "preview", "password-reset", "--data", f"@{tmp_path}/data.json", "--subject", "Reset")
    assert (code, out.splitlines()[0]) == (0, "subject: Reset")
    assert (tmp_path / "data" / "mail" / "preview" / "password-reset.html").is_file()


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("preview", "nothing"), "there is no nothing.html.j2"),
        (("preview", "../x"), "is not a name"),
        (("preview", "a" * 250), "there is no a"),
        (("preview", "password-reset"), "'url' is undefined"),
        (("preview", "welcome", "--data", "[1]"), "a JSON object"),
        (("preview", "welcome", "--data", "{"), "not JSON"),
        (("preview", "welcome", "--out", "/proc/nowhere"), "--out"),
        (("suppressions", "lift", "nobody"), "not an address"),
    ],
)
def test_mistakes_are_reported_in_one_line(capsys, args: tuple[str, ...], fault: str) -> None:
    code, out, err = run(capsys, *args)
    assert (code, out) == (2, "")
    assert fault in err
    assert err.count("\n") == 1


def test_templates_of_both_places(capsys, tmp_path: Path) -> None:
    (tmp_path / "templates" / "email").mkdir(parents=True)
    (tmp_path / "templates" / "email" / "news.txt.j2").write_text("x")
    _, out, _ = run(capsys, "templates", "--json")
    found = {row["name"]: row["where"] for row in json.loads(out)}
    assert (found["welcome"], found["news"]) == ("built-in", "templates/email")


def test_the_suppression_list(capsys) -> None:
    assert run(capsys, "suppressions", "list")[1] == "no suppressed addresses\n"
    run(capsys, "suppressions", "add", "Ada <Ada@x.example>", "ada@x.example", "bob@x.example", "--reason", "complaint")
    rows = json.loads(run(capsys, "suppressions", "list", "--json")[1])
    assert {row["address"]: row["reason"] for row in rows} == {
        "ada@x.example": "complaint",
        "bob@x.example": "complaint",
    }
    assert "complaint" in run(capsys, "suppressions", "list")[1]
    code, out, _ = run(capsys, "suppressions", "lift", "ADA@x.example", "--json")
    assert (code, json.loads(out)) == (0, {"lifted": ["ADA@x.example"]})
    assert run(capsys, "suppressions", "lift", "ada@x.example")[0] == 1


def test_a_mail_that_cannot_be_made_never_reaches_redis(redis) -> None:
    good = EmailJob(to="a@b.example", subject="s", template="welcome", data={})
    for template, fault in (
        ("nothing", "there is no nothing"),
        ("a" * 250, "there is no a"),
        ("password-reset", "'url' is undefined"),
    ):
        bad = EmailJob(to="a@b.example", subject="s", template=template, data={})
        with pytest.raises(InvalidJob, match=fault):
            enqueue_email(bad)
        with pytest.raises(InvalidJob, match=fault):
            enqueue_many([good, bad])
    assert redis.keys("rq:*") == []
    enqueue_email(good)
    assert redis.llen("rq:queue:email") == 1


def test_the_sandbox_prints_the_settings_and_shows_the_mails(redis, monkeypatch) -> None:
    command = [sys.executable, "-u", "-m", "rqjobs", "sandbox", "mail", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as end:
        end.callback(process.terminate)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        for line in lines:
            if "export " in line:
                for name, value in re.findall(r"(\w+)=(\S+)", line):
                    monkeypatch.setenv(name, value)
                use_settings(None)
                job = EmailJob(to=["a@x.example", "b@x.example"], subject="Hello", template="welcome", data={})
                result = send(job, Attempt(job_id=line.split("=")[1].split()[0], queue="email"))
                path = {"resend": "/emails", "sendgrid": "/v3/mail/send"}[result["backend"]]
                assert process.stdout.readline() == f"{path} to a@x.example, b@x.example: Hello\n"
    assert sum("export " in line for line in lines) == 2
