"""Which machines of a cluster reach which: each tries its peers itself, all of them in one command."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap.hosts import Host, for_all, target_of
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import CloudmeshError, Transient

log = logging.getLogger(__name__)

ALL_PAIRS = 16
"""Up to so many machines each tries each other one; of more, the first one and the next ones in a ring."""
NEIGHBOURS = 4
PROBE_SECONDS = 5
SIDE_BY_SIDE = 64
"""Connections that a machine tries at once."""
TOLD_PAIRS = 3
CANNOT_TRY = (126, 127)
"""The machine lacks `bash` or `timeout`: nothing can be said of what it reaches."""

Pair = tuple[Host, Host, int]
"""Who tries, whom, and at which port."""

TRY = f"""\
command -v timeout >/dev/null || exit 127
tried=0
while [ $# -gt 1 ]; do
    {{ timeout {PROBE_SECONDS} bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" || echo "$1 $2"; }} 2>/dev/null &
    shift 2
    tried=$((tried + 1))
    [ $((tried % {SIDE_BY_SIDE})) -ne 0 ] || wait
done
wait
"""
"""Takes addresses and ports in turn, and prints those that can't be reached."""


def pairs_of(hosts: Sequence[Host], fresh: Iterable[Host], first: Host) -> list[tuple[Host, Host]]:
    """The pairs that are to be tried for machines that are new.

    Args:
        hosts: All that can be asked.
        fresh: The new ones: each pair has one of them at an end.
        first: The one that all others need, such as SLURM's controller.
    """
    new = {h.uid for h in fresh}
    if len(hosts) <= ALL_PAIRS:
        found = [(one, other) for one in hosts for other in hosts]
    else:
        ring = [
            (one, hosts[(n + step) % len(hosts)]) for n, one in enumerate(hosts) for step in range(1, NEIGHBOURS + 1)
        ]
        around = {(one.uid, other.uid) for one, other in ring}
        star = [pair for h in hosts for pair in ((h, first), (first, h)) if (pair[0].uid, pair[1].uid) not in around]
        found = ring + star
    return [(one, other) for one, other in found if one.uid != other.uid and (one.uid in new or other.uid in new)]


@dataclass(slots=True)
class Met:
    """What was proved: a pair that met isn't tried again while both ends live on."""

    _pairs: set[tuple[tuple[str, str, str], tuple[str, str, str], int]] = field(default_factory=set)

    async def try_all(
        self, ssh: Ssh, access: ClusterAccess, pairs: Iterable[Pair]
    ) -> tuple[list[Pair], dict[str, str]]:
        """Tries the pairs that haven't met yet, with one command a machine.

        Returns:
            Those that fail; and why machines can't be asked, by uid.
        """
        asked: dict[str, list[Pair]] = defaultdict(list)
        by_uid: dict[str, Host] = {}
        for one, other, port in pairs:
            if (_life(one), _life(other), port) not in self._pairs:
                asked[one.uid].append((one, other, port))
                by_uid[one.uid] = one
        found = await for_all(by_uid.values(), lambda host: _try(ssh, access, host, asked[host.uid]))
        failed, silent = [], {}
        for uid, answer in found.items():
            if isinstance(answer, CloudmeshError):
                silent[uid] = str(answer)
                continue
            for one, other, port in asked[uid]:
                if f"{other.address} {port}" in answer:
                    failed.append((one, other, port))
                else:
                    self._pairs.add((_life(one), _life(other), port))
        return failed, silent

    def keep(self, hosts: Iterable[Host]) -> None:
        """Forgets machines that are gone, or have started anew."""
        lives = {_life(h) for h in hosts}
        self._pairs = {pair for pair in self._pairs if pair[0] in lives and pair[1] in lives}


def blame(failed: Sequence[Pair], new: Sequence[Host]) -> dict[str, str]:
    """Which new machines are cut off, by uid, and from whom: those with the most failures, so that few are named.

    Args:
        failed: Pairs that don't meet.
        new: The machines that may be named; of equal ones the last.
    """
    by_end: dict[str, list[Pair]] = defaultdict(list)
    for pair in failed:
        for end in pair[:2]:
            by_end[end.uid].append(pair)
    ranks = {h.uid: rank for rank, h in enumerate(new)}
    told: dict[str, str] = {}
    for uid in sorted(ranks, key=lambda uid: (len(by_end[uid]), ranks[uid]), reverse=True):
        its = [(one, other, port) for one, other, port in by_end[uid] if not {one.uid, other.uid} & set(told)]
        if its:
            told[uid] = _words(its)
    return told


async def _try(ssh: Ssh, access: ClusterAccess, host: Host, pairs: Sequence[Pair]) -> set[str]:
    argv = [word for _, other, port in pairs for word in (other.address, str(port))]
    rounds = 1 + len(pairs) // SIDE_BY_SIDE
    done = await ssh.run(
        target_of(host, access), ["bash", "-c", TRY, "bash", *argv], seconds=rounds * PROBE_SECONDS + 15
    )
    if done.status in CANNOT_TRY:
        log.info("peers can't be tried", extra={"machine": host.name, "error": done.complaint})
    elif done.status != 0:
        raise Transient(f"{host.name} can't try its peers: {done.complaint}")
    return set(done.text.splitlines())


def _words(pairs: Sequence[Pair]) -> str:
    told = "; ".join(
        f"{one.name} ({one.address}) can't reach {other.name} ({other.address}:{port})"
        for one, other, port in pairs[:TOLD_PAIRS]
    )
    more = len(pairs) - TOLD_PAIRS
    return told if more <= 0 else f"{told}; and {more} more"


def _life(host: Host) -> tuple[str, str, str]:
    return host.uid, host.boot_id, host.address
