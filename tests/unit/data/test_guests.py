"""Guests of a directory: clusters that have it mounted see their folder, as they may, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.gateway_scene import AUTH, HASHED, Served, basic

from cloudmesh.data.config import AccessRule, AuthConfig, DirectoryConfig, Guest
from cloudmesh.data.gateway.auth import Doorkeeper, Forbidden, User


def keeper_of(*rules: AccessRule) -> Doorkeeper:
    config = DirectoryConfig("ns", "lab", "u", "i", (), auth=AuthConfig(rules=rules))
    return Doorkeeper(lambda: config, None)


def guest(access: str, folder: str = "raw/a", **more: Any) -> AuthConfig:
    """One cluster with one mount."""
    found = Guest("cloudmesh:cluster:lab", HASHED, folder, access)  # type: ignore[arg-type]
    return AuthConfig(kubernetes=False, guests={"vc-lab-1": found}, **more)


GUESTS = [
    ("GET", "/v1/files/raw/a/x", 200), ("GET", "/v1/list/raw/a", 200), ("GET", "/v1/files/raw/ab", 403),
    ("GET", "/v1/files/other", 403), ("GET", "/v1/list/", 403), ("GET", "/v1/list/raw", 403),
    ("GET", "/v1/search?under=raw", 403), ("GET", "/v1/usage", 403), ("GET", "/v1/trash", 200),
    ("PUT", "/v1/files/raw/a/../x", 422), ("PUT", "/v1/files/raw/new", 403), ("DELETE", "/v1/files/other", 403),
    ("PROPFIND", "/dav/raw/", 403), ("PROPFIND", "/dav/raw/a/", 207), ("DELETE", "/dav/raw/", 403),
    ("MKCOL", "/dav/elsewhere", 403),
]  # fmt: skip


@pytest.mark.parametrize(("access", "writes"), [("ReadOnly", False), ("ReadWrite", True)])
def test_a_guest_sees_its_folder_and_nothing_else(tmp_path: Path, access: str, *, writes: bool) -> None:
    with Served(tmp_path) as served:
        for path in ("raw/a/x", "raw/ab", "other", "gone"):
            assert served.ask("PUT", f"/v1/files/{path}", b"1").status == 201
        assert served.ask("DELETE", "/v1/files/gone").status < 300
        assert served.ask("GET", "/v1/trash").json["entries"]
        served.reconfigure(auth=guest(access))
        shown = {"Authorization": basic("vc-lab-1")}
        deep = {**shown, "Depth": "1"}
        for method, target, status in GUESTS:
            body = b"2" if method == "PUT" else None
            assert served.ask(method, target, body, deep).status == status, (method, target)
        for method, target in (("PUT", "/v1/files/raw/a/y"), ("PUT", "/dav/raw/a/z"), ("DELETE", "/v1/files/raw/a/x")):
            body = b"2" if method == "PUT" else None
            assert (served.ask(method, target, body, shown).status < 300) is writes, (method, target)
        assert all(
            one["path"].startswith("raw/a/") for one in served.ask("GET", "/v1/trash", None, shown).json["entries"]
        )
        moved = {**shown, "Destination": "/dav/other2"}
        assert served.ask("MOVE", "/dav/raw/a/x", None, moved).status in (403, 404)
        assert served.ask("GET", "/v1/list/raw/a", headers={"Authorization": basic("vc-lab-1", "wrong")}).status == 401
        # its own name among users lets nobody in
        assert served.ask("GET", "/v1/list/raw/a", user="cloudmesh:cluster:lab").status == 401
        served.reconfigure(auth=AUTH)
        assert served.ask("GET", "/v1/list/raw/a", headers=shown).status == 401


def test_rules_narrow_guests_too() -> None:
    keeper = keeper_of(AccessRule("raw/a/b/**", users=("cloudmesh:cluster:lab",), access="None"))
    user = User("cloudmesh:cluster:lab", frozenset({"cloudmesh:clusters"}), 2, "raw/a")
    keeper.check(user, "raw/a/c", "update")
    with pytest.raises(Forbidden):
        keeper.check(user, "raw/a/b/c", "get")
    with pytest.raises(Forbidden):
        keeper_of(AccessRule("**", groups=("cloudmesh:clusters",), access="ReadOnly")).check(user, "raw/a/c", "update")
    # a rule gives nothing
    with pytest.raises(Forbidden):
        keeper_of(AccessRule("**", users=("cloudmesh:cluster:lab",))).check(user, "raw/b", "get")
