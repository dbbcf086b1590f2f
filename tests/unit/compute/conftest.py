"""No name is looked up outside this machine."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest

_REAL = asyncio.BaseEventLoop.getaddrinfo


@pytest.fixture(autouse=True)
def no_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(self: asyncio.BaseEventLoop, host: Any, port: Any, **options: Any) -> Any:
        if host not in (None, "localhost"):
            try:
                ipaddress.ip_address(host)
            except ValueError:
                raise OSError(f"{host} isn't looked up in tests") from None
        return await _REAL(self, host, port, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
