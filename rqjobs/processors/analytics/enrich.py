"""Reduces a user agent and an address to what is stored: a device, a truncated network, and a daily visitor key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import socket
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from rqjobs.config.secret_key import secret_key

_V4_MAPPED = bytes(10) + b"\xff\xff"
_LONGEST_AGENT = 512  # real ones have 100 to 300 characters

# Programs that ua-parser does not report as spiders. They match at word starts only: "Cubot" is a phone, not a bot.
_PROGRAMS = re.compile(
    r"\b(curl|wget|python|aiohttp|httpx|go-http-client|okhttp|java/|apache-httpclient|node-fetch|node\b|axios|undici|"
    r"got \(|libwww|ruby|guzzle|postman|insomnia|headlesschrome|phantomjs|puppeteer|playwright|selenium|"
    r"skypeuripreview|preview|bot\b|crawler|spider|monitor|uptime|pingdom|lighthouse|scrapy|facebookexternalhit)",
    re.IGNORECASE,
)
_DESKTOPS = ("Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS", "FreeBSD", "OpenBSD")


class Client(NamedTuple):
    """The device, system and browser of a user agent."""

    bot: bool
    device: str
    os: str | None
    browser: str | None


UNKNOWN = Client(False, "unknown", None, None)
"""The client of an event without a user agent, such as a validation that a server reports."""


@lru_cache(maxsize=16_384)
def classify(agent: str) -> Client:
    """Returns the client of a user agent; an empty one is classified as a bot.

    Rules over ua-parser's families: iPad, Kindle and ``..._Tablet`` are tablets, as is an Android browser without
    ``Mobile`` in its agent (https://developer.chrome.com/docs/multidevice/user-agent); other iOS and Android is mobile.
    """
    from ua_parser import parse

    agent = agent[:_LONGEST_AGENT]
    found = parse(agent)
    browser = found.user_agent.family if found.user_agent else None
    system = found.os.family if found.os else None
    family = found.device.family if found.device else ""
    if family == "Spider" or not agent.strip() or _PROGRAMS.search(agent):
        return Client(True, "bot", _short(system), _short(browser))
    return Client(False, _device(agent, family, system or ""), _short(system), _short(browser))


def _device(agent: str, family: str, system: str) -> str:
    if family in ("iPad", "Kindle") or "Tablet" in family or "Tablet" in agent:
        return "tablet"
    if system == "Android" and agent.startswith("Mozilla/") and "Mobile" not in agent:
        return "tablet"
    if system in ("iOS", "Android", "Windows Phone", "KaiOS", "HarmonyOS"):
        return "mobile"
    return "desktop" if system.startswith(_DESKTOPS) else "other"


def _short(text: str | None) -> str | None:
    return clean(text, 64) or None if text else None


def clean(text: str, length: int) -> str:
    """Returns ``text`` on one line, without control characters, cut to ``length`` characters."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return text.strip()[:length]


def read_ip(text: str) -> tuple[str, str | None]:
    """Returns the address in canonical spelling, and its network.

    The network is IPv4 without the last 8 bits, IPv6 without the last 80. Of an X-Forwarded-For list the first address
    is read; a port is dropped. A text that is not an address is returned unchanged, without a network.
    """
    host = text.partition(",")[0].strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        if ":" not in host:
            a, b, c, _ = packed = socket.inet_pton(socket.AF_INET, host)
            return host, f"{a}.{b}.{c}.0"
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return text, None
    if packed.startswith(_V4_MAPPED):
        return read_ip(socket.inet_ntop(socket.AF_INET, packed[12:]))
    return socket.inet_ntop(socket.AF_INET6, packed), socket.inet_ntop(socket.AF_INET6, packed[:6] + bytes(10))


def visitor_secret() -> bytes:
    """Returns the key of visitor keys, derived from the installation's secret and used for nothing else."""
    return hashlib.sha256(b"rqjobs.analytics.visitor\0" + secret_key().encode()).digest()


def visitor_key(secret: bytes, day: date, tenant: str, ip: str, agent: str) -> str | None:
    """Returns the key of the visitor with this address and user agent, for one tenant's codes and one UTC day.

    HMAC-SHA256 cut to 96 bits: without the secret no address can be tested against a key, and without the addresses
    no person can be followed from one day to the next. None if neither address nor agent is known.
    """
    if not ip and not agent:
        return None
    content = f"{day.toordinal()}\0{tenant}\0{ip}\0{agent}"
    return base64.urlsafe_b64encode(hmac.digest(secret, content.encode(), "sha256")[:12]).decode()
