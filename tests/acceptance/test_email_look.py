"""The built-in mails in a real browser: nothing sticks out, wide or narrow; all can be read, by day and by night."""

from __future__ import annotations

from typing import Any

import pytest

from rqjobs.mail import render, template_names

LONG = "https://shop.example/" + "a" * 300
WORD = "Donau" * 16
DATA = {
    "name": WORD, "service_type": WORD, "helper_name": WORD, "booking_date": "2026-12-03", "price": 45,
    "start_time": "14:30:00", "end_time": "15:15:00", "location": WORD, "notes": "n " * 100, "url": LONG,
    "cancel_url": LONG, "rating_url": LONG, "file_name": f"contacts-{WORD}.csv", "rows": 12345,
    "expires_at": "2026-11-30T12:00:00Z", "steps": ["One", WORD], "product": WORD, "support_email": f"a@{WORD}.example",
    "button_label": WORD, "message": WORD, "brand": {"name": WORD, "color": "#0f766e", "address": WORD},
}  # fmt: skip
SHORT = {
    "name": "Ada", "service_type": "lesson", "helper_name": "Clara", "start_time": "2026-12-03T14:30:00Z", "rows": 1,
    "url": "https://x.example/", "cancel_url": "https://x.example/", "rating_url": "https://x.example/",
    "file_name": "a.csv", "steps": ["One"], "support_email": "a@x.example", "expires_in": "a day",
}  # fmt: skip
CONTRASTS = """() => {
  const rgb = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => { const [r, g, b] = rgb(color).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { const color = getComputedStyle(e).backgroundColor;
    return rgb(color)[3] === 0 ? behind(e.parentElement) : color; };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode()) { const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !e.offsetParent) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => x - y);
    found.push([texts.currentNode.data.trim(), (b + 0.05) / (a + 0.05)]); }
  return found; }"""

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [360, 900])
@pytest.mark.parametrize("inline", [True, False])
def test_no_part_of_a_mail_is_wider_than_the_screen(browser: Any, width: int, inline: bool) -> None:
    page = browser.new_page(viewport={"width": width, "height": 700})
    page.set_default_timeout(120_000)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("color", ["#0f766e", "#facc15", "#000"])
def test_all_can_be_read(browser: Any, scheme: str, color: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.set_default_timeout(120_000)
    for name in template_names():
        page.set_content(render(name, {**SHORT, "brand": {"name": "Shop", "color": color}}, subject=None).html or "")
        card = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
        assert (card == "rgb(255, 255, 255)") == (scheme == "light")
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 5
        for text, contrast in contrasts:
            assert contrast >= 4.5, (name, text)  # WCAG 2.2, 1.4.3
    page.close()
