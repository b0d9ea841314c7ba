"""The SSRF guard against a corpus of hostile targets, each with the rule that must refuse it."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.security.ip_ranges import DENIED, denied_by
from rqjobs.security.ssrf import Guard, TargetRefused, UnknownHost

HOSTILE = {
    # cloud metadata
    "http://169.254.169.254/latest/meta-data/": "cloud metadata",
    "http://169.254.170.2/v2/credentials": "cloud metadata",
    "http://100.100.100.200/": "cloud metadata",
    "http://192.0.0.192/": "cloud metadata",
    "http://168.63.129.16/": "cloud metadata",
    "http://[fd00:ec2::254]/": "cloud metadata",
    "http://[::ffff:169.254.169.254]/": "cloud metadata",
    # every range
    "http://0.0.0.0/": "unspecified",
    "http://0.1.2.3/": "unspecified",
    "http://[::]/": "unspecified",
    "http://127.0.0.1/": "loopback",
    "http://127.255.255.254/": "loopback",
    "http://[::1]/": "loopback",
    "http://10.0.0.1/": "private",
    "http://10.255.255.255/": "private",
    "http://172.16.0.1/": "private",
    "http://172.31.255.255/": "private",
    "http://192.168.0.1/": "private",
    "http://[fc00::1]/": "private",
    "http://[fdff:ffff::1]/": "private",
    "http://169.254.0.1/": "link-local",
    "http://[fe80::1]/": "link-local",
    "http://[febf::1]/": "link-local",
    "http://100.64.0.1/": "carrier-grade NAT",
    "http://100.127.255.255/": "carrier-grade NAT",
    "http://192.0.0.8/": "protocol assignments",
    "http://192.0.2.1/": "documentation",
    "http://198.51.100.7/": "documentation",
    "http://203.0.113.9/": "documentation",
    "http://[2001:db8::1]/": "documentation",
    "http://[3fff::1]/": "documentation",
    "http://192.88.99.1/": "6to4",
    "http://[2002:7f00:1::]/": "6to4",
    "http://198.18.0.1/": "benchmarking",
    "http://198.19.255.255/": "benchmarking",
    "http://[2001:2::1]/": "benchmarking",
    "http://224.0.0.1/": "multicast",
    "http://239.255.255.250/": "multicast",
    "http://[ff02::1]/": "multicast",
    "http://240.0.0.1/": "reserved",
    "http://255.255.255.255/": "reserved",
    "http://[fec0::1]/": "site-local",
    "http://[64:ff9b::a00:1]/": "NAT64",
    "http://[64:ff9b:1::7f00:1]/": "NAT64",
    "http://[::127.0.0.1]/": "IPv4-compatible",
    "http://[::ffff:0:127.0.0.1]/": "IPv4-translated",
    "http://[2001::1]/": "Teredo",
    "http://[2001:20::1]/": "ORCHID",
    "http://[5f00::1]/": "segment routing",
    "http://[100::1]/": "discard",
    "http://[4000::1]/": "not global",
    # odd spellings of the same
    "http://2130706433/": "loopback",
    "http://0x7f000001/": "loopback",
    "http://0x7f.1/": "loopback",
    "http://127.1/": "loopback",
    "http://0177.0.0.1/": "loopback",
    "http://017700000001/": "loopback",
    "http://0/": "unspecified",
    "http://10.1/": "private",
    "http://0xa9.254.43518/": "cloud metadata",
    "http://127.0.0.1./": "loopback",
    "http://\uff11\uff12\uff17.0.0.1/": "loopback",
    "http://127\u30020\u30020\u30021/": "loopback",
    "http://\u2460\u2461\u2466.0.0.1/": "loopback",
    "http://localhost/": "loopback",
    "http://LOCALHOST/": "loopback",
    "http://[::ffff:127.0.0.1]/": "loopback",
    "http://[::ffff:7f00:1]/": "loopback",
    "http://[0:0:0:0:0:ffff:10.0.0.1]/": "private",
    # the URL itself
    "http://user@example.com/": "userinfo",
    "http://example.com:80@127.0.0.1/": "userinfo",
    "http://example.com%40@127.0.0.1/": "userinfo",
    "http://@127.0.0.1/": "userinfo",
    "http://127.0.0.1\\@example.com/": "url",
    "http://example.com\r\nHost: evil/": "url",
    "http://exa mple.com/": "url",
    "http://[fe80::1%25eth0]/": "host",
    "http://[::1/": "url",
    "http://%31%32%37.0.0.1/": "host",
    "http:///hook": "host",
    "http://example.com:99999/": "url",
    "file:///etc/passwd": "scheme",
    "gopher://127.0.0.1:6379/_FLUSHALL": "scheme",
    "ftp://example.com/": "scheme",
    "dict://127.0.0.1:11211/stats": "scheme",
    "javascript:alert(1)": "scheme",
    "//127.0.0.1/": "scheme",
    "http://8.8.8.8:22/": "port",
    "http://8.8.8.8:25/": "port",
    "http://8.8.8.8:6379/": "port",
    "https://8.8.8.8:5432/": "port",
    "https://8.8.8.8:0/": "port",
}  # fmt: skip


def judge(guard: Guard, url: str) -> None:
    target = guard.check_url(url)
    guard.resolve(target.host, target.port)


@pytest.mark.parametrize(("url", "rule"), HOSTILE.items(), ids=[ascii(url) for url in HOSTILE])
def test_a_hostile_target_is_refused_by_its_rule(url: str, rule: str) -> None:
    guard = Guard()
    with pytest.raises(TargetRefused) as refused:
        judge(guard, url)
    assert refused.value.rule == rule
    assert f"'{rule}'" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["https://8.8.8.8/", "http://1.1.1.1:8080/x?y=1", "https://93.184.215.14:8443/", "https://[2606:4700::1111]/",
     "https://[2a00:1450:4001:82a::200e]:443/hook", "http://172.15.255.255/", "http://172.32.0.1/", "http://11.0.0.1/",
     "http://100.63.255.255/", "http://192.0.1.1/", "http://223.255.255.255/", "http://[::ffff:8.8.8.8]/"],
)  # fmt: skip
def test_a_public_target_passes(url: str) -> None:
    guard = Guard()
    target = guard.check_url(url)
    assert guard.resolve(target.host, target.port)


@pytest.mark.parametrize("rule", DENIED)
def test_the_edges_of_every_range_are_refused(rule: str) -> None:
    for text in DENIED[rule]:
        network = ipaddress.ip_network(text)
        assert denied_by(network[0]) is not None
        assert denied_by(network[-1]) is not None


@given(st.ip_addresses())
def test_addresses_that_python_calls_private_are_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if denied_by(address) is None:
        assert address.is_global


def answers(monkeypatch: pytest.MonkeyPatch, *replies: list[str]) -> None:
    """The name server's replies, one after the other, the last one for ever."""
    left = list(replies)

    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[object, ...]]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_one_refused_address_among_public_ones_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(TargetRefused, match="private"):
        Guard().resolve("example.com", 443)


