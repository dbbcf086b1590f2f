"""The HTTP transport's way out: a proxy that the environment names, asked once and not at each request."""

from __future__ import annotations

import pytest

from cloudmesh.engine.kube.http import _environment_proxy

SERVER = "https://api.example.org:6443"


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_proxy_of_the_environment_is_used_for_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _environment_proxy(SERVER) is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    assert _environment_proxy(SERVER) == "http://proxy.example.org:3128"
    assert _environment_proxy("http://127.0.0.1:8001") is None


@pytest.mark.parametrize("without", ["api.example.org", "localhost,.example.org", "*"])
def test_no_proxy_leaves_the_server_out(monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", without)
    assert _environment_proxy(SERVER) is None
