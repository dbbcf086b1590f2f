"""The SSH helper against a server on loopback: commands, files, strict host keys, bounds, errors."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.compute.ssh_server import Server, ssh_server

from cloudmesh.compute import ssh as ssh_module
from cloudmesh.compute.access import make_key_pair
from cloudmesh.compute.ssh import SshPool, load_private_key, probe
from cloudmesh.engine import AuthFailed, Conflict, InvalidRequest, Transient


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with ssh_server(tmp_path) as running:
        yield running


@pytest.fixture
async def pool() -> AsyncIterator[SshPool]:
    pool = SshPool(idle_seconds=0.3)
    yield pool
    await pool.close()


async def test_a_program_gets_its_arguments_as_they_are(server: Server, pool: SshPool) -> None:
    done = await pool.run(server.target(), ["printf", "%s|", "a b", "$(id)", "'; echo x", ""])
    assert (done.status, done.stdout) == (0, b"a b|$(id)|'; echo x||")


async def test_standard_input_status_and_complaint(server: Server, pool: SshPool) -> None:
    done = await pool.run(server.target(), ["sh", "-c", "cat; echo bad >&2; exit 7"], stdin=b"\x00\xffdata")
    assert (done.status, done.stdout, done.complaint) == (7, b"\x00\xffdata", "bad")


async def test_a_killed_program_has_the_shells_status(server: Server, pool: SshPool) -> None:
    assert (await pool.run(server.target(), ["sh", "-c", "kill -9 $$"])).status != 0


async def test_files_are_put_whole_and_replaced(server: Server, pool: SshPool) -> None:
    await pool.put(server.target(), {"/a/b/one": b"1", "/two": b"22"}, mode=0o640)
    await pool.put(server.target(), {"/two": b"new"}, mode=0o400)
    assert (server.root / "a/b/one").read_bytes() == b"1"
    assert (server.root / "a/b/one").stat().st_mode & 0o777 == 0o640
    assert (server.root / "two").read_bytes() == b"new"
    assert sorted(p.name for p in server.root.iterdir()) == ["a", "two"]


async def test_a_file_that_cannot_be_put_leaves_nothing(server: Server, pool: SshPool) -> None:
    (server.root / "folder").mkdir()
    (server.root / "folder" / "x").mkdir()
    with pytest.raises(Transient):
        await pool.put(server.target(), {"/folder": b"1"})
    assert [p.name for p in server.root.iterdir()] == ["folder"]


async def test_files_are_read_up_to_a_limit(server: Server, pool: SshPool) -> None:
    (server.root / "log").write_bytes(b"0123456789")
    assert await pool.get(server.target(), "/log") == b"0123456789"
    assert await pool.get(server.target(), "/log", limit=4) == b"0123"
    assert await pool.get(server.target(), "/none") is None
    assert await pool.get(server.target(), "/none/none") is None


async def test_one_connection_serves_many_and_ends_when_idle(server: Server, pool: SshPool) -> None:
    outputs = await asyncio.gather(*(pool.run(server.target(), ["echo", str(n)]) for n in range(20)))
    assert [o.text for o in outputs] == [str(n) for n in range(20)]
    assert server.logins == 1
    await asyncio.sleep(0.6)
    await pool.run(server.target(), ["true"])
    assert server.logins == 2


async def test_connections_are_bounded(server: Server) -> None:
    pool = SshPool(connections=2)
    for name in ("a", "b", "c", "a"):
        await pool.run(server.target(name=name), ["true"])
    assert server.logins == 4  # the third closed the first
    assert len(pool._connections) == 2
    await pool.close()


async def test_a_server_that_came_back_is_used_again(server: Server, pool: SshPool) -> None:
    await pool.run(server.target(), ["true"])
    await server.stop()
    with pytest.raises(Transient):
        await pool.run(server.target(), ["true"])
    await server.start()
    assert (await pool.run(server.target(), ["true"])).status == 0


async def test_another_host_key_is_a_conflict_that_says_what_to_do(server: Server, pool: SshPool) -> None:
    _, other = make_key_pair("other")
    with pytest.raises(Conflict, match=r"lab-0 .*another host key.*installed anew"):
        await pool.run(server.target(host_keys=(other,), name="lab-0"), ["true"])
    assert server.commands == []


async def test_no_known_host_key_is_never_trust(server: Server, pool: SshPool) -> None:
    with pytest.raises(Conflict):
        await pool.run(server.target(host_keys=()), ["true"])
    assert server.commands == []


async def test_another_client_key_is_refused(server: Server, pool: SshPool) -> None:
    with pytest.raises(AuthFailed, match="refuses the key"):
        await pool.run(server.target(client_key=make_key_pair("x")[0]), ["true"])


async def test_a_command_that_takes_too_long_is_transient(server: Server, pool: SshPool) -> None:
    with pytest.raises(Transient, match="too long"):
        await pool.run(server.target(), ["sleep", "20"], seconds=0.4)
    assert (await pool.run(server.target(), ["echo", "on"])).text == "on"


async def test_endless_output_is_cut_off(server: Server, pool: SshPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module, "OUTPUT_BYTES", 100_000)
    with pytest.raises(InvalidRequest, match="more than 100000 bytes"):
        await pool.run(server.target(), ["head", "-c", "1000000", "/dev/zero"])


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END"])
def test_a_bad_private_key_is_not_quoted(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_private_key(text)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_secrets_stay_out_of_repr_errors_and_logs(
    server: Server, pool: SshPool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    target = server.target()
    await pool.put(target, {"/k": b"munge-secret"})
    secret = target.client_key.splitlines()[2]
    with pytest.raises(Transient) as caught:
        await pool.run(dataclasses.replace(target, port=1), ["true"])
    for text in (repr(target), str(target), str(caught.value), caplog.text):
        assert secret not in text
        assert "munge-secret" not in text


async def test_probe_wants_the_banner(server: Server) -> None:
    await probe("127.0.0.1", server.port, timeout=5)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        writer.close()

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400\r\n\r\n")
        writer.close()

    for handler, words in ((mute, "doesn't answer within 0.2 s"), (other, "before an SSH banner")):
        listening = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(Transient, match=words):
            await probe("127.0.0.1", port, timeout=0.2)
        listening.close()
        await asyncio.sleep(0.5)
        with pytest.raises(Transient, match=f"127.0.0.1:{port} can't be reached"):
            await probe("127.0.0.1", port, timeout=1)
