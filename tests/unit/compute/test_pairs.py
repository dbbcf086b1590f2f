"""Pairs of machines that are tried: how many, by which command, and who is named when some don't meet."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from contextlib import closing
from itertools import pairwise

import pytest
from tests.unit.compute.fake_ssh import FakeSsh
from tests.unit.compute.test_access import machine
from tests.unit.compute.test_bootstrap import ACCESS

from cloudmesh.compute.bootstrap.hosts import Host, hosts_of
from cloudmesh.compute.bootstrap.pairs import ALL_PAIRS, NEIGHBOURS, PROBE_SECONDS, TRY, Met, blame, pairs_of
from cloudmesh.compute.ssh import Output
from cloudmesh.testing import run_virtual


def hosts(count: int) -> tuple[Host, ...]:
    return hosts_of(
        [machine(n, boot_id="1", private_address=f"10.0.{n // 250}.{n % 250 + 1}") for n in range(count)], ["w"]
    )


def test_few_machines_all_meet_all() -> None:
    some = hosts(ALL_PAIRS)
    assert len(pairs_of(some, some, some[0])) == ALL_PAIRS * (ALL_PAIRS - 1)
    assert len(pairs_of(some, some[-1:], some[0])) == 2 * (ALL_PAIRS - 1)
    assert pairs_of(some, [], some[0]) == []


@pytest.mark.parametrize("count", [ALL_PAIRS + 1, 500])
def test_of_many_machines_each_meets_the_first_and_its_neighbours(count: int) -> None:
    many = hosts(count)
    found = [(one.uid, other.uid) for one, other in pairs_of(many, many, many[0])]
    assert len(found) == len(set(found))
    tried = Counter(one for one, other in found if other != "m-0")
    assert all(tried[h.uid] in (NEIGHBOURS, NEIGHBOURS - 1) for h in many[1:])
    for one, other in pairwise(many):
        assert (one.uid, other.uid) in found
    for h in many[1:]:
        assert {(h.uid, "m-0"), ("m-0", h.uid)} <= set(found)
    assert len(pairs_of(many, many[7:8], many[0])) == 2 * NEIGHBOURS + 2


def test_few_are_named_where_some_do_not_meet() -> None:
    some = hosts(6)
    cut_off = [pair for pair in pairs_of(some, some, some[0]) if some[2] in pair]
    told = blame([(one, other, 22) for one, other in cut_off], some)
    assert set(told) == {"m-2"}
    assert told["m-2"].endswith("; and 7 more")
    assert set(blame([(some[1], some[4], 22)], some)) == {"m-4"}
    assert set(blame([(some[1], some[4], 22)], some[:2])) == {"m-1"}
    assert blame([], some) == {}


def test_a_machine_that_started_anew_is_tried_again_and_one_that_lacks_bash_is_not_blamed() -> None:
    async def main() -> None:
        ssh, met = FakeSsh(), Met()
        one, other = hosts(2)
        for host in (one, other):
            ssh.add(host.host, host.name)
            ssh.machines[host.address] = ssh.machines[host.host]
        assert await met.try_all(ssh, ACCESS, [(one, other, 22)]) == ([], {})
        await met.try_all(ssh, ACCESS, [(one, other, 22)])
        assert len(ssh.calls) == 1
        (anew,) = hosts_of([machine(1, boot_id="2", private_address=other.address)], ["w"])
        met.keep([one, anew])
        await met.try_all(ssh, ACCESS, [(one, anew, 22), (one, other, 22)])
        assert len(ssh.calls) == 2
        ssh.at(one.name).up = False
        failed, silent = await met.try_all(ssh, ACCESS, [(one, other, 23)])
        assert not failed
        assert "can't be reached" in silent[one.uid]

        async def no_bash(*_: object, **__: object) -> Output:
            return Output(127, b"", b"bash: not found")

        ssh.run = no_bash  # type: ignore[assignment]
        assert await Met().try_all(ssh, ACCESS, [(one, other, 24)]) == ([], {})

    run_virtual(main())


def test_the_command_tells_what_cannot_be_reached_and_tries_side_by_side() -> None:
    async def main() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server, closing(socket.socket()) as closed:
            closed.bind(("127.0.0.1", 0))
            open_, shut = str(server.getsockname()[1]), str(closed.getsockname()[1])
            # 192.0.2.0/24 is nobody's: it is refused at once, or silent for the whole limit
            silent = [word for n in range(1, 30) for word in (f"192.0.2.{n}", "22")]
            argv = ["127.0.0.1", open_, *silent, "127.0.0.1", shut]
            begun = time.monotonic()
            done = await asyncio.create_subprocess_exec(
                "bash", "-c", TRY, "bash", *argv, stdout=asyncio.subprocess.PIPE
            )
            text, _ = await done.communicate()
        assert done.returncode == 0
        lines = set(text.decode().splitlines())
        assert f"127.0.0.1 {open_}" not in lines
        assert f"127.0.0.1 {shut}" in lines
        assert "192.0.2.1 22" in lines
        assert time.monotonic() - begun < 10 * PROBE_SECONDS  # one after the other they take 29

    asyncio.run(main())
