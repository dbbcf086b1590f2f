"""JSON lines on standard error; every line written during a reconcile carries the object's key."""

from __future__ import annotations

import contextvars
import datetime
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from cloudmesh.engine.resources import Key

_key: contextvars.ContextVar[Key | None] = contextvars.ContextVar("cloudmesh_log_key", default=None)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@contextmanager
def logging_key(key: Key) -> Iterator[None]:
    """Adds an object's key to all lines logged inside, in this task and those it starts."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, key, and whatever `extra` held."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record; values that JSON doesn't know are written as text."""
        line: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (key := _key.get()) is not None:
            line["key"] = str(key)
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD and name[0] != "_"}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(level: str = "INFO", stream: IO[str] | None = None) -> None:
    """Sends all logging of the process through the JSON formatter.

    Raises:
        ValueError: The level is none of DEBUG, INFO, WARNING, ERROR.
    """
    if level.upper() not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}, not {level!r}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # request lines of the first two say nothing that metrics don't; the others tell keys, tokens and commands at DEBUG
    for name in ("aiohttp.access", "asyncio", "asyncssh", "boto3", "botocore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
