"""The suite is worth something: each of these providers has one defect that real ones had, and a case that sees it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from cloudmesh.compute.ports import Complete, Node, Provider
from cloudmesh.compute.providers.memory.instance import CloudError
from cloudmesh.compute.tokens import TAG_TOKEN
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, RateLimited, Transient
from cloudmesh.testing.providers import CASES, run_case
from cloudmesh.testing.providers.memory import GOOD, MemoryHarness
from cloudmesh.testing.virtualtime import VirtualLoop

Spoil = Callable[[Any], None]
DEFECTS: dict[str, tuple[Spoil, tuple[str, ...]]] = {}


def defect(*cases: str) -> Callable[[Spoil], Spoil]:
    """Registers a defect and the cases that must see it."""

    def keep(spoil: Spoil) -> Spoil:
        DEFECTS[spoil.__name__] = (spoil, cases)
        return spoil

    return keep


def around(provider: Any, method: str, wrapper: Callable[..., Any]) -> None:
    """Puts a wrapper around an async method; it gets the old one first."""
    old = getattr(provider, method)

    async def call(*args: Any) -> Any:
        return await wrapper(old, *args)

    setattr(provider, method, call)


@defect("list/middle-page-fails", "list/last-page-fails", "list/partial")
def calls_a_partial_listing_complete(provider: Any) -> None:
    async def listing(old: Any, scope: Any) -> Any:
        found = await old(scope)
        return Complete(found.nodes, found.as_of)

    around(provider, "list_nodes", listing)


@defect("list/fails", "list/dropped", "errors/auth-list", "errors/revoked", "list/first-page-fails")
def reads_a_failed_listing_as_empty(provider: Any) -> None:
    async def listing(old: Any, scope: Any) -> Any:
        try:
            return await old(scope)
        except CloudmeshError:
            return Complete((), "2026-01-01T00:00:00Z")

    around(provider, "list_nodes", listing)


@defect("list/filter-ignored", "find/filter-ignored")
def trusts_filters(provider: Any) -> None:
    async def listing(old: Any, scope: Any) -> Any:
        from cloudmesh.compute.providers.memory.provider import to_node

        page = await provider.call("ListInstances", lambda: provider.cloud.list_instances(scope.tags()))
        return Complete(tuple(to_node(each) for each in page.instances), "2026-01-01T00:00:00Z")

    async def find(old: Any, spec: Any) -> Any:
        from cloudmesh.compute.providers.memory.provider import to_node

        found = await provider.call("FindInstances", lambda: provider.cloud.find_instances(spec.token))
        return to_node(found[0]) if found else None

    around(provider, "list_nodes", listing)
    around(provider, "find_node", find)


@defect("list/repeats")
def lists_a_machine_twice(provider: Any) -> None:
    async def listing(old: Any, scope: Any) -> Any:
        found = await old(scope)
        return dataclasses.replace(found, nodes=found.nodes + found.nodes[:1])

    around(provider, "list_nodes", listing)


@defect("find/failure-is-no-absence", "find/dropped", "errors/auth-find")
def reads_a_failed_look_up_as_none(provider: Any) -> None:
    async def find(old: Any, spec: Any) -> Any:
        try:
            return await old(spec)
        except CloudmeshError:
            return None

    around(provider, "find_node", find)


@defect("create/same-token", "create/lost-answer", "create/concurrent", "create/next-process", "create/fails-but-made")
def makes_a_new_token_for_each_call(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        run = provider.cloud.run_instance

        def fresh(order: Any) -> Any:
            return run(dataclasses.replace(order, client_token=uuid.uuid4().hex))

        provider.cloud.run_instance = fresh
        try:
            return await old(spec)
        finally:
            provider.cloud.run_instance = run

    around(provider, "ensure_node", create)


@defect("create/no-retries")
def lets_the_library_retry_creates(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        for _ in range(2):
            try:
                return await old(spec)
            except Transient:
                continue
        return await old(spec)

    around(provider, "ensure_node", create)


@defect("create/lost-tags")
def tags_after_the_create(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        tags = {TAG_TOKEN: spec.token, **spec.scope.tags()}
        node = await old(dataclasses.replace(spec, tags=tags))
        provider.cloud.change_tags(node.id, spec.tags)
        return await provider.find_node(spec)

    around(provider, "ensure_node", create)


@defect("create/hangs", "list/hangs", "find/hangs", "delete/hangs")
def has_no_time_limit(provider: Any) -> None:
    async def call(operation: str, act: Any, *, seconds: float = 0.0) -> Any:
        from cloudmesh.compute.providers.memory.errors import classify_error

        try:
            return await provider.cloud.request(operation, act, provider._key)
        except CloudError as error:
            raise classify_error(error) from None

    provider.call = call


@defect("create/cancelled")
def swallows_cancellation(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        try:
            return await old(spec)
        except asyncio.CancelledError:
            raise Transient("cancelled") from None

    around(provider, "ensure_node", create)


@defect("create/foreign-name", "find/foreign-name")
def finds_machines_by_name(provider: Any) -> None:
    async def find(old: Any, spec: Any) -> Any:
        from cloudmesh.compute.providers.memory.provider import to_node

        named = [each for each in provider.cloud.instances() if each.name == spec.name]
        return to_node(named[0]) if named else await old(spec)

    async def create(old: Any, spec: Any) -> Any:
        return await provider.find_node(spec) or await old(spec)

    around(provider, "find_node", find)
    around(provider, "ensure_node", create)


@defect("delete/fails", "delete/dropped", "delete/limited", "errors/auth-delete")
def calls_a_failed_delete_done(provider: Any) -> None:
    async def delete(old: Any, node_id: str, scope: Any) -> None:
        try:
            await old(node_id, scope)
        except CloudmeshError:
            return

    around(provider, "delete_node", delete)


@defect("delete/foreign", "delete/other-installation")
def deletes_whatever_is_named(provider: Any) -> None:
    async def delete(old: Any, node_id: str, scope: Any) -> None:
        await provider.call("TerminateInstance", lambda: provider.cloud.terminate(node_id))

    around(provider, "delete_node", delete)


@defect("delete/twice", "delete/unknown")
def fails_when_it_is_gone(provider: Any) -> None:
    async def delete(old: Any, node_id: str, scope: Any) -> None:
        found = [each for each in provider.cloud.living() if each.id == node_id]
        if not found:
            raise Transient("there is no such machine")
        await old(node_id, scope)

    around(provider, "delete_node", delete)


@defect("delete/accepted-is-not-gone")
def calls_an_accepted_delete_the_end(provider: Any) -> None:
    old = provider._node

    def node(instance: Any) -> Node:
        found = old(instance)
        return dataclasses.replace(found, state="Deleted") if found.state == "Deleting" else found

    provider._node = node


@defect("errors/capacity-late", "errors/capacity-late-listed")
def tells_no_reason_of_late_failures(provider: Any) -> None:
    old = provider._node
    provider._node = lambda instance: dataclasses.replace(old(instance), failure=None)


@defect("errors/capacity", "errors/capacity-comes-back")
def takes_no_room_for_an_outage(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        try:
            return await old(spec)
        except CloudmeshError as error:
            raise Transient(str(error)) from None

    around(provider, "ensure_node", create)


@defect("create/limited", "list/limited", "find/limited", "delete/limited")
def forgets_how_long_to_wait(provider: Any) -> None:
    async def call(old: Any, *args: Any) -> Any:
        try:
            return await old(*args)
        except RateLimited as error:
            raise RateLimited(str(error)) from None

    for method in ("ensure_node", "list_nodes", "find_node", "delete_node"):
        around(provider, method, call)


@defect("errors/taxonomy", "list/dropped", "create/dropped")
def lets_foreign_errors_out(provider: Any) -> None:
    async def call(operation: str, act: Any, *, seconds: float = 10.0) -> Any:
        return await asyncio.wait_for(provider.cloud.request(operation, act, provider._key), seconds)

    provider.call = call


@defect("create/logins")
def forgets_the_keys(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        return await old(dataclasses.replace(spec, access=dataclasses.replace(spec.access, authorized_keys=())))

    around(provider, "ensure_node", create)


@defect("create/spot")
def buys_spot_on_demand(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        return await old(dataclasses.replace(spec, offer=dataclasses.replace(spec.offer, purchase="OnDemand")))

    around(provider, "ensure_node", create)


@defect("create/image", "errors/unknown-image", "images/architecture")
def takes_any_image(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        return await old(dataclasses.replace(spec, image="ubuntu-24.04"))

    around(provider, "ensure_node", create)


@defect("tags/long")
def cuts_tags(provider: Any) -> None:
    async def create(old: Any, spec: Any) -> Any:
        return await old(dataclasses.replace(spec, tags={key: value[:63] for key, value in spec.tags.items()}))

    around(provider, "ensure_node", create)


@defect("offers/never-free")
def sells_for_nothing(provider: Any) -> None:
    async def offers(old: Any) -> Any:
        found = list(await old())
        priced = next(offer for offer in found if offer.price)
        free = dataclasses.replace(found[0], price=dataclasses.replace(priced.price, nanos=0))
        return [free, *found[1:]]

    around(provider, "offers", offers)


@defect("secrets/repr")
def shows_its_key(provider: Any) -> None:
    provider.__class__ = type("Shown", (type(provider),), {"__repr__": lambda self: f"Provider(key={self._key})"})


@defect("secrets/errors")
def tells_its_key_in_errors(provider: Any) -> None:
    async def listing(old: Any, scope: Any) -> Any:
        try:
            return await old(scope)
        except AuthFailed as error:
            raise AuthFailed("the key is refused") from ValueError(f"{error}: {provider._key}")

    around(provider, "list_nodes", listing)


@defect("secrets/log")
def logs_its_key(provider: Any) -> None:
    async def listing(old: Any, scope: Any) -> Any:
        logging.getLogger("some.library").debug("authorization: %s", GOOD)
        return await old(scope)

    around(provider, "list_nodes", listing)


@defect("life/event-loop")
def blocks_the_event_loop(provider: Any) -> None:
    async def listing(old: Any, scope: Any) -> Any:
        time.sleep(0.3)
        return await old(scope)

    around(provider, "list_nodes", listing)


@defect("life/close-leaves-machines")
def ends_machines_at_its_close(provider: Any) -> None:
    async def close(old: Any) -> None:
        for each in provider.cloud.living():
            provider.cloud.terminate(each.id)

    around(provider, "close", close)


@defect("check/outage", "check/bad-credentials")
def finds_everything_well(provider: Any) -> None:
    good = provider.check

    async def check(old: Any) -> Any:
        try:
            return await good()
        except CloudmeshError:
            return []

    around(provider, "check", check)


@defect("adopt/owned")
def adopts_what_others_own(provider: Any) -> None:
    async def adopt(old: Any, node_id: str, tags: Any) -> Any:
        from cloudmesh.compute.providers.memory.provider import to_node

        return to_node(provider.cloud.change_tags(node_id, tags))

    around(provider, "adopt_node", adopt)


@pytest.mark.parametrize("name", list(DEFECTS))
def test_a_defect_is_seen(name: str) -> None:
    spoil, cases = DEFECTS[name]

    class Spoilt(MemoryHarness):
        async def provider(self, *, bad_credentials: bool = False) -> Provider:
            made = await super().provider(bad_credentials=bad_credentials)
            spoil(made)
            return made

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        results = [runner.run(run_case(Spoilt(), CASES[case])) for case in cases]
    assert [(result.case, result.outcome) for result in results] == [(case, "FAIL") for case in cases], results
