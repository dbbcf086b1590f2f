"""Who is let into a directory, as its gateway is told: the Secret of users, and rules whatever else is wrong."""

from __future__ import annotations

from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.engine import SECRET

BCRYPT = "$2y$05$" + "a" * 53


@scene
async def test_users_of_a_secret(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory(expose={"auth": {"basic": {"secretRef": {"name": "users"}}, "anonymous": "ReadOnly"}})
    async with s.operator():
        await s.settle()
        told = "Secret 'users' isn't there: nobody is let in by a password"
        assert s.condition() == ("False", "AuthFailed", told)
        s.secret("users", "Opaque", htpasswd="ada:plain-text\n")
        await s.settle(40)
        status, reason, message = s.condition()
        assert (status, reason) == ("False", "InvalidRequest")
        assert "line 1" in message
        assert "plain-text" not in message
        s.secret("users", "Opaque", htpasswd=f"# people\nada:{BCRYPT}\n")
        await s.settle(40)
        assert s.condition()[0] == "True"
        assert s.config().auth.basic == {"ada": BCRYPT}
        assert s.config().auth.anonymous == "ReadOnly"
        s.api.remove(SECRET, "ns", "users")
        await s.settle(40)
        assert s.condition() == ("False", "AuthFailed", told)
        assert s.config().auth.basic == {}


@scene
async def test_who_is_let_in_is_told_whatever_else_is_wrong(s: Scene) -> None:
    s.secret()
    s.store()
    s.secret("users", "Opaque", htpasswd=f"ada:{BCRYPT}\n")
    auth = {"basic": {"secretRef": {"name": "users"}}, "anonymous": "ReadOnly"}
    s.directory(expose={"auth": auth})
    async with s.operator():
        await s.settle()
        assert s.condition()[0] == "True"
        rules = [{"path": "private/**", "access": "None"}]
        s.directory("aws", "nothere", expose={"auth": auth | {"rules": rules, "anonymous": "None"}})
        await s.settle(40)
        assert s.condition()[1] == "StoreUnavailable"
        assert [rule.path for rule in s.config().auth.rules] == ["private/**"]
        assert s.config().auth.anonymous == "None"
        assert [store.name for store in s.config().stores] == ["aws"]
        s.secret("users", "Opaque", htpasswd="ada:plain-text\n")
        await s.settle(40)
        assert s.config().auth.basic == {"ada": BCRYPT}
        s.api.remove(SECRET, "ns", "users")
        await s.settle(40)
        assert s.config().auth.basic == {}
