"""The elector, on virtual time: never two leaders, quick hand-over."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from cloudmesh.engine import LEASE, Elector, Kube, LeaseLost, Metrics
from cloudmesh.testing import Faults, FaultyTransport, MemoryApi, run_virtual


class Candidate:
    """Acquires, holds and, when it loses, stays dead."""

    def __init__(self, api: MemoryApi, name: str, *, seed: int = 1) -> None:
        self.faults = Faults()
        self.metrics = Metrics()
        kube = Kube(FaultyTransport(api, self.faults))
        self.elector = Elector(kube, "cm", "lease", name, metrics=self.metrics, rng=random.Random(seed))
        self.leading = asyncio.Event()
        self.lost = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.elector.acquire()
        self.leading.set()
        try:
            await self.elector.hold()
        except LeaseLost:
            self.leading.clear()
            self.lost.set()

    async def kill(self) -> None:
        """As kill -9 does: no release."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.leading.clear()

    async def terminate(self) -> None:
        await self.kill()
        await self.elector.release()


def now() -> float:
    return asyncio.get_running_loop().time()


def test_the_first_creates_and_the_second_waits() -> None:
    async def main() -> None:
        api = MemoryApi()
        first = Candidate(api, "one")
        await first.leading.wait()
        second = Candidate(api, "two")
        await asyncio.sleep(600)
        assert first.leading.is_set()
        assert not second.leading.is_set()
        spec = api.get(LEASE, "cm", "lease")["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("one", 12)
        assert "cloudmesh_leader 1.0" in first.metrics.text().decode()
        renewals = first.faults.count("PUT")
        assert 290 <= renewals <= 340, "every two seconds"
        for candidate in (first, second):
            await candidate.kill()

    run_virtual(main())


@pytest.mark.parametrize("seed", range(6))
def test_take_over_after_a_kill_within_15_seconds(seed: int) -> None:
    async def main() -> None:
        api = MemoryApi()
        first = Candidate(api, "one", seed=seed)
        await first.leading.wait()
        second = Candidate(api, "two", seed=seed + 100)
        await asyncio.sleep(20 + seed * 0.37)
        begin = now()
        valid_until = first.elector.valid_until
        await first.kill()
        await second.leading.wait()
        assert now() >= valid_until, "never before the old one's lease has run out"
        assert now() - begin <= 13.5
        assert api.get(LEASE, "cm", "lease")["spec"]["leaseTransitions"] == 1
        await second.kill()

    run_virtual(main())


def test_take_over_after_a_release_is_immediate() -> None:
    async def main(*, with_watch: bool) -> float:
        api = MemoryApi()
        first = Candidate(api, "one")
        await first.leading.wait()
        second = Candidate(api, "two")
        if not with_watch:
            second.faults.add("answer", path="watch=true", status=500, times=None)
        await asyncio.sleep(20.3)
        begin = now()
        await first.terminate()
        assert not first.elector.is_valid()
        await second.leading.wait()
        took = now() - begin
        await second.kill()
        return took

    assert run_virtual(main(with_watch=True)) < 0.1
    assert run_virtual(main(with_watch=False)) <= 1.1


@pytest.mark.parametrize("fault", ["hang", "drop", "answer"])
def test_a_leader_that_can_t_renew_steps_down_before_anybody_takes_over(fault: str) -> None:
    async def main() -> None:
        api = MemoryApi()
        first = Candidate(api, "one")
        await first.leading.wait()
        second = Candidate(api, "two")
        await asyncio.sleep(30)
        first.faults.add(fault, times=None)
        begin, valid_until = now(), first.elector.valid_until
        await first.lost.wait()
        assert now() - begin <= 8.0 + 0.1
        assert now() < valid_until
        assert not second.leading.is_set()
        await second.leading.wait()
        assert now() >= valid_until
        assert now() - begin <= 15
        for candidate in (first, second):
            await candidate.kill()

    run_virtual(main())


def test_a_stopped_process_that_wakes_up_does_nothing_more() -> None:
    async def main() -> None:
        api = MemoryApi()
        first = Candidate(api, "one")
        await first.leading.wait()
        asyncio.get_running_loop().advance(30)  # SIGSTOP: time passes, nothing runs
        assert not first.elector.is_valid()
        writes = api.writes(LEASE)
        await first.lost.wait()
        assert api.writes(LEASE) == writes

    run_virtual(main())


def test_a_stolen_lease_is_noticed_at_the_next_renewal() -> None:
    async def main() -> None:
        api = MemoryApi()
        first = Candidate(api, "one")
        await first.leading.wait()
        lease = api.get(LEASE, "cm", "lease")
        api.put(LEASE, lease | {"spec": lease["spec"] | {"holderIdentity": "thief"}})
        begin = now()
        await first.lost.wait()
        assert now() - begin <= 2.5

    run_virtual(main())


def test_lost_answers_of_own_renewals_don_t_depose() -> None:
    async def main() -> None:
        api = MemoryApi()
        first = Candidate(api, "one")
        await first.leading.wait()
        first.faults.add("lose", method="PUT", times=6, skip=3)
        await asyncio.sleep(120)
        assert first.leading.is_set()
        assert first.elector.is_valid(6.0)
        await first.kill()

    run_virtual(main())


def test_a_lost_answer_of_the_creation_is_found_again() -> None:
    async def main() -> None:
        api = MemoryApi()
        first = Candidate(api, "one")
        first.faults.add("lose", method="POST")
        begin = now()
        await first.leading.wait()
        assert now() - begin < 3
        await first.kill()

    run_virtual(main())


def test_of_many_candidates_one_leads_at_any_time() -> None:
    async def main(seed: int) -> None:
        api = MemoryApi(latency_seconds=0.02)
        rng = random.Random(seed)
        candidates = [Candidate(api, f"c{number}", seed=seed * 10 + number) for number in range(4)]
        for step in range(200):
            await asyncio.sleep(rng.random())
            valid = [c for c in candidates if c.leading.is_set() and c.elector.is_valid()]
            assert len(valid) <= 1
            if step % 40 == 20 and valid:
                candidates.remove(valid[0])
                await (valid[0].terminate() if rng.random() < 0.5 else valid[0].kill())
                candidates.append(Candidate(api, f"n{step}", seed=step))
            elif step % 40 == 39 and valid:
                valid[0].faults.add(rng.choice(["hang", "drop", "lose"]), times=rng.randrange(1, 8))
        for candidate in candidates:
            await candidate.kill()

    for seed in range(4):
        run_virtual(main(seed), seed=seed)


def test_release_gives_up_on_a_dead_server() -> None:
    async def main() -> None:
        api = MemoryApi()
        first = Candidate(api, "one")
        await first.leading.wait()
        first.faults.add("hang", times=None)
        begin = now()
        await first.terminate()
        assert now() - begin <= 1.0
        await first.elector.release()

    run_virtual(main())


def test_times_must_rise() -> None:
    async def main() -> None:
        with contextlib.suppress(TypeError), pytest.raises(ValueError, match="must rise"):
            Elector(Kube(MemoryApi()), "cm", "lease", "x", duration_seconds=5, renew_seconds=8)

    run_virtual(main())
