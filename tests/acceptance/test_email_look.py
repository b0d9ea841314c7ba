"""The built-in mails in a real browser: nothing sticks out, wide or narrow, with inlined CSS or without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from rqjobs.mail import render, template_names

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
LONG = "https://shop.example/" + "a" * 300
DATA = {
    "name": "Ada", "service_type": "Piano lesson", "helper_name": "Clara", "booking_date": "2026-12-03", "price": 45,
    "start_time": "14:30:00", "end_time": "15:15:00", "location": "L" * 80, "notes": "n " * 100, "url": LONG,
    "cancel_url": LONG, "rating_url": LONG, "file_name": "contacts-" + "x" * 80 + ".csv", "rows": 12345,
    "expires_at": "2026-11-30T12:00:00Z", "steps": ["One", "Two"], "brand": {"name": "Shop", "color": "#0f766e"},
}  # fmt: skip

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [360, 900])
@pytest.mark.parametrize("inline", [True, False])
def test_nothing_sticks_out(browser: Any, width: int, inline: bool) -> None:
    page = browser.new_page(viewport={"width": width, "height": 700})
    for name in template_names():
        html = render(name, DATA, subject="A subject", inline=inline).html or ""
        page.set_content(html)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
        )
        button = page.locator(".button a").first.bounding_box()
        assert button["height"] >= 44, "a thumb needs as much"
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.button')).backgroundColor") == "rgb(15, 118, 110)"
        )
    page.close()
