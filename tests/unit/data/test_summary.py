"""How gateways are asked, over HTTP; what is told of their clock; and the settings of the wing."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import web
from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data import summary
from cloudmesh.data.config import Summary
from cloudmesh.data.settings import DataSettings
from cloudmesh.data.summary import COUNTERS_SECONDS, HttpReader, settle
from cloudmesh.data.words import time_text
from cloudmesh.engine import AuthFailed, CloudmeshError, Transient

TOLD = Summary(config="abc", files=3)


async def ask(monkeypatch: pytest.MonkeyPatch, *, status: int = 200, body: bytes | None = None) -> Summary:
    """Asks a gateway that answers so, if it is shown the token `good`."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer good":
            return web.Response(status=401)
        return web.Response(status=status, body=msgspec.json.encode(TOLD) if body is None else body)

    app = web.Application()
    app.router.add_get("/internal/summary", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    monkeypatch.setattr(summary, "gateway_url", lambda namespace, name: f"http://127.0.0.1:{port}")
    try:
        with pytest.raises(AuthFailed):
            await HttpReader().read("ns", "lab", "other")
        return await HttpReader().read("ns", "lab", "good")
    finally:
        await runner.cleanup()


def test_what_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(ask(monkeypatch)) == TOLD


@pytest.mark.parametrize(
    ("status", "body"), [(500, b""), (302, b""), (200, b"no"), (200, b"{}"), (200, b'{"config": 1}')]
)
def test_answers_that_are_no_good(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes) -> None:
    with pytest.raises(Transient):
        asyncio.run(ask(monkeypatch, status=status, body=body))


def test_what_a_gateway_that_can_t_answer_says(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"title": "Service Unavailable", "detail": "the catalogue\'s database can\'t be used"}'
    with pytest.raises(Transient, match="answers 503: the catalogue's database"):
        asyncio.run(ask(monkeypatch, status=503, body=body))


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "gateway_url", lambda namespace, name: "http://127.0.0.1:1")
    with pytest.raises(CloudmeshError, match="doesn't answer"):
        asyncio.run(HttpReader().read("ns", "lab", "good"))


def test_settings() -> None:
    assert DataSettings.from_environ({}) == DataSettings()
    found = DataSettings.from_environ(
        {
            "CLOUDMESH_GATEWAY_IMAGE": "example.org/operator:1",
            "CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS": "true",
            "CLOUDMESH_LOG_LEVEL": "debug",
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        }
    )
    assert (found.gateway_image, found.allow_private_endpoints, found.log_level) == (
        "example.org/operator:1", True, "DEBUG"
    )  # fmt: skip
    assert found.forbidden_hosts[-1] == "10.96.0.1"


def test_a_new_snapshot_is_told_though_no_number_changed() -> None:
    old = {"files": 3, "catalog": {"entries": 3, "snapshotAt": time_text(1_790_000_000_000_000)}, "conditions": []}
    new = old | {"catalog": {"entries": 3, "snapshotAt": time_text(1_790_003_600_000_000)}}
    assert old["catalog"] == {"entries": 3, "snapshotAt": "2026-09-21T14:13:20Z"}
    # as all counters, not at once
    assert settle(new, old, 0.0, COUNTERS_SECONDS - 1)[0]["catalog"] == old["catalog"]
    assert settle(new, old, 0.0, COUNTERS_SECONDS + 1) == (new, True)
    assert settle(old, old, 0.0, COUNTERS_SECONDS + 1)[1] is False


@scene
async def test_a_clock_that_is_ahead_of_the_stores(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    words = (
        "nothing is removed for its age, since the clock of the gateway's machine is 90 minutes ahead of the stores'"
    )
    async with s.operator():
        await s.settle()
        s.gateway.summary = {"clock_ahead_ms": 90 * 60_000 + 7}
        await s.settle(40)
        assert s.condition("StoresReady") == ("True", "AsSpecified", f"1 stores answer; {words}")
        status, reason, message = s.condition()
        assert (status, reason) == ("True", "AsSpecified") and message.endswith(f"; but {words}")
        s.gateway.states["aws"] = ("Unknown", "no route")
        await s.settle(40)
        assert s.condition("StoresReady") == ("Unknown", "StoreUnavailable", f"aws is Unknown: no route; {words}")
        s.gateway.states.clear()
        s.gateway.summary = {}
        await s.settle(40)
        assert s.condition("StoresReady") == ("True", "AsSpecified", "1 stores answer")
        assert "clock" not in s.condition()[2]
