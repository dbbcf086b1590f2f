"""Gateways over one PostgreSQL catalogue and the same stores: two at once lose nothing and undo nothing of each other;
a database that goes away is told and waited for; a directory that goes takes its schema along."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from tests.testbed.postgres import Postgres, postgres
from tests.unit.data.gateway_scene import OPERATOR_TOKEN, Served

from cloudmesh.data.catalog.ports import ALL
from cloudmesh.data.config import Summary

NAMES = [f"d{n % 3}/f{n}" for n in range(12)]
OPERATIONS = 150


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres("fsync=off") as found:
        yield found


def gateway(folder: Path, server: Postgres, uid: str, like: Served | None = None) -> Served:
    """One of the directory of that uid; `like` another one, with its stores."""
    folder.mkdir()
    made = Served(folder)
    stores = like.config.stores if like is not None else made.config.stores
    made.config = msgspec.structs.replace(made.config, uid=uid, postgres=server.uri, stores=stores, allow_private=True)
    if like is not None:
        made._places = {}
    return made


def wait(what: Callable[[], object], seconds: float = 60) -> None:
    """Until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it doesn't come"
        time.sleep(0.05)


def summary(one: Served) -> Summary:
    """What the operator is told."""
    answer = one.ask("GET", "/internal/summary", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"})
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body, type=Summary)


def client(one: Served, seed: int, names: list[str], known: dict[str, bytes]) -> None:
    """Random operations on names of its own; what was acknowledged is kept in mind."""
    drawn = random.Random(seed)
    for number in range(OPERATIONS):
        name = drawn.choice(names)
        act = drawn.choice(("put", "put", "put", "get", "get", "delete", "move"))
        if act == "put":
            content = f"{seed}-{number}-{name}".encode() * drawn.randrange(1, 50)
            answer = one.ask("PUT", f"/v1/files/{name}", content)
            assert answer.status in (200, 201), answer.body
            known[name] = content
        elif act == "get":
            answer = one.ask("GET", f"/v1/files/{name}")
            assert (answer.status, answer.body) == (200, known[name]) if name in known else answer.status == 404
        elif act == "delete":
            answer = one.ask("DELETE", f"/v1/files/{name}")
            assert answer.status in ((204, 200) if name in known else (404, 204, 200)), answer.body
            known.pop(name, None)
        elif name in known:
            above = name.partition("/")[0] + "/"
            target = drawn.choice([other for other in names if other != name and other.startswith(above)])
            told = {"from": name, "to": target, "overwrite": True}
            answer = one.ask("POST", "/v1/move", told)
            assert answer.status in (200, 201), answer.body
            known[target] = known.pop(name)


def test_two_at_once(server: Postgres, tmp_path: Path) -> None:
    with (
        gateway(tmp_path / "one", server, "two-at-once") as one,
        gateway(tmp_path / "two", server, "two-at-once", one) as two,
    ):
        wait(lambda: one.ask("GET", "/v1/list/").status == two.ask("GET", "/v1/list/").status == 200)
        # two clients a gateway, on names that are each one's own, and all on some that are everybody's
        held: list[dict[str, bytes]] = [{} for _ in range(4)]
        failures: list[BaseException] = []

        def run(number: int) -> None:
            try:
                client((one, two)[number % 2], number, [f"{number}-{name}" for name in NAMES], held[number])
                for n in range(20):
                    (one, two)[number % 2].ask("PUT", f"/v1/files/common/f{n % 5}", b"%d" % number * 30)
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        expected = {name: content for known in held for name, content in known.items()}
        assert len(expected) > 10
        # both movers end, and both gateways give the same
        wait(lambda: not summary(one).pending and not summary(one).waking)
        wait(lambda: not one.call(one.gateway.catalog.intents(until=ALL)) and not summary(one).pending)
        for name, content in expected.items():
            assert {g.ask("GET", f"/v1/files/{name}").body for g in (one, two)} == {content}, name
        commons = [one.ask("GET", f"/v1/files/common/f{n}").body for n in range(5)]
        assert all(body in {b"%d" % number * 30 for number in range(4)} for body in commons)
        assert one.call(one.gateway.catalog.fsck()) == []
        # nothing lies in a store that no record speaks of, and no copy's object is missing
        catalog = one.gateway.catalog
        for store in ("one", "two"):
            objects = {key for key in one.place(store).objects if "/.cloudmesh/" not in f"/{key}"}
            known = {copy.key for copy in one.call(catalog.held(store, limit=100_000))}
            assert objects == known, (sorted(objects - known)[:5], sorted(known - objects)[:5])
        done = [g.gateway.mover.done for g in (one, two)]
        assert not any(d.corrupt for d in done)
        # a record of each change is in the stores, or waits for it
        assert summary(one).files == summary(two).files == len(expected) + 5


