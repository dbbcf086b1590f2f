"""The back end of the memory provider: a cloud in this process, with the habits of the real ones.

It boots after a while, lists what it has with a lag and in pages, runs out of room at once or too late, forgets what
ended, and loses answers when told to. Nothing runs in the background: what is due happens at the next look.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloudmesh.compute.ports import NodeState
from cloudmesh.compute.providers.memory.faults import Fault, Faults
from cloudmesh.compute.providers.memory.instance import BILLED, CloudError, ConnectionLost, Instance, Order, Page
from cloudmesh.compute.providers.memory.meter import Meter
from cloudmesh.compute.providers.memory.resources import Holding, Resources
from cloudmesh.compute.providers.memory.shelf import Shelf
from cloudmesh.compute.providers.memory.stock import Row, Stock
from cloudmesh.policy.model import HOURS_A_MONTH

T = TypeVar("T")


@dataclass(slots=True)
class Habits:
    """How the cloud behaves; change it at any time.

    Args:
        boot_seconds: From the create call to Running, or to Failed.
        stop_seconds: From a stop to Stopped.
        delete_seconds: From a delete to the end.
        ends_failed: A machine that finds no room after the call ends by itself, as on EC2; else it stays, failed.
        ended_seconds: How long listings show what has ended; 0 for not at all.
        list_lag_seconds: A new machine isn't in listings before.
        find_lag_seconds: Nor is it found by token or id before.
        latency_seconds: Each call takes so long.
        page_size: Machines a page at most.
        native_tokens: One create token makes one machine.
        unique_names: A name can be had once.
        calls_per_second: Calls over it are refused; 0 for no limit.
    """

    boot_seconds: float = 2.0
    stop_seconds: float = 1.0
    delete_seconds: float = 1.0
    ends_failed: bool = False
    ended_seconds: float = 60.0
    list_lag_seconds: float = 0.0
    find_lag_seconds: float = 0.0
    latency_seconds: float = 0.0
    page_size: int = 1000
    native_tokens: bool = True
    unique_names: bool = False
    calls_per_second: int = 0


class MemoryCloud:
    """One cloud; providers of several accounts may share it.

    Args:
        name: Name.
        stock: What it sells; a small catalogue when None.
        habits: How it behaves.
        clock: Seconds since the epoch; when None, the event loop's time, so that it follows a virtual loop.
        key: The only API key that it takes; any when empty.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        stock: Stock | None = None,
        habits: Habits | None = None,
        clock: Callable[[], float] | None = None,
        key: str = "",
    ) -> None:
        self.name = name
        self.stock = stock if stock is not None else Stock()
        self.habits = habits if habits is not None else Habits()
        self.faults = Faults()
        self.meter = Meter()
        self.resources = Resources()
        self.key = key
        self.images: dict[str, str] = {"debian-12": "amd64", "ubuntu-24.04": "amd64", "debian-12-arm64": "arm64"}
        """Image ids and their architectures; the first of each is its default."""
        self.quotas: dict[tuple[str, str], int] = {}
        """Thousandths of vCPU that may be in use, by region and name of the quota."""
        self.gib_month_nanos = 0
        """What a GiB of a disk costs a month; to be set before there are machines."""
        self.calls: Counter[str] = Counter()
        """How often each operation was asked for."""
        self._clock = clock
        self._wall: tuple[float, float] | None = None
        self._shelf = Shelf()
        self._due: list[tuple[float, int, str, str]] = []
        self._serial = 0
        self._second = (0, 0)

    def __repr__(self) -> str:
        return f"MemoryCloud({self.name!r}, {len(self._shelf)} machines)"

    def now(self) -> float:
        """Seconds since the epoch."""
        if self._clock is not None:
            return self._clock()
        try:
            monotonic = asyncio.get_running_loop().time()
        except RuntimeError:
            monotonic = self._wall[1] if self._wall is not None else 0.0
        if self._wall is None:
            self._wall = (time.time(), monotonic)
        return self._wall[0] + monotonic - self._wall[1]

    async def request(self, operation: str, act: Callable[[], T], key: str = "") -> T:
        """Plays one call over the network.

        Raises:
            CloudError: The cloud says no.
            ConnectionLost: Nobody says anything.
        """
        self.calls[operation] += 1
        fault = self.faults.take(operation)
        if fault is not None and fault.action == "late":
            asyncio.get_running_loop().call_later(fault.delay_seconds, self._arrive, act, key)
            raise ConnectionLost("connection reset by peer")
        await asyncio.sleep(self.habits.latency_seconds + (fault.delay_seconds if fault else 0.0))
        if fault is not None and fault.action in ("refuse", "drop", "hang"):
            await _fail(fault)
        self._admit(key)
        self.advance()
        result = act()
        if fault is None:
            return result
        if fault.action == "twice":
            result = act()
        await asyncio.sleep(fault.answer_seconds)
        if fault.action in ("lose", "fail-after", "hang-after"):
            await _fail(fault)
        return result

    def _arrive(self, act: Callable[[], object], key: str) -> None:
        """A call whose caller has gone is done; nobody hears the answer."""
        with contextlib.suppress(CloudError):
            self._admit(key)
            self.advance()
            act()

    def _admit(self, key: str) -> None:
        if self.key and key != self.key:
            raise CloudError("InvalidKey", "the API key is not known here")
        if self.habits.calls_per_second:
            second, count = int(self.now()), 1
            if second == self._second[0]:
                count += self._second[1]
            self._second = (second, count)
            if count > self.habits.calls_per_second:
                raise CloudError("TooManyRequests", "too many calls", retry_after=1.0)

    # -- time -----------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Lets happen what is due."""
        now = self.now()
        while self._due and self._due[0][0] <= now:
            due, _, node_id, event = heapq.heappop(self._due)
            if (instance := self._shelf.get(node_id)) is not None:
                self._happen(instance, event, due)

    def _later(self, seconds: float, node_id: str, event: str) -> None:
        self._serial += 1
        heapq.heappush(self._due, (self.now() + seconds, self._serial, node_id, event))

    def _happen(self, instance: Instance, event: str, when: float) -> None:
        if event == "list":
            self._shelf.put(instance.with_(listed=True))
        elif event == "boot" and instance.state == "Pending":
            if instance.failure and self.habits.ends_failed:
                self._end(instance, when)
            else:
                self._set(instance, "Failed" if instance.failure else "Running", when)
        elif event == "stop" and instance.state == "Stopping":
            self._set(instance, "Stopped", when)
        elif event == "end" and instance.state == "Deleting":
            self._end(instance, when)
        elif event == "forget":
            self._shelf.remove(instance)

    def _set(self, instance: Instance, state: NodeState, when: float, **changes: object) -> Instance:
        changed = instance.with_(state=state, **changes)
        self._shelf.put(changed)
        self.meter.change(instance.id, when, self._rate(changed))
        return changed

    def _end(self, instance: Instance, when: float) -> None:
        row = self._row(instance)
        if row.free is not None and not instance.failure:
            row.free += 1
        self.resources.forget_node(instance.id)
        self._set(instance, "Deleted", when, ended=when)
        self.meter.end(instance.id, when)
        if self.habits.ended_seconds > 0:
            self._later(self.habits.ended_seconds, instance.id, "forget")
        else:
            self._shelf.remove(instance)

    def _rate(self, instance: Instance) -> int:
        """Nano-units per hour: the machine unless it's stopped, and its disk as long as there is one."""
        disk = instance.disk_gib * self.gib_month_nanos / HOURS_A_MONTH if instance.ended is None else 0
        return (self._row(instance).hourly_nanos if instance.state in BILLED else 0) + math.ceil(disk)

    def _row(self, instance: Instance) -> Row:
        return self.stock.rows[(instance.type, instance.region, instance.zone, instance.purchase)]

    # -- what the API offers --------------------------------------------------------------------------------------

    def run_instance(self, order: Order) -> Instance:
        """Makes a machine.

        Raises:
            CloudError: No room, over the quota, nonsense, or the token or name is taken.
        """
        order = dataclasses.replace(order, image=order.image or self._default(order))
        if order.client_token and self.habits.native_tokens:
            for made in self._shelf.by_token(order.client_token):
                if not order.same_as(made):
                    raise CloudError("TokenMismatch", f"the token {order.client_token} was used for another order")
                return made
        if self.habits.unique_names and any(i.name == order.name and i.ended is None for i in self._shelf):
            raise CloudError("NameTaken", f"there is a machine {order.name!r}")
        row = self._check_order(order)
        late = False
        if row.free is not None:
            if row.free > 0:
                row.free -= 1
            elif row.fails_late:
                late = True
            else:
                raise CloudError("InsufficientCapacity", f"no room for {row.type} {row.purchase} in {row.zone}")
        return self._make(order, row, failure="InsufficientCapacity" if late else "")

    def _default(self, order: Order) -> str:
        row = self.stock.rows.get((order.type, order.region, order.zone, order.purchase))
        return next(image for image, arch in self.images.items() if row is None or arch == row.arch)

    def _check_order(self, order: Order) -> Row:
        row = self.stock.rows.get((order.type, order.region, order.zone, order.purchase))
        if row is None:
            for name, value, known in (
                ("machine type", order.type, self.stock.types()),
                ("region", order.region, self.stock.regions()),
            ):
                if value not in known:
                    raise CloudError("InvalidParameter", f"there is no {name} {value!r}")
            raise CloudError("NotOffered", f"{order.type} {order.purchase} isn't sold in {order.zone or 'no zone'!r}")
        if order.image not in self.images:
            raise CloudError("InvalidParameter", f"there is no image {order.image!r}")
        if (arch := self.images[order.image]) != row.arch:
            raise CloudError("InvalidParameter", f"{order.image!r} is for {arch}, and {order.type} is {row.arch}")
        limit = self.quotas.get((row.region, row.quota))
        if limit is not None:
            used = sum(
                self._row(instance).milli_vcpu
                for instance in self._shelf
                if instance.region == row.region and instance.ended is None and self._row(instance).quota == row.quota
            )
            if used + row.milli_vcpu > limit:
                raise CloudError("QuotaExceeded", f"the quota {row.quota} of {row.region} is {limit / 1000:g} vCPU")
        return row

    def _make(self, order: Order, row: Row, failure: str = "") -> Instance:
        self._serial += 1
        number, now, habits = self._serial, self.now(), self.habits
        instance = Instance(
            id=f"mi-{number:09d}",
            name=order.name,
            client_token=order.client_token,
            tags=dict(order.tags),
            type=order.type,
            region=order.region,
            zone=order.zone,
            purchase=order.purchase,
            image=order.image,
            state="Pending",
            created=now,
            private_address=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            listed=habits.list_lag_seconds <= 0,
            public_address=f"203.0.113.{number & 255}" if order.public_address else "",
            boot_id=f"boot-{number}",
            groups=order.groups,
            disk_gib=order.disk_gib,
            authorized_keys=order.authorized_keys,
            host_key=order.host_key,
            failure=failure,
        )
        self._shelf.put(instance)
        self.meter.start(instance.id, order.client_token, order.tags, now, self._rate(instance))
        if not instance.listed:
            self._later(habits.list_lag_seconds, instance.id, "list")
        if habits.boot_seconds > 0:
            self._later(habits.boot_seconds, instance.id, "boot")
            return instance
        return self._set(instance, "Failed" if failure else "Running", now)

    def list_instances(self, filters: Mapping[str, str], mark: str = "") -> Page:
        """One page of the machines with these tags, oldest first."""
        found = self._shelf.listed({} if self.faults.filters_ignored else filters)
        page, next_mark = self._shelf.page(found, mark, self.habits.page_size)
        number = 1 + sum(each.id <= mark for each in found) // self.habits.page_size if self.faults.failing_page else 0
        if number and number == self.faults.failing_page:
            raise CloudError("InternalError", f"page {number} can't be read")
        warning = ""
        if missing := self.faults.unreachable_zone:
            page = tuple(instance for instance in page if instance.zone != missing)
            warning = f"the zone {missing} didn't answer"
        if self.faults.listing_repeats and mark and (before := self._shelf.get(mark)) is not None:
            page = (before, *page)
        return Page(page, next_mark, warning)

    def get_instance(self, node_id: str) -> Instance:
        """A machine by its id.

        Raises:
            CloudError: `InstanceNotFound`.
        """
        instance = self._shelf.get(node_id)
        if instance is None or instance.created + self.habits.find_lag_seconds > self.now():
            raise CloudError("InstanceNotFound", f"there is no machine {node_id}")
        return instance

    def find_instances(self, token: str) -> tuple[Instance, ...]:
        """Machines of a create token, oldest first; all machines if the cloud ignores filters."""
        before = self.now() - self.habits.find_lag_seconds
        found = self._shelf if self.faults.filters_ignored else self._shelf.by_token(token)
        return tuple(instance for instance in found if instance.created <= before)

    def terminate(self, node_id: str) -> None:
        """Begins a machine's end.

        Raises:
            CloudError: `InstanceNotFound`.
        """
        instance = self.get_instance(node_id)
        if instance.state in ("Deleting", "Deleted"):
            return
        if self.habits.delete_seconds > 0:
            self._set(instance, "Deleting", self.now())
            self._later(self.habits.delete_seconds, node_id, "end")
        else:
            self._end(instance, self.now())

    def change_power(self, node_id: str, allowed: Sequence[NodeState], state: NodeState) -> None:
        """Takes a machine from one of some states to another; already there is fine.

        Raises:
            CloudError: `InstanceNotFound`, or `WrongState`.
        """
        instance = self.get_instance(node_id)
        if instance.state == state or (state == "Stopping" and instance.state == "Stopped"):
            return
        if instance.state not in allowed:
            raise CloudError("WrongState", f"{node_id} is {instance.state}, not {' or '.join(allowed)}")
        self._set(instance, state, self.now())
        if state == "Stopping":
            self._later(self.habits.stop_seconds, node_id, "stop")

    def start(self, node_id: str) -> None:
        """Starts a stopped machine; one that runs is fine.

        Raises:
            CloudError: `InstanceNotFound`, or `WrongState`.
        """
        instance = self.get_instance(node_id)
        if instance.state in ("Pending", "Running"):
            return
        if instance.state != "Stopped":
            raise CloudError("WrongState", f"{node_id} is {instance.state}, not Stopped")
        self._serial += 1
        self._set(instance, "Pending", self.now(), boot_id=f"boot-{self._serial}")
        self._later(self.habits.boot_seconds, node_id, "boot")

    def reboot(self, node_id: str) -> None:
        """Starts a running machine anew; it stays Running all the while, as clouds have it.

        Raises:
            CloudError: `InstanceNotFound`, or `WrongState`.
        """
        instance = self.get_instance(node_id)
        if instance.state != "Running":
            raise CloudError("WrongState", f"{node_id} is {instance.state}, not Running")
        self._serial += 1
        self.change(node_id, boot_id=f"boot-{self._serial}")

    def resize(self, node_id: str, type_: str) -> None:
        """Gives a stopped machine another type.

        Raises:
            CloudError: `InstanceNotFound`, `WrongState`, `InvalidParameter` or `NotOffered`.
        """
        instance = self.get_instance(node_id)
        if type_ not in self.stock.types():
            raise CloudError("InvalidParameter", f"there is no machine type {type_!r}")
        if (type_, instance.region, instance.zone, instance.purchase) not in self.stock.rows:
            raise CloudError("NotOffered", f"{type_} isn't sold in {instance.zone}")
        if instance.state != "Stopped":
            raise CloudError("WrongState", f"{node_id} is {instance.state}, not Stopped")
        self._set(instance, "Stopped", self.now(), type=type_)

    def change(self, node_id: str, **changes: object) -> Instance:
        """Changes fields of a machine, such as its name.

        Raises:
            CloudError: `InstanceNotFound`.
        """
        changed = self.get_instance(node_id).with_(**changes)
        self._shelf.put(changed)
        return changed

    def change_tags(self, node_id: str, tags: Mapping[str, str], removed: Sequence[str] = ()) -> Instance:
        """Sets tags and takes others off.

        Raises:
            CloudError: `InstanceNotFound`.
        """
        kept = {key: value for key, value in self.get_instance(node_id).tags.items() if key not in removed}
        return self.change(node_id, tags={**kept, **tags})

    def console(self, node_id: str) -> str:
        """What a machine has written.

        Raises:
            CloudError: `InstanceNotFound`.
        """
        instance = self.get_instance(node_id)
        return "" if instance.state == "Pending" else f"{instance.name} started as {instance.boot_id}\n"

    def bind(self, kind: dict[str, Holding], holding_id: str, node_id: str) -> None:
        """Binds an address or a volume to a machine.

        Raises:
            CloudError: `InstanceNotFound`, `InvalidParameter` or `InUse`.
        """
        self.resources.bind(kind, holding_id, self.get_instance(node_id).id)

    def delete_group(self, name: str) -> bool:
        """Deletes a firewall unless a machine has it."""
        group = self.resources.groups.get(name)
        if group is None:
            return True
        if any(group.id in instance.groups and instance.ended is None for instance in self._shelf):
            return False
        del self.resources.groups[name]
        return True

    # -- what a test does behind the product's back ------------------------------------------------------------------

    def instances(self) -> list[Instance]:
        """All machines as they are at this moment, whether listings show them or not, the ended ones included."""
        self.advance()
        return list(self._shelf)

    def living(self) -> list[Instance]:
        """All machines that haven't ended."""
        return [instance for instance in self.instances() if instance.ended is None]

    def make_by_hand(
        self, *, name: str = "stranger", tags: Mapping[str, str] | None = None, row: Row | None = None
    ) -> Instance:
        """A machine that the product didn't make."""
        row = row or next(iter(self.stock.rows.values()))
        return self._make(Order(name, "", dict(tags or {}), *row.place, image=next(iter(self.images))), row)

    def set_free(
        self, free: int | None, *, late: bool = False, type_: str = "", zone: str = "", purchase: str = ""
    ) -> int:
        """Leaves room for so many machines in all rows that match, refusing more at the call or, `late`, after it.

        Returns:
            The number of rows.
        """
        rows = [
            row
            for row in self.stock.rows.values()
            if type_ in ("", row.type) and zone in ("", row.zone) and purchase in ("", row.purchase)
        ]
        for row in rows:
            row.free, row.fails_late, row.tell_free = free, late, not late
        return len(rows)

    def reclaim(self, node_id: str) -> None:
        """Takes a spot machine away."""
        instance = self.get_instance(node_id).with_(details={"preempted": "true"})
        self._set(instance, "Deleting", self.now())
        self._later(self.habits.delete_seconds, node_id, "end")

    def vanish(self, node_id: str) -> None:
        """Ends a machine at once without any trace in listings."""
        instance = self.get_instance(node_id)
        self._end(instance, self.now())
        self._shelf.remove(instance)

    def freeze_listings(self) -> None:
        """Listings show this moment until `thaw_listings`."""
        self.advance()
        self._shelf.freeze()

    def thaw_listings(self) -> None:
        """Listings are current again."""
        self._shelf.thaw()


async def _fail(fault: Fault) -> None:
    if fault.action in ("refuse", "fail-after"):
        raise CloudError(fault.code, fault.message, fault.retry_after)
    if fault.action in ("hang", "hang-after"):
        await asyncio.get_running_loop().create_future()
    raise ConnectionLost("connection reset by peer")
