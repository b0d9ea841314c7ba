"""Webhook targets that no delivery may reach: every denied range in every spelling, counted."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from rqjobs.security.ip_ranges import DENIED
from rqjobs.security.ssrf import Guard, TargetRefused

WIDE = str.maketrans("0123456789.", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19\u3002")


def spellings(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[str]:
    """The hosts of URLs that mean ``address``."""
    if isinstance(address, ipaddress.IPv6Address):
        yield from (f"[{address}]", f"[{address.exploded}]", f"[{address.exploded.upper()}]")
        return
    number, parts = int(address), str(address).split(".")
    yield from (str(address), f"{address}.", str(number), hex(number), f"0{number:o}", str(address).translate(WIDE))
    yield ".".join(f"0x{int(part):x}" for part in parts)
    yield ".".join(f"0{int(part):o}" for part in parts)
    yield f"{parts[0]}.{number & 0xFFFFFF}"
    yield from (f"[::ffff:{address}]", f"[::{address}]", f"[64:ff9b::{address}]", f"[::ffff:0:{address}]")
    yield f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::]"


def targets() -> set[str]:
    """URLs of the first, a middle and the last address of each denied range."""
    found = set()
    for text in [each for ranges in DENIED.values() for each in ranges]:
        network = ipaddress.ip_network(text)
        for number in {0, network.num_addresses // 2, network.num_addresses - 1}:
            for host in spellings(network[number]):
                found |= {f"http://{host}/", f"https://{host}:8443/x?y=1"}
    return found


def test_no_denied_address_is_reached_in_any_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    guard, passed, tried = Guard(), [], targets()
    for url in sorted(tried):
        try:
            target = guard.check_url(url)
            guard.resolve(target.host, target.port)
        except TargetRefused:
            continue
        except OSError:  # no resolver reads it: nothing is connected to
            continue
        passed.append(url)
    assert passed == []
    assert len(tried) >= 300
    with capsys.disabled():
        print(f"\nhostile webhook targets: {len(tried)} refused, 0 open")
