"""URLs of files in stores and on web servers, and whether one contains another. Cheap to import, for the settings."""

from __future__ import annotations

import re
from typing import NamedTuple, Self
from urllib.parse import unquote

OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Stores in which a file appears when its upload is complete, and to which fsspec can make links."""

_WEB = ("http", "https")
_SCHEMES = (*_WEB, *OBJECT_STORES, "memory")
"""The allowed schemes. fsspec has many more (ftp, sftp, webhdfs, smb, local, zip, ...), which give access to our own
network or machine."""
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_BUCKET = re.compile(r"[A-Za-z0-9._@-]+")  # abfs://container@account.dfs.core.windows.net
_DECODINGS = 3  # chained proxies: each may decode %25 to % once


class Place(NamedTuple):
    """The parts of a URL."""

    scheme: str
    host: str
    """The host with its port, or the bucket; empty for any."""
    path: str
    """The path without its first slash, with the query."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parses ``url``, if all parsers would split it in the same way.

        Raises:
            ValueError: it has another scheme, or contains something that hides its target: ``::``, a user name, ``..``,
                a backslash, a fragment.
        """
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in _SCHEMES:
            raise ValueError(f"the scheme is none of {', '.join(_SCHEMES)} (in small letters)")
        host, _, path = rest.partition("/")
        if host and not (_HOST if scheme in _WEB else _BUCKET).fullmatch(host):
            raise ValueError("no host, or no bucket, stands behind ://")
        if "::" in url or "\\" in url or "#" in url or not url.isprintable():
            raise ValueError("::, #, backslashes and control characters hide where a URL leads")
        decoded = path
        for _ in range(_DECODINGS):
            decoded = unquote(decoded)
        if {".", ".."}.intersection(re.split(r"[/\\?]", decoded)):
            raise ValueError("'.' and '..' hide where a URL leads")
        return cls(scheme, host.lower() if scheme in _WEB else host, path)

    @property
    def on_the_web(self) -> bool:
        """Whether it is fetched by HTTP."""
        return self.scheme in _WEB

    def contains(self, other: Place) -> bool:
        """Returns whether ``other`` is this place or below it."""
        above, below = self.path.rstrip("/"), other.path.partition("?")[0]
        return (
            self.scheme == other.scheme
            and self.host in ("", other.host)
            and (not above or below == above or below.startswith(f"{above}/"))
        )


def is_remote(text: str) -> bool:
    """Returns whether ``text`` is a URL, not a path or a ``file://`` URL of this machine."""
    return "://" in text and not text.startswith("file://")