def test_a_name_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    with pytest.raises(UnknownHost, match=r"example\.invalid"):
        Guard().resolve("example.invalid", 443)


def test_exempt_hosts_and_networks_pass_at_any_port() -> None:
    for allow in (["127.0.0.1"], ["127.0.0.0/8"], ["localhost"], ["::1", "127.0.0.1"], ["127.0.0.1:8000"]):
        guard = Guard.build(allow)
        target = guard.check_url("http://127.0.0.1:9999/")
        assert guard.resolve(target.host, target.port)
    with pytest.raises(TargetRefused, match="private"):
        Guard.build(["localhost"]).resolve("10.0.0.1", 80)
    with pytest.raises(TargetRefused, match="port"):
        Guard.build(["127.0.0.1"]).resolve("8.8.8.8", 22)


def test_only_the_exempt_addresses_of_a_name_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ["10.0.0.1", "127.0.0.1"])
    assert [address for _, address in Guard.build(["127.0.0.1"]).resolve("both.test", 80)] == ["127.0.0.1"]


def test_the_url_is_composed_of_the_parts_that_were_checked() -> None:
    target = Guard().check_url("HTTPS://EXAMPLE.com:443/a b\u00fc?q=\u00fc#frag".replace(" ", "%20"))
    assert target.url == "https://example.com/a%20b%C3%BC?q=%C3%BC"
    assert target.origin == "https://example.com:443"
    assert Guard().check_url("http://b\u00fccher.example/").host == "xn--bcher-kva.example"


def test_an_international_name_is_encoded_as_in_browsers() -> None:
    assert Guard().check_url("https://faß.de/").host == "xn--fa-hia.de"  # and not fass.de, which is another's
    with pytest.raises(TargetRefused, match="DNS"):
        Guard().check_url("https://ö..de/")
