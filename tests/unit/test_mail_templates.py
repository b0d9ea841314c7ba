"""Templates: found, strict, sandboxed, escaped; the text part made from HTML; the check at enqueue."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rqjobs.config.settings import use_settings
from rqjobs.jobs import EmailJob
from rqjobs.mail import TemplateFault, check, render, template_names
from rqjobs.mail.filters import format_date, format_money, format_time, ink, safe_color, safe_link
from rqjobs.mail.templates import BUILTIN, inline_css
from rqjobs.mail.text import text_of

BUILTINS = {"booking-confirmation", "export-ready", "follow-up", "password-reset", "welcome"}
NEEDED = {
    "export-ready": {"file_name": "a.csv", "url": "https://x.example/a"},
    "password-reset": {"url": "https://x.example/r"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The app's templates, where the default setting looks."""
    path = tmp_path / "templates" / "email"
    path.mkdir(parents=True)
    return path


def job(template: str, data: dict | None = None, subject: str | None = "s") -> EmailJob:
    return EmailJob(to="ada@example.com", subject=subject, template=template, data=data or {})


def test_the_built_in_templates_require_only_necessary_variables() -> None:
    assert set(template_names()) == BUILTINS
    for name in BUILTINS:
        content = render(name, NEEDED.get(name, {}), subject=None)
        assert content.subject
        assert content.html is not None
        assert "<h1" in content.html
        assert content.text.strip()
        assert "{" not in content.text


def test_a_booking_on_a_day_stays_on_that_day() -> None:
    data = {"booking_date": "2026-12-03T00:00:00.000Z", "start_time": "14:30", "timezone": "America/New_York"}
    text = render("booking-confirmation", data, subject="s").text
    assert "Date: Thursday, 3 December 2026\nTime: 14:30 (America/New_York)" in text
    data = {"start_time": "2026-12-03T02:00:00Z", "end_time": "2026-12-03T03:00:00Z", "timezone": "America/New_York"}
    text = render("booking-confirmation", data, subject="s").text
    assert "Date: Wednesday, 2 December 2026\nTime: 21:00 \u2013 22:00 (America/New_York)" in text


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (
            {"start_time": "2026-03-05T23:00:00.000Z", "booking_date": "2026-03-05T23:00:00.000Z"},
            ("Friday, 6 March", "00:00"),
        ),
        ({"start_time": "2026-03-06T00:00:00Z"}, ("Friday, 6 March", "01:00")),
        ({"start_time": 1772751600}, ("Friday, 6 March", "00:00")),
        ({"start_time": "2026-03-05 14:30:00+00:00"}, ("Thursday, 5 March", "15:30")),
        ({"booking_date": "2026-03-05T23:00:00Z", "start_time": "14:30"}, ("Friday, 6 March", "14:30")),
        ({"booking_date": 1772751600}, ("Friday, 6 March", None)),
    ],
)
def test_the_day_of_a_booking_is_that_of_its_zone(data: dict, shown: tuple[str, str | None]) -> None:
    day, time = shown
    data |= {"timezone": "Europe/Berlin"}
    text = render("booking-confirmation", data, subject="s").text
    assert f"Date: {day} 2026\n" + (f"Time: {time} (Europe/Berlin)\n" if time else "") in text
    if "booking_date" in data:
        assert f"Thank you for coming on {day} 2026." in render("follow-up", data, subject="s").text


def test_a_follow_up_of_a_day_stays_on_that_day() -> None:
    data = {"booking_date": "2026-12-03T00:00:00.000Z", "timezone": "America/New_York"}
    assert "Thank you for coming on Thursday, 3 December 2026." in render("follow-up", data, subject="s").text


@pytest.mark.parametrize(
    ("rows", "shown"),
    [(12000, "12,000"), ("12000", "12,000"), ("12,000", "12,000"), ("many", "many"), (0, "0"), (None, None)],
)
def test_the_rows_of_an_export(rows: object, shown: str | None) -> None:
    text = render("export-ready", NEEDED["export-ready"] | {"rows": rows}, subject="s").text
    assert f"Rows: {shown}\n" in text if shown else "Rows" not in text


@pytest.mark.parametrize("name", NEEDED)
def test_missing_variables_of_a_built_in_template_are_named(name: str) -> None:
    (fault,) = check(job(name))
    assert "is undefined" in fault
    assert check(job(name, NEEDED[name])) == []


