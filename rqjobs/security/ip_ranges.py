"""All ranges of addresses that are not the public internet, by the name of the rule.

``ipaddress.is_global`` alone allows multicast, 6to4, NAT64, cloud metadata and more, so the ranges are listed;
``is_global`` covers those that IANA adds later.
Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890), RFC 4193, 4291, 6052, 9602, 9637;
the metadata addresses of AWS, GCP, Azure, Alibaba, Oracle.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DENIED: dict[str, tuple[str, ...]] = {
    "cloud metadata": (
        "169.254.169.254/32",
        "169.254.170.2/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "168.63.129.16/32",
        "fd00:ec2::254/128",
    ),
    "unspecified": ("0.0.0.0/8", "::/128"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "carrier-grade NAT": ("100.64.0.0/10",),
    "protocol assignments": ("192.0.0.0/24",),
    "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    "6to4": ("192.88.99.0/24", "2002::/16"),
    "benchmarking": ("198.18.0.0/15", "2001:2::/48"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "reserved": ("240.0.0.0/4",),
    "site-local": ("fec0::/10",),
    "NAT64": ("64:ff9b::/96", "64:ff9b:1::/48"),
    "IPv4-compatible": ("::/96",),
    "IPv4-translated": ("::ffff:0:0:0/96",),
    "Teredo": ("2001::/32",),
    "ORCHID": ("2001:10::/28", "2001:20::/28"),
    "segment routing": ("5f00::/16",),
    "discard": ("100::/64",),
}
"""The rules in the order in which they are applied: the most specific name first."""

_NETWORKS = [(rule, ipaddress.ip_network(text)) for rule, texts in DENIED.items() for text in texts]


@lru_cache(maxsize=4096)
def denied_by(address: Address) -> str | None:
    """Returns the rule that denies ``address`` (an IPv4-mapped one must be unwrapped); None for a public one."""
    for rule, network in _NETWORKS:
        if address.version == network.version and address in network:
            return rule
    if not address.is_global or address.is_multicast or address.is_reserved:
        return "not global"
    return None
