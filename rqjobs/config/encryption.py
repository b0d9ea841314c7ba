"""Encrypts secrets in the database and in Redis, under keys that are derived from RQJOBS_SECRET_KEY.

An encrypted text is ``enc1:KEY:DATA``: the id of its key, and base64url of a salt, a nonce and the AES-256-GCM
ciphertext. The AES key is HMAC-SHA256 of the salt under the derived key. A process makes a new salt for each million
texts: random nonces under one key are safe for 2^32 texts only (NIST SP 800-38D, section 8.3). The associated data is
the place of the text, so that a text moved to another job or endpoint cannot be decrypted.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, urlsplit

from rqjobs.config.secret_key import kept_key, secret_key
from rqjobs.config.settings import Settings, get_settings
from rqjobs.errors import PermanentFailure

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = "enc1:"
"""The beginning of every encrypted text."""

Store = Literal["database", "redis"]

_SALT, _NONCE, _TAG = 16, 12, 16  # bytes
_TEXTS_OF_A_SALT = 1_000_000
_HERE = ("", "localhost", "127.0.0.1", "::1")


class UnreadableSecret(PermanentFailure):
    """An encrypted text cannot be decrypted by this process; the message names the fix."""


class _Key:
    def __init__(self, text: str) -> None:
        from cryptography.hazmat.primitives.hashes import SHA256  # heavy, and most processes encrypt nothing
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        def derive(purpose: bytes, length: int) -> bytes:
            return HKDF(SHA256(), length, None, b"rqjobs secrets at rest: " + purpose).derive(text.encode())

        self.name = _name(text)
        self._secret = derive(b"key", 32)
        self.prefix = f"{PREFIX}{self.name}:"
        self._salt, self._left = b"", 0

    def encrypt(self, text: str, place: bytes) -> str:
        if self._left <= 0:
            self._salt, self._left = os.urandom(_SALT), _TEXTS_OF_A_SALT
        self._left -= 1
        salt, nonce = self._salt, os.urandom(_NONCE)
        sealed = _aes(self._secret, salt).encrypt(nonce, text.encode(errors="surrogatepass"), place)
        return self.prefix + base64.urlsafe_b64encode(salt + nonce + sealed).decode()

    def decrypt(self, data: bytes, place: bytes) -> str:
        if len(data) < _SALT + _NONCE + _TAG:
            raise ValueError("too short")
        nonce, sealed = data[_SALT : _SALT + _NONCE], data[_SALT + _NONCE :]
        text: bytes = _aes(self._secret, data[:_SALT]).decrypt(nonce, sealed, place)
        return text.decode(errors="surrogatepass")


def _name(text: str) -> str:
    """Returns the id of the key that is derived from ``text``; it reveals neither."""
    return hmac.digest(text.encode(), b"rqjobs secrets at rest: name", "sha256")[:4].hex()


@lru_cache(1000)
def _aes(secret: bytes, salt: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hmac.digest(secret, salt, "sha256"))


class Keyring:
    """The keys of this process: the newest encrypts, all of them decrypt."""

    def __init__(self, newest: str | None, others: Sequence[str], stores: frozenset[Store]) -> None:
        """Derives the keys.

        Args:
            newest: the text whose key encrypts new secrets; None to encrypt nothing.
            others: texts whose keys only decrypt.
            stores: the stores whose secrets are encrypted.
        """
        self._newest = None if newest is None else _Key(newest)
        keys = [key for key in (self._newest, *map(_Key, others)) if key is not None]
        self._keys = {key.name: key for key in reversed(keys)}
        self.stores = stores if self._newest is not None else frozenset()

    @property
    def names(self) -> list[str]:
        """The ids of the keys, the newest first. They do not reveal the keys."""
        return list(reversed(self._keys))

    def encrypt(self, text: str, place: Sequence[str], store: Store) -> str:
        """Returns ``text`` encrypted under the newest key, in the form for ``store``.

        A text that is encrypted already, under the newest key or under an unknown one, is returned unchanged.

        Args:
            text: a secret, encrypted or not.
            place: its place, such as an endpoint's name; needed again to decrypt it.
            store: the store that will keep it.
        """
        if self._newest is None or store not in self.stores or text.startswith(self._newest.prefix):
            return text
        if is_encrypted(text):
            try:
                text = self.decrypt(text, place)
            except UnreadableSecret:
                return text
        return self._newest.encrypt(text, _joined(place))

    def is_current(self, text: str) -> bool:
        """Returns whether ``text`` is encrypted under the newest key."""
        return self._newest is not None and text.startswith(self._newest.prefix)

    def decrypt(self, text: str, place: Sequence[str]) -> str:
        """Returns the secret in ``text``; an unencrypted text, as older versions stored, is returned unchanged.

        Raises:
            UnreadableSecret: this process does not have the key, or the text was changed or belongs to another place.
        """
        if not is_encrypted(text):
            return text
        _, name, encoded = text.split(":", 2)
        key = self._keys.get(name)
        if key is None:
            raise UnreadableSecret(
                f"{place[0]}: encrypted under the key {name[:8]}, which this process does not have. Set "
                "RQJOBS_SECRET_KEY to the same text in every process, and list the key before it in "
                "RQJOBS_SECRET_KEY_OLD; then run it again: rqjobs failed requeue"
            )
        from cryptography.exceptions import InvalidTag

        try:
            data = base64.b64decode(encoded, altchars=b"-_", validate=True)
            return key.decrypt(data, _joined(place))
        except (InvalidTag, binascii.Error, ValueError):
            raise UnreadableSecret(
                f"{place[0]}: the encrypted text was changed, or belongs to another job or endpoint. Enter it anew"
            ) from None


def is_encrypted(text: str) -> bool:
    """Returns whether ``text`` has the form of an encrypted text."""
    return text.startswith(PREFIX) and text.count(":", 0, 100) >= 2  # noqa: PLR2004


def _joined(place: Sequence[str]) -> bytes:
    return "\0".join(place).encode(errors="surrogatepass")


def keyring() -> Keyring:
    """Returns the keys of this process by its settings; they are derived once.

    With RQJOBS_SECRET_KEY set, secrets in every store are encrypted under it. Without it, the key under RQJOBS_DATA
    encrypts only secrets on this machine: other machines do not have it, and a database on another machine must not
    depend on a file of this one.
    """
    return _keyring(_ById(get_settings()))


class _ById:
    """Compares settings by identity, which is enough because they are frozen and made once per process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.settings is self.settings

    def __hash__(self) -> int:
        return id(self.settings)


