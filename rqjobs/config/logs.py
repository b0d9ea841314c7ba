"""Logs: one line per event, as text or JSON, with job id, queue and attempt; without payloads and secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from rqjobs.security.printable import printable, printable_json

LogFormat = Literal["text", "json"]

log = logging.getLogger("rqjobs")


def event(level: int, name: str, /, **fields: Any) -> None:
    """Logs the event ``name`` with ``fields``; None values are left out."""
    if log.isEnabledFor(level):
        log.log(level, name, extra={"fields": {key: value for key, value in fields.items() if value is not None}})


class TextFormatter(logging.Formatter):
    """Formats an event as ``12:00:00 INFO  job completed id=... queue=... seconds=0.012``."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line and, after an exception, its traceback; control characters are escaped."""
        stamp = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = getattr(record, "fields", {})
        words = [f"{stamp} {record.levelname:<7} {_mask(record.getMessage())}"]
        words += [f"{key}={_quoted(value)}" for key, value in fields.items()]
        line = printable(" ".join(words), keep="")
        return f"{line} \n{printable(_mask(self.formatException(record.exc_info)))}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """Formats an event as one JSON object per line: ``time``, ``level``, ``event``, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line of JSON."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": _mask(record.getMessage()),
            **{key: _masked(value) for key, value in getattr(record, "fields", {}).items()},
        }
        if record.exc_info:
            entry["exception"] = _mask(self.formatException(record.exc_info))
        return printable_json(json.dumps(entry, default=str, ensure_ascii=False))


def _mask(text: str) -> str:
    from rqjobs.security.masking import (
        mask_text,
    )  # imported late: compiling its patterns takes 2 ms, and many processes log nothing

    return mask_text(text)


def _masked(value: object) -> object:
    return _mask(value) if isinstance(value, str) else value


def _quoted(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else _mask(str(value))
    return json.dumps(text, ensure_ascii=False) if any(char in text for char in ' "\n\r\t=') or not text else text


def set_up_logs(log_format: LogFormat = "text", level: int = logging.INFO) -> None:
    """Writes rqjobs' logs to stderr, and RQ's from level WARNING. Only programs call this."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(level)
    for name in ("rq.worker", "rq.job", "rq.queue", "rq.registry", "rq.scheduler"):
        logging.getLogger(name).setLevel(logging.WARNING)