def test_the_apps_template_comes_first_and_is_never_mixed_with_ours(folder: Path) -> None:
    (folder / "welcome.txt.j2").write_text("Hello {{ name }} <3\n")
    content = render("welcome", {"name": "A&B"}, subject="s")
    assert (content.html, content.text) == (None, "Hello A&B <3")
    assert template_names()["welcome"] == str(Path("templates/email"))


def test_html_is_escaped_and_text_is_not(folder: Path) -> None:
    (folder / "a.html.j2").write_text("<p>{{ x }}</p>")
    (folder / "a.txt.j2").write_text("{{ x }}")
    content = render("a", {"x": "<b>&"}, subject="s")
    assert content.html == "<p>&lt;b&gt;&amp;</p>"
    assert content.text == "<b>&"


def test_an_app_may_use_our_layout_and_parts(folder: Path) -> None:
    (folder / "invoice.html.j2").write_text(
        '{% extends "_layout.html.j2" %}{% from "_parts.html.j2" import button, facts %}'
        "{% block subject %}Invoice {{ number }} of {{ brand.name }}{% endblock %}"
        '{% block content %}{{ facts([("Sum", sum|money("USD"))]) }}{{ button(url, "Pay") }}{% endblock %}'
    )
    data = {
        "number": 7,
        "sum": "12.5",
        "url": "https://pay.example/7",
        "brand": {"name": "Tom & Jerry", "color": "#f00"},
    }
    content = render("invoice", data, subject=None)
    assert content.subject == "Invoice 7 of Tom & Jerry"
    assert "Sum: $12.50" in content.text
    assert "Pay: https://pay.example/7" in content.text


def test_an_app_may_have_a_layout_of_its_own(folder: Path) -> None:
    (folder / "_layout.html.j2").write_text("<main>{% block content %}{% endblock %}</main>")
    (folder / "welcome.txt.j2").write_text("first")
    assert render("welcome", {}, subject="s").text == "first"
    (folder / "welcome.txt.j2").unlink()
    assert "<main>" in (render("welcome", {}, subject="s").html or ""), "files may come and go while a worker runs"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{{ user.name }}", "'user' is undefined"),
        ("{{ known.name }}", "no attribute 'name'"),
        ("{% for x in %}", "line 1"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ('{% extends "_nothing.html.j2" %}', "_nothing.html.j2, which is missing"),
        ('{{ "".__class__.__mro__ }}', "unsafe"),
        ("{{ known.__init__.__globals__ }}", "unsafe"),
        ("{{ '{0.__class__}'.format(1) }}", "unsafe"),
        ("{% set _ = known.update({'a': 1}) %}", "unsafe"),
        ('{{ "javascript:alert(1)"|link }}', "not a link"),
        ('{{ "yesterday"|date }}', "ISO 8601"),
        ('{% include "a.html.j2" %}', "RecursionError"),
    ],
)
def test_a_broken_template_is_known_at_enqueue(folder: Path, source: str, fault: str) -> None:
    (folder / "a.html.j2").write_text(source)
    (found,) = check(job("a", {"known": {}}))
    assert fault in found


@pytest.mark.parametrize(
    "name", ["nothing", "../secrets", "/etc/passwd", "a/../../b", "_layout", "welcome.html.j2", "", "a" * 250]
)
def test_an_invalid_template_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(TemplateFault, match="'template'"):
        render(name, {}, subject="s")


