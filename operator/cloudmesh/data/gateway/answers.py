"""Answers in JSON, which end with a line's end: people read them in a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web


def json_response(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer of what JSON can say."""
    return web.json_response(text=json.dumps(body) + "\n", status=status, headers=headers)
