"""The base of the five job models: frozen, strict, keys in both spellings, all faults reported at the call."""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, from_json

from rqjobs.errors import InvalidJob

_MAX_DEPTH = 64
_MAX_DIGITS = sys.int_info.default_max_str_digits  # Python refuses to read longer numbers
_TOO_LONG = 10**_MAX_DIGITS


def _is_json(value: Any, depth: int = 0) -> bool:
    """Returns True if ``json_faults`` would find nothing; False if that is not certain.

    It takes a fraction of the time.
    """
    kind = type(value)
    if kind is str:
        return bool(value.isascii())
    if kind is dict and depth < _MAX_DEPTH:  # lists: generators cost more
        return all([type(key) is str and key.isascii() and _is_json(item, depth + 1) for key, item in value.items()])  # noqa: C419
    if kind is list and depth < _MAX_DEPTH:
        return all([_is_json(item, depth + 1) for item in value])  # noqa: C419
    if kind is int and -(2**63) < value < 2**63:  # computed when Python compiles it
        return True
    return value is None or kind is bool or (kind is float and math.isfinite(value))


def json_faults(value: object, path: str, depth: int = 0) -> Iterator[str]:  # noqa: C901, PLR0912  # one case a kind of value
    """Yields every value in ``value`` that JSON cannot represent exactly, as ``'payload.when': ...``."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if not -_TOO_LONG < value < _TOO_LONG:
            yield f"'{path}': a number of more than {_MAX_DIGITS} digits could not be read back"
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            yield f"'{path}': a lone surrogate is not text"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"'{path}': {value} is not JSON"
    elif depth >= _MAX_DEPTH:
        yield f"'{path}': nested deeper than {_MAX_DEPTH} levels"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"'{path}': the key {key!r} is not a string"
            else:
                yield from json_faults(key, f"{path}.{key}".encode(errors="replace").decode(), depth + 1)
                yield from json_faults(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from json_faults(item, f"{path}[{index}]", depth + 1)
    else:
        fix = "; pass its .isoformat()" if hasattr(value, "isoformat") else ""
        yield f"'{path}': a {type(value).__name__} is not JSON{fix}"


def _check_json(value: dict[str, Any], path: str) -> dict[str, Any]:
    if not _is_json(value) and (faults := list(json_faults(value, path))):
        raise PydanticCustomError("not_json", "{faults}", {"faults": "; ".join(faults), "whole": True})
    return value


def json_object(name: str) -> AfterValidator:
    """Returns a validator for the field ``name``: an object with values that JSON can represent."""
    return AfterValidator(lambda value: _check_json(value, name))


Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A non-empty identifier of at most 255 characters, without control characters."""

EVENT_NAME = "[A-Za-z0-9_]+(?:[.:/-][A-Za-z0-9_]+)*"
EventName = Annotated[str, Field(strict=True, max_length=128, pattern=f"^{EVENT_NAME}$")]
"""The name of an event in the form of Standard Webhooks: words joined by dots, such as ``qr.scanned``."""


def describe_faults(model: type[BaseModel], error: ValidationError, prefix: str = "") -> list[str]:
    """Returns each fault of ``error`` as a phrase with ``prefix`` and the field's name, and the fix if there is one."""
    names = [name for field, info in model.model_fields.items() for name in {field, info.alias or field}]
    faults = []
    for item in error.errors(include_url=False, include_context=True):
        path = ".".join(str(part) for part in item["loc"])
        close = difflib.get_close_matches(path, names, 1)
        path = prefix + path if path else prefix.rstrip(".")
        message = item["msg"][:1].lower() + item["msg"][1:]
        if item["type"] == "missing":
            faults.append(f"'{path}' is missing")
        elif item["type"] == "extra_forbidden":
            faults.append(f"unknown field '{path}'" + (f", did you mean '{prefix}{close[0]}'?" if close else ""))
        elif item.get("ctx", {}).get("whole"):
            faults.append(item["msg"])
        else:
            faults.append(f"'{path}': {message.removeprefix('value error, ')}" if path else message)
    return faults


STRICT = ConfigDict(
    frozen=True,
    strict=True,
    extra="forbid",
    alias_generator=to_camel,
    populate_by_name=True,
    allow_inf_nan=False,
    hide_input_in_errors=True,
    ser_json_inf_nan="constants",
)
"""The configuration of all models: no type is converted, unknown fields are refused, errors show no values."""

encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False, ensure_ascii=False).encode
"""Encodes JSON without blanks, in Unicode."""


def read_json(data: bytes) -> Any:
    """Parses JSON in a quarter of the time of Python's json, which is used only for texts that this parser refuses.

    Raises:
        ValueError: ``data`` is not JSON.
    """
    try:
        return from_json(data)
    except ValueError:  # a lone surrogate, nested deeper than 200 levels, UTF-16
        return json.loads(data)


class JobModel(BaseModel):
    """The base of every job: immutable data that is checked when it is made.

    Field names are accepted in snake_case and in camelCase.

    Raises:
        InvalidJob: the data is invalid; the message names every fault.
    """

    model_config = STRICT

    queue: ClassVar[str]
    """The queue of jobs of this kind."""
    encrypted_field: ClassVar[str | None] = None
    """The field (a mapping of texts) with values that are encrypted at rest (rqjobs.config.encryption), if any."""

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise InvalidJob(type(self).__name__, describe_faults(type(self), error)) from None

    @classmethod
    def parse(cls, data: object) -> Self:
        """Returns the job of ``data``, which is an instance or a mapping.

        Raises:
            InvalidJob: the data is invalid; the message names every fault.
        """
        if isinstance(data, cls):
            return data
        if not isinstance(data, dict):
            raise InvalidJob(cls.__name__, [f"an object with its fields is needed, not a {type(data).__name__}"])
        if bad := [repr(key) for key in data if not isinstance(key, str)]:
            raise InvalidJob(cls.__name__, [f"the key {key} is not a string" for key in bad])
        return cls(**data)

    def secret_place(self) -> str:
        """Returns what the secret field is for, such as a destination; with another one it cannot be decrypted."""
        return ""

    def destination(self) -> str:
        """Returns the destination of the job, in the form that ``destination.lua`` reads; "" if it is never parked."""
        return ""

    def label(self) -> str:
        """Returns one line that identifies this job in logs and pages, without payload and secrets."""
        raise NotImplementedError

    def dump(self) -> dict[str, Any]:
        """Returns the fields as JSON types, without those that have their default value."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def dump_json(self) -> bytes:
        """Returns the result of :meth:`dump` as JSON.

        Raises:
            ValueError: a field of type ``Any`` has a value that JSON cannot represent.
        """
        if type(self).dump is JobModel.dump:
            data = self.__pydantic_serializer__.to_json(self, exclude_defaults=True)  # a quarter of the time
            if b"NaN" not in data and b"Infinity" not in data:
                return data
        return encode_json(self.dump()).encode()
