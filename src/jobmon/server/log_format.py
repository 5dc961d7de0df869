"""Format the server's log: as lines for people, or as one JSON object per line for programs that collect logs.

What a message is about (workflow, run, request) is passed as `extra`, so that the JSON form has it as separate fields.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TextIO

import msgspec

#: Maximum length of a field, characters.
FIELD_CHARACTERS_MAX: Final = 10_000
#: Beginning of the names of the threads that send notifications.
THREAD_NAME: Final = "notifications"
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
#: Attributes of every log record; everything else comes from `extra`.
RECORD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "time",
    "logger",
    "exception",
}
_encoder: Final = msgspec.json.Encoder(enc_hook=str)


class LogFormat(StrEnum):
    """The forms of a log."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """Format a record as a JSON object with `time`, `level`, `logger`, `message`, `exception`, and what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        fields |= {name: value for name, value in vars(record).items() if name not in RECORD_FIELDS}
        return _encoder.encode({name: _shortened(value) for name, value in fields.items()}).decode()


def _shortened(value: Any) -> Any:
    return value[:FIELD_CHARACTERS_MAX] if isinstance(value, str) else value


def formatter_of(name: str) -> logging.Formatter:
    """Return the formatter for a value of the setting `server.log_format`."""
    return JsonFormatter() if name == LogFormat.JSON else logging.Formatter(_TEXT)


def _is_harmless(record: logging.LogRecord) -> bool:
    """Return whether a record cannot contain the address of a receiver of notifications, which is secret.

    The libraries that send them log whole addresses; they run in threads of their own.
    """
    return not str(record.threadName).startswith(THREAD_NAME) or record.name.startswith("jobmon.")


def handler_of(name: str, stream: TextIO | None = None) -> logging.Handler:
    """Return what writes the server's log, by default to standard error."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter_of(name))
    handler.addFilter(_is_harmless)
    return handler


def set_up(name: str) -> None:
    """Log to standard error in this format."""
    handler = handler_of(name)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