def test_the_database_is_away(server: Postgres, tmp_path: Path) -> None:
    server.stop()
    try:
        late = gateway(tmp_path / "late", server, "away").__enter__()
    finally:
        server.start()
    try:
        wait(lambda: late.ask("PUT", "/v1/files/a", b"one").status == 201)
        server.stop(signal.SIGQUIT)
        try:
            status, reason = late.ask("GET", "/v1/files/a").problem
            assert (status, reason) == (503, "Transient")
            assert late.ask("PUT", "/v1/files/b", b"two").status == 503
        finally:
            server.start()
        wait(lambda: late.ask("GET", "/v1/files/a").body == b"one")
        wait(lambda: late.ask("PUT", "/v1/files/b", b"two").status == 201)
        assert late.ask("GET", "/healthz").status == 200
    finally:
        late.__exit__()


def test_a_catalogue_that_is_lost_is_made_anew(server: Postgres, tmp_path: Path) -> None:
    with gateway(tmp_path / "one", server, "lost") as one:
        wait(lambda: one.ask("PUT", "/v1/files/a/b", b"content").status == 201)
        one.ask("POST", "/v1/move", {"from": "a/b", "to": "c"})
        assert one.ask("GET", "/healthz").status == 200

        def dropped() -> bool:
            try:
                server.run("DROP SCHEMA vdir_lost CASCADE")
            except psycopg.errors.DeadlockDetected:
                # the gateway is just changing something
                return False
            return True

        wait(dropped)
        assert one.ask("GET", "/v1/files/c").problem[0] == 503
        # it asks to be started again
        assert one.ask("GET", "/healthz").status == 500
        stores = one.config.stores
        places = one._places
        one._places = {}
    two = gateway(tmp_path / "two", server, "lost")
    two.config = msgspec.structs.replace(two.config, stores=stores)
    two._places = places
    with two:
        wait(lambda: two.ask("GET", "/v1/files/c").body == b"content")
        assert two.ask("GET", "/v1/files/a/b").status == 404


def test_the_directory_goes(server: Postgres, tmp_path: Path) -> None:
    with gateway(tmp_path / "one", server, "goes") as one:
        wait(lambda: one.ask("PUT", "/v1/files/a", b"content").status == 201)
        one.reconfigure(ending=True)
        assert one.ask("GET", "/v1/files/a").status == 503
        wait(lambda: one.gateway.left)
        assert summary(one).ended
        assert any("-snapshot-" in key for key in one.place("one").objects)
        assert any(held.content == b"content" for held in one.place("one").objects.values())
    with psycopg.connect(server.local) as db:
        assert db.execute("SELECT to_regnamespace('vdir_goes')").fetchone() == (None,)
    with gateway(tmp_path / "two", server, "empties") as two:
        wait(lambda: two.ask("PUT", "/v1/files/a", b"content").status == 201)
        two.reconfigure(emptying=True)
        wait(lambda: two.gateway.left)
        assert summary(two).emptied
        assert not two.place("one").objects
    with psycopg.connect(server.local) as db:
        assert db.execute("SELECT to_regnamespace('vdir_empties')").fetchone() == (None,)