@lru_cache(8)
def _keyring(by_id: _ById) -> Keyring:
    settings = by_id.settings
    others = _old_keys(settings)
    if settings.rqjobs_secret_key is not None:
        stores: frozenset[Store] = frozenset({"database", "redis"})
    else:
        urls: dict[Store, str] = {
            "database": settings.database_url.get_secret_value(),
            "redis": settings.redis_url.get_secret_value(),
        }
        stores = frozenset(store for store, url in urls.items() if _is_on_this_machine(url))
    newest = secret_key() if stores else None
    if (kept := kept_key()) is not None and kept != newest:
        others.append(kept)
    return Keyring(newest, others, stores)


def _old_keys(settings: Settings) -> list[str]:
    old = "" if settings.rqjobs_secret_key_old is None else settings.rqjobs_secret_key_old.get_secret_value()
    words = old.split()
    return [*words, old] if len(words) > 1 else words  # a single key may contain blanks


def key_names() -> list[str]:
    """Returns the ids of this process's keys, the encrypting one first; makes no key, and imports nothing expensive."""
    settings = get_settings()
    newest = kept_key() if settings.rqjobs_secret_key is None else settings.rqjobs_secret_key.get_secret_value()
    found = [*([newest] if newest else []), *_old_keys(settings), *filter(None, [kept_key()])]
    return list(dict.fromkeys(map(_name, found)))


def _is_on_this_machine(url: str) -> bool:
    scheme = url.partition(":")[0]
    if scheme in ("embedded", "unix") or scheme.startswith("sqlite"):
        return True
    try:
        parts = urlsplit(url)
        named = [host for given in parse_qs(parts.query).get("host", []) for host in given.split(",")]
        hosts = [urlsplit(f"//{host}").hostname or "" for host in parts.netloc.rpartition("@")[2].split(",")]
        return all(host in _HERE or host.startswith("/") for host in (*hosts, *named))
    except ValueError:
        return False
