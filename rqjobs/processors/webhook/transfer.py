"""One POST by libcurl, with guarded sockets, no redirects, a total deadline, and a limit for the response.

libcurl costs a quarter of urllib3's CPU time, its deadline is total (including the look-up of the name, TLS, and slow
headers), and it passes the address to a callback that opens the socket, where the guard decides.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import certifi
import pycurl

from rqjobs.errors import RQJobsError
from rqjobs.processors.webhook.request import Message
from rqjobs.security.ssrf import Guard, Target, TargetRefused

RESPONSE_LIMIT = 20_000
"""The most bytes of a response's body that are read; then the connection is closed."""
HEADER_LIMIT = 32_000
"""The most bytes of a response's headers; with more the delivery fails."""


class DeliveryFailed(RQJobsError):
    """An attempt without a 2xx response, which may be retried.

    Attributes:
        kind: ``dns``, ``connection``, ``tls``, ``timeout``, ``protocol`` or ``status``.
        connected: whether a connection was made (TLS included), so that the endpoint's answer is what failed.
    """

    def __init__(self, kind: str, message: str, *, connected: bool = True) -> None:
        self.kind = kind
        self.connected = connected
        super().__init__(message)


@dataclass(slots=True)
class Response:
    """A response, with at most :data:`RESPONSE_LIMIT` bytes of its body."""

    status: int = 0
    retry_after: str | None = None
    body: bytearray = field(default_factory=bytearray)
    truncated: bool = False

    def text(self, limit: int) -> str:
        """Returns the first ``limit`` characters of the body; bytes that are not UTF-8, and NUL, become U+FFFD."""
        return bytes(self.body).decode("utf-8", "replace").replace("\x00", "\ufffd")[:limit]


_KINDS = {
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_COULDNT_CONNECT: "connection",
    pycurl.E_SEND_ERROR: "connection",
    pycurl.E_RECV_ERROR: "connection",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
}


class _Handover(socket.socket):
    """A socket that libcurl duplicates when it receives it, after which ours is closed without a warning."""

    def __del__(self) -> None:
        self.close()


class Transfer:
    """A libcurl handle and the response that it collects; used for one request at a time, and then again."""

    def __init__(self, guard: Guard, ca_file: str | None = None) -> None:
        self.curl = curl = pycurl.Curl()
        self._guard = guard
        self._host = ""
        self._refused: TargetRefused | None = None
        self._header_bytes = 0
        self.response = Response()
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PROXY, "")  # also ignores http_proxy of the environment
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.TCP_NODELAY, 1)
        curl.setopt(pycurl.CAINFO, ca_file or certifi.where())
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open)
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.WRITEFUNCTION, self._write)

    def prepare(self, target: Target, message: Message, deadline: float, hosts: list[str]) -> None:
        """Prepares the handle for one POST that ends within ``deadline`` seconds.

        ``hosts`` are new entries (``name:port:address,address``) for libcurl's table of names, which all handles share.
        """
        self.response = Response()
        self._host, self._refused, self._header_bytes = target.host, None, 0
        curl = self.curl
        curl.setopt(pycurl.URL, target.url)
        # "Expect:" and "accept-encoding:" without a value remove headers that curl adds.
        curl.setopt(pycurl.HTTPHEADER, [*message.headers, "Expect:"])
        curl.setopt(pycurl.POSTFIELDSIZE, len(message.body))
        curl.setopt(pycurl.POSTFIELDS, message.body)
        if hosts:
            curl.setopt(pycurl.RESOLVE, hosts)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(deadline * 1000)))

    def finish(self, code: int, error: str) -> Response:
        """Returns the response after the transfer has ended with libcurl's ``code`` (0 for success).

        Raises:
            TargetRefused: the guard refused an address.
            DeliveryFailed: the transfer failed; ``kind`` is the reason.
        """
        response = self.response
        response.status = self.curl.getinfo(pycurl.RESPONSE_CODE)
        if code == pycurl.E_OK or (code == pycurl.E_WRITE_ERROR and response.truncated):
            return response
        if self._refused is not None:
            raise self._refused
        if self._header_bytes > HEADER_LIMIT:
            raise DeliveryFailed("protocol", f"the response has more than {HEADER_LIMIT:,} bytes of headers")
        connected = self.curl.getinfo(pycurl.REQUEST_SIZE) > 0  # a request was written
        raise DeliveryFailed(_KINDS.get(code, "protocol"), error or f"libcurl's error {code}", connected=connected)

    def _open(self, _purpose: int, address: tuple[int, int, int, tuple[object, ...]]) -> socket.socket | int:
        family, kind, protocol, sockaddr = address
        host = sockaddr[0]
        text = host.decode() if isinstance(host, bytes) else str(host)
        try:
            self._guard.check_address(self._host, text, int(str(sockaddr[1])))
        except TargetRefused as refused:
            self._refused = refused
            return int(pycurl.SOCKET_BAD)
        return _Handover(family, kind, protocol)

    def _header(self, line: bytes) -> int | None:
        self._header_bytes += len(line)
        if self._header_bytes > HEADER_LIMIT:
            return -1
        if line[:12].lower() == b"retry-after:":
            self.response.retry_after = line[12:].decode("latin-1").strip()
        return None

    def _write(self, data: bytes) -> int | None:
        body = self.response.body
        room = RESPONSE_LIMIT - len(body)
        body += data[:room]
        if len(data) > room:
            self.response.truncated = True
            return -1
        return None
