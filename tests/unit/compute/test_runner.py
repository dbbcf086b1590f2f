"""Commands that outlive a login, run for real by /bin/sh over SSH on loopback."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.compute.ssh_server import Server, ssh_server

from cloudmesh.compute import runner
from cloudmesh.compute.runner import Seen
from cloudmesh.compute.ssh import SshPool

F = ".cloudmesh/jobs/j/run-1"


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with ssh_server(tmp_path) as running:
        pool = SshPool()
        await runner.install(pool, running.target())
        await pool.close()
        yield running


@pytest.fixture
async def pool() -> AsyncIterator[SshPool]:
    pool = SshPool()
    yield pool
    await pool.close()


async def until(pool: SshPool, server: Server, token: str, state: str) -> Seen:
    for _ in range(100):
        seen = (await runner.look(pool, server.target(), [(F, token)]))[token]
        if seen.state == state:
            return seen
        await asyncio.sleep(0.05)
    raise AssertionError(f"{token} is {seen}")


async def test_a_command_runs_detached_and_tells_how_it_ended(server: Server, pool: SshPool) -> None:
    files = server.root / ".cloudmesh/jobs/j/files"
    files.mkdir(parents=True)
    (files / "data").write_text("from the workdir")
    (files.parent / "files.ok").touch()
    began = int(time.time())
    command = ["sh", "-c", 'cat data; echo "$1" >&2; sleep 0.3; exit 3', "sh", "a 'b' $c"]
    await runner.start(pool, server.target(), F, "cm-1", 0, command, files="files")
    assert (await runner.look(pool, server.target(), [(F, "cm-1")]))["cm-1"].state == "Running"
    seen = await until(pool, server, "cm-1", "Ended")
    assert seen.exit_code == 3
    assert seen.began is not None
    assert began <= seen.began <= (seen.ended or 0)
    assert (server.root / F / "cm-1/log").read_text() == "from the workdira 'b' $c\n"


async def test_a_command_waits_for_its_files(server: Server, pool: SshPool) -> None:
    await runner.start(pool, server.target(), F, "cm-1", 0, ["cat", "data"], files="in")
    await asyncio.sleep(0.7)
    assert (await runner.look(pool, server.target(), [(F, "cm-1")]))["cm-1"].state == "Running"
    files = server.root / ".cloudmesh/jobs/j/in"
    files.mkdir()
    (files / "data").write_text("late")
    (files.parent / "in.ok").touch()
    assert (await until(pool, server, "cm-1", "Ended")).exit_code == 0
    assert (server.root / F / "cm-1/log").read_text() == "late"


async def test_a_second_start_of_a_token_does_nothing(server: Server, pool: SshPool) -> None:
    for _ in range(3):
        await runner.start(pool, server.target(), F, "cm-1", 0, ["sh", "-c", "echo x >> count"])
    await asyncio.gather(
        *(runner.start(pool, server.target(), F, "cm-2", 0, ["sh", "-c", "echo x >> count"]) for _ in range(5))
    )
    await until(pool, server, "cm-1", "Ended")
    await until(pool, server, "cm-2", "Ended")
    assert (server.root / F / "count").read_text() == "x\nx\n"


async def test_a_limit_ends_a_command_and_its_children(server: Server, pool: SshPool) -> None:
    await runner.start(pool, server.target(), F, "cm-1", 1, ["sh", "-c", "sleep 30 & echo $! > kid; wait"])
    seen = await until(pool, server, "cm-1", "Ended")
    assert seen.exit_code in runner.TIMED_OUT
    assert not _lives(int((server.root / F / "kid").read_text()))


async def test_stop_ends_a_command(server: Server, pool: SshPool) -> None:
    await runner.start(pool, server.target(), F, "cm-1", 0, ["sh", "-c", "echo $$ > kid; exec sleep 30"])
    for _ in range(100):
        if (server.root / F / "kid").exists():
            break
        await asyncio.sleep(0.05)
    await runner.stop(pool, server.target(), [(F, "cm-1"), (F, "cm-none")])
    seen = await until(pool, server, "cm-1", "Ended")
    assert seen.exit_code != 0
    assert not _lives(int((server.root / F / "kid").read_text()))


async def test_a_process_that_went_without_a_word_is_lost(server: Server, pool: SshPool) -> None:
    await runner.start(pool, server.target(), F, "cm-1", 0, ["sleep", "30"])
    await until(pool, server, "cm-1", "Running")
    for _ in range(100):
        if (server.root / F / "cm-1/work").exists():
            break
        await asyncio.sleep(0.05)
    pid = int((server.root / F / "cm-1/pid").read_text().split()[0])
    os.kill(pid, 9)
    os.kill(int((server.root / F / "cm-1/work").read_text()), 9)
    await until(pool, server, "cm-1", "Lost")


async def test_a_reused_process_number_is_no_sign_of_life(server: Server, pool: SshPool) -> None:
    folder = server.root / F / "cm-1"
    folder.mkdir(parents=True)
    (folder / "pid").write_text(f"{os.getpid()} 12345\n")
    assert (await runner.look(pool, server.target(), [(F, "cm-1")]))["cm-1"].state == "Lost"


async def test_a_marker_without_a_process_is_lost_after_a_minute(server: Server, pool: SshPool) -> None:
    folder = server.root / F / "cm-1"
    folder.mkdir(parents=True)
    assert (await runner.look(pool, server.target(), [(F, "cm-1")]))["cm-1"].state == "Running"
    os.utime(folder, (time.time() - 200, time.time() - 200))
    assert (await runner.look(pool, server.target(), [(F, "cm-1")]))["cm-1"].state == "Lost"


async def test_what_never_started_is_none_also_without_the_script(server: Server, pool: SshPool) -> None:
    assert (await runner.look(pool, server.target(), [(F, "cm-9")]))["cm-9"] == Seen("None")
    (server.root / runner.RUNNER_PATH).unlink()
    assert (await runner.look(pool, server.target(), [(F, "cm-9")]))["cm-9"] == Seen("None")
    await runner.stop(pool, server.target(), [(F, "cm-9")])


async def test_many_are_looked_at_in_one_call(server: Server, pool: SshPool) -> None:
    asked = [(f".cloudmesh/jobs/{'j' * 36}/run-{n:04d}", f"cm-{n:032d}") for n in range(1000)]
    before = len(server.commands)
    found = await runner.look(pool, server.target(), asked)
    assert len(found) == 1000
    assert len(server.commands) == before + 1


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().split()[2]
    return state != "Z"


SRUN = """#!/bin/sh
# both nodes of an allocation: this one, and one whose home is empty
while [ "$1" != sh ]; do echo "$1" >>"$HOME/srun"; shift; done
[ ! -e "$HOME/broken" ] || { echo "srun: error: node lost" >&2; exit 1; }
cat >"$HOME/stdin"
here=$5 token=$6
sh -c "$3" sh "$here" "$token" <"$HOME/stdin" || exit
exec sh -c "$3" sh "$HOME/other" "$token" <"$HOME/stdin"
"""


async def once(server: Server, pool: SshPool, *command: str) -> int:
    (server.root / "bin").mkdir()
    (server.root / "bin/srun").write_text(SRUN)
    (server.root / "bin/srun").chmod(0o755)
    path = f"{server.root}/bin:{os.environ['PATH']}"
    argv = ["env", "SLURM_JOB_NUM_NODES=2", f"PATH={path}", "sh", runner.RUNNER_PATH, "once", F, "cm-1", "0", "in"]
    return (await pool.run(server.target(), [*argv, *command])).status


async def test_the_folder_comes_to_every_node_of_an_allocation(server: Server, pool: SshPool) -> None:
    files = server.root / ".cloudmesh/jobs/j/in"
    files.mkdir(parents=True)
    (files / "data").write_text("from the workdir")
    (files.parent / "in.ok").touch()
    (server.root / F / "checkpoint").mkdir(parents=True)
    (server.root / F / "checkpoint/step").write_text("7")
    assert await once(server, pool, "cat", "data") == 0
    assert (server.root / F / "cm-1/log").read_text() == "from the workdir"
    other = server.root / "other"
    assert sorted(p.name for p in other.iterdir()) == ["checkpoint", "data"]
    assert (other / "checkpoint/step").read_text() == "7"
    assert {"--nodes=2", "--ntasks=2"} <= set((server.root / "srun").read_text().split())


async def test_a_folder_that_does_not_come_to_every_node_is_told(server: Server, pool: SshPool) -> None:
    (server.root / "broken").touch()
    (server.root / ".cloudmesh/jobs/j/in").mkdir(parents=True)
    (server.root / ".cloudmesh/jobs/j/in.ok").touch()
    assert await once(server, pool, "touch", "ran") == 75
    log = (server.root / F / "cm-1/log").read_text()
    assert log == "srun: error: node lost\nthe folder of the run did not come to all nodes\n"
    assert not (server.root / F / "ran").exists()


@pytest.mark.parametrize("oom", [True, False])
async def test_a_command_that_was_killed_because_memory_ran_out(oom: bool, server: Server, pool: SshPool) -> None:
    events = server.root / "memory.events"
    events.write_text("low 0\noom 0\noom_kill 3\n")
    script = runner.RUNNER.replace("/sys/fs/cgroup/memory.events", str(events))
    assert script != runner.RUNNER
    await pool.put(server.target(), {runner.RUNNER_PATH: script.encode()}, mode=0o700)
    count = f"sed -i 's/oom_kill 3/oom_kill 4/' {events}; " if oom else ""
    await runner.start(pool, server.target(), F, "cm-1", 0, ["sh", "-c", count + "kill -9 $$"])
    seen = await until(pool, server, "cm-1", "Ended")
    assert (seen.exit_code, seen.oom) == (137, oom)