def test_a_missing_subject_is_known_at_enqueue(folder: Path) -> None:
    (folder / "a.txt.j2").write_text("hello")
    (folder / "b.txt.j2").write_text("{% block subject %}Hi\n{{ name }}{% endblock %}")
    assert "no block 'subject'" in check(job("a", subject=None))[0]
    assert render("b", {"name": "\r\nBcc: x@y.example"}, subject=None).subject == "Hi Bcc: x@y.example"
    for name in ("\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "\U0001f469\u200d\U0001f467"):
        assert render("b", {"name": name}, subject=None).subject == f"Hi {name}"
    for name in ("\u202egpj", "\x07"):
        assert check(job("b", {"name": name}, subject=None))


def test_templates_on_another_machine_are_not_checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(job("newsletter"))
    monkeypatch.setenv("EMAIL_TEMPLATES", "/nowhere/at/all")
    use_settings(None)
    assert check(job("newsletter")) == []
    assert check(job("password-reset")), "ours are on every machine"


def test_the_text_part() -> None:
    html = (
        "<html><head><title>t</title><style>p{}</style></head><body><div style='display: none'>hidden<br>too</div>"
        "<h1>Hello\n  <b>you</b></h1><p>First&nbsp;line<br>second &lt;line&gt;</p><ul><li>one<li>two</li></ul>"
        "<table><tr><th>Sum</th><td>12</td></tr><tr><td>a</td><td>b</td></tr></table>"
        "<a href='https://x.example/a'>Open</a> <a href='https://x.example/b'>https://x.example/b</a>"
        "<a href='mailto:a@b.example'>mail</a><img src=x alt='A map'><script>x()</script></body></html>"
    )
    assert text_of(html) == (
        "Hello you\n\nFirst line\nsecond <line>\n\n- one\n- two\n\nSum: 12\na   b\n\n"
        "Open: https://x.example/a https://x.example/bmailA map\n"
    )
    assert (
        text_of("<p>\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645</p>")
        == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\n"
    )
    assert text_of("<p>a" + "&zwnj;&nbsp;" * 40 + "</p><p>b" + "&zwnj; " * 9 + "</p>") == "a\n\nb\n"
    html = "<p data-html-only>If the button<br>fails</p><tr><td><a href='https://x.example/1'>1</a></td><td>2</td></tr>"
    assert text_of(html) == "1: https://x.example/1\n2\n"


def test_a_long_table_after_a_link_takes_no_longer() -> None:
    rows = "<tr><th>1</th><td>x</td></tr>" * 20_000
    start = time.process_time()
    text = text_of(f"<a href='https://x.example/'>b</a><table>{rows}</table>")
    assert time.process_time() - start < 5
    assert text == "b: https://x.example/\n\n" + "1: x\n" * 20_000


def test_line_breaks_of_the_data_are_kept() -> None:
    message = "Dear <Ada>,\r\n\r\none\r\ntwo"
    content = render("follow-up", {"message": message}, subject=None)
    assert "Dear <Ada>,\n\none\ntwo\n" in content.text
    assert "Notes: a\nb" in render("booking-confirmation", {"notes": "a\nb"}, subject=None).text


def test_filters() -> None:
    assert format_date("2026-03-03") == "Tuesday, 3 March 2026"
    assert format_date("2026-03-03T23:30:00Z", "%d.%m.%Y", tz="Europe/Berlin") == "04.03.2026"
    assert format_date(0) == "Thursday, 1 January 1970"
    assert format_time("2026-03-03T14:30:00+00:00", tz="America/New_York") == "09:30"
    assert format_time("14:30:00") == "14:30"
    assert format_time("2026-03-03T14:30:00") == "14:30"
    assert format_money("1234.5") == "\u20ac1,234.50"
    assert format_money(-3, "JPY") == "-\u00a53"
    assert format_money(0.1, "CHF") == "0.10 CHF"
    assert [ink(color) for color in ("#000", "#2563eb", "#facc15", "#fff", "#ffff", "#ffffff80", "teal")] == [
        "#ffffff", "#ffffff", "#111827", "#111827", "#111827", "#111827", "#ffffff"]  # fmt: skip
    for broken in (lambda: format_date("3/3"), lambda: format_date(None), lambda: format_date("2026-03-03", tz="Mars"),
                   lambda: format_money("x"), lambda: format_money("NaN"), lambda: format_money(1, "euro"),
                   lambda: safe_link("data:text/html,x"), lambda: safe_color("red;background:url(x)"),
                   lambda: safe_color("#12345"),
                   lambda: format_time("25:99"), lambda: format_time("2026"),
                   lambda: format_time("14:30:00Z")):  # fmt: skip
        with pytest.raises(ValueError):
            broken()


def test_css_is_inlined_and_nothing_is_loaded(tmp_path: Path) -> None:
    pytest.importorskip("css_inline")
    (tmp_path / "x.css").write_text("p { color: red }")
    html = (
        f'<html><head><link rel="stylesheet" href="file://{tmp_path}/x.css">'
        "<style>p { margin: 0 } @media (width) { p { margin: 1px } }</style></head><body><p>a</p></body></html>"
    )
    inlined = inline_css(html)
    assert '<p style="margin: 0;">' in inlined
    assert "@media" in inlined
    assert "red" not in inlined


def test_every_built_in_file_is_a_template_or_a_part() -> None:
    names = {path.name for path in BUILTIN.iterdir()}
    assert names == {f"{name}.html.j2" for name in BUILTINS} | {"_layout.html.j2", "_parts.html.j2"}
