"""What a function's Pod says of itself: how long its imports took."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import aiohttp

from cloudmesh.engine.answers import beginning
from cloudmesh.functions.resources import PORT, REVISION_ANNOTATION

_IMPORT_SECONDS = re.compile(r"^cloudmesh_function_import_seconds ([0-9.]+)$", re.MULTILINE)
LIMIT_SECONDS = 2.0
MOST_BYTES = 1 << 20


class PodMetrics(Protocol):
    """Reads the metrics page of a Pod."""

    async def read(self, address: str) -> str | None:
        """The page, or None if the Pod can't be reached: it is asked for a detail that nothing depends on."""


class HttpPodMetrics:
    """Over HTTP, straight to the Pod."""

    async def read(self, address: str) -> str | None:
        """See `PodMetrics`."""
        host = f"[{address}]" if ":" in address else address
        limit = aiohttp.ClientTimeout(total=LIMIT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(f"http://{host}:{PORT}/metrics", allow_redirects=False) as answer,
            ):
                page = await beginning(answer.content, MOST_BYTES)
                return page.decode(errors="replace") if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


async def import_seconds(metrics: PodMetrics, pods: Iterable[Mapping[str, Any]], revision: str) -> str | None:
    """Seconds, with three places, that a Pod of the revision took to import the function's module."""
    for pod in pods:
        address = (pod.get("status") or {}).get("podIP")
        if (pod["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION) != revision or not address:
            continue
        page = await metrics.read(address)
        if page is not None and (match := _IMPORT_SECONDS.search(page)):
            return f"{float(match[1]):.3f}"
        return None
    return None
