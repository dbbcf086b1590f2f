"""Looks at accounts in the background: checks, offers, listings; one poller an account, however many machines."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cloudmesh.compute.accounts import Account, Accounts, Busy
from cloudmesh.compute.orphans import Orphans
from cloudmesh.compute.ports import Complete, Finding, Identity, Listing, Partial, Provider
from cloudmesh.compute.prices.quarantine import screen
from cloudmesh.engine import AuthFailed, CloudmeshError, Transient, Unsupported
from cloudmesh.policy.model import Offer

log = logging.getLogger(__name__)

LIST_SECONDS = 60.0
CHECK_SECONDS = 60.0
OFFERS_SECONDS = 300.0
REFRESH_SECONDS = 3600.0
LOOK_AGAIN_SECONDS = 300.0
FIRST_RETRY_SECONDS = 2.0
QUIET_FACTOR = 10
QUIET_SECONDS = 50.0
"""The longest time between listings: what happens behind our back is seen within 60 s."""
FIRST_LOOK_SECONDS = 120.0
"""A first look that hasn't ended by then counts as failed."""
SILENT_AFTER = 3
WORK_SHARE = 5
"""Listings take at most one part in so many of the time."""

USABLE = "the account can be used"

Price = Callable[[Account, Sequence[Offer]], Sequence[Offer]]


class Surveyor:
    """Runs while this process leads.

    Args:
        accounts: All accounts.
        price: Gives offers their prices.
    """

    def __init__(self, accounts: Accounts, price: Price) -> None:
        self._accounts = accounts
        self._price = price
        self._orphans = Orphans(accounts)
        self._retired: set[asyncio.Task[None]] = set()
        self._tasks: dict[Account, list[asyncio.Task[None]]] = {}

    def retire(self, provider: Provider) -> None:
        """Closes a provider that isn't used any more, when calls that are under way must have ended."""

        async def close() -> None:
            await asyncio.sleep(provider.info.create_seconds)
            await provider.close()

        task = asyncio.create_task(close(), context=contextvars.Context())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def run(self) -> None:
        """Looks after all accounts until cancelled."""
        try:
            while True:
                self._accounts.added.clear()
                self._follow()
                await self._accounts.added.wait()
        finally:
            for account in list(self._tasks):
                await self._stop(account)
            for task in self._retired:
                task.cancel()
            await asyncio.gather(*self._retired, return_exceptions=True)

    def _follow(self) -> None:
        current = set(self._accounts.all())
        for account in [account for account in self._tasks if account not in current]:
            for task in self._tasks.pop(account):
                task.cancel()
            self._orphans.forget(account)
        for account in current - set(self._tasks):
            self._tasks[account] = [
                asyncio.create_task(self._guarded(account, name, work), name=name, context=contextvars.Context())
                for name, work in (("survey", self._survey), ("poll", self._poll))
            ]

    async def _stop(self, account: Account) -> None:
        tasks = self._tasks.pop(account, [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, account: Account, name: str, work: Callable[[Account], Awaitable[None]]) -> None:
        while True:
            try:
                await work(account)
            except Exception:
                log.exception("the account can't be looked after", extra={"account": account.name, "work": name})
                await asyncio.sleep(QUIET_SECONDS)

    # -- check and offers ----------------------------------------------------------------------------------------

    async def _survey(self, account: Account) -> None:
        late = asyncio.get_running_loop().call_later(FIRST_LOOK_SECONDS, _give_up_waiting, account)
        try:
            await self._survey_on(account)
        finally:
            late.cancel()

    async def _survey_on(self, account: Account) -> None:
        retry = FIRST_RETRY_SECONDS
        while True:
            account.survey_wanted.clear()
            well = await self._check(account)
            if well:
                well = await self._read_offers(account)
            if well and not _failed(account):
                wait, retry = REFRESH_SECONDS, FIRST_RETRY_SECONDS
            else:
                wait, retry = retry, min(2 * retry, LOOK_AGAIN_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await account.survey_wanted.wait()

    async def _check(self, account: Account) -> bool:
        try:
            findings = await self._call(account, "check", lambda: account.provider.check(), CHECK_SECONDS)
            await self._identify(account)
        except AuthFailed as error:
            account.findings = (Finding("credentials", False, str(error)),)
            account.refuse(error)
            return False
        except CloudmeshError as error:
            if not account.ready or isinstance(error, Unsupported):
                account.set_ready(False, _reason(error), f"the check failed: {error}")
            return False
        account.findings = tuple(findings)
        if account.strange:
            account.set_ready(False, "AnotherAccount", account.strange)
            return False
        failed = _failed(account)
        nothing = len(failed) == len(findings) and not account.ready
        if failed and (nothing or any(finding.fatal for finding in failed)):
            account.set_ready(False, "CheckFailed", _words(failed))
            return False
        if account.failures.accept():
            self._accounts.changed(account)
        if account.offers_as_of:
            account.set_ready(True, "Checked", _usable(account))
        return True

    async def _identify(self, account: Account) -> None:
        """Asks whose credentials these are."""
        provider = account.provider
        if isinstance(provider, Identity):
            found = await self._call(account, "identity", provider.identity, CHECK_SECONDS)
            if provider is account.provider:
                account.identify(found, occupied=self._accounts.is_occupied(account))

    async def _read_offers(self, account: Account) -> bool:
        try:
            fresh = await self._call(account, "offers", lambda: account.provider.offers(), OFFERS_SECONDS)
            screened = screen(account.told, fresh)
            priced = self._price(account, screened.offers)
        except CloudmeshError as error:
            account.offers_error = str(error)
            if isinstance(error, AuthFailed):
                account.refuse(error)
            elif not account.offers_as_of:
                account.set_ready(False, _reason(error), f"the offers can't be read: {error}")
            self._accounts.changed(account)
            return False
        account.told, account.quarantined = screened.offers, screened.message
        account.offers_as_of = self._accounts.now()
        account.offers_error = ""
        account.set_offers(priced)
        account.set_ready(True, "Checked", _usable(account))
        self._accounts.changed(account)
        return True

    # -- listings ------------------------------------------------------------------------------------------------

    async def _poll(self, account: Account) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            account.poll_wanted.clear()
            account.hinted = False
            begun = loop.time()
            try:
                await self._list(account)
                failures = 0
            except CloudmeshError as error:
                failures += 1
                account.nodes.complete, account.nodes.reason = False, str(error)
                if isinstance(error, AuthFailed):
                    account.refuse(error)
                if failures >= SILENT_AFTER:
                    account.set_silent(True)
                self._accounts.changed(account)
            await self._pause(account, begun, failures)

    async def _pause(self, account: Account, begun: float, failures: int) -> None:
        loop = asyncio.get_running_loop()
        soon = max(account.info.poll_seconds * 2 ** min(failures, 5), WORK_SHARE * (loop.time() - begun))
        late = max(soon, min(QUIET_SECONDS, QUIET_FACTOR * account.info.poll_seconds))
        hurry = bool(account.waiting) or self._orphans.suspects(account)
        end = loop.time() + (min(soon, QUIET_SECONDS) if hurry else late)
        if hurry:
            await asyncio.sleep(end - loop.time())
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await account.poll_wanted.wait()
        # what is wanted now was hardly begun: it changes no sooner than in a moment; what is hinted at has happened
        since = begun if account.hinted else loop.time()
        if (rest := min(end, since + soon) - loop.time()) > 0:
            await asyncio.sleep(rest)

    async def _list(self, account: Account) -> None:
        if not account.proven:
            await self._identify(account)
            if not account.proven:
                raise Transient(account.strange or "the credentials changed")
        begun = 0.0

        async def work() -> Listing:
            nonlocal begun
            begun = asyncio.get_running_loop().time()
            return await account.provider.list_nodes(account.scope)

        listing: Listing = await self._call(account, "list_nodes", work, LIST_SECONDS)
        # some clouds take a filter and ignore it
        ours = tuple(node for node in listing.nodes if account.scope.holds(node.tags))
        if isinstance(listing, Complete):
            listing = Complete(ours, listing.as_of)
        else:
            listing = Partial(ours, listing.as_of, listing.reason)
        was = account.nodes.complete
        first = not len(account.nodes)
        changed = account.nodes.take(listing, begun)
        if first and len(account.nodes) and not all(finding.known for finding in account.findings):
            account.survey_wanted.set()  # what may be done to a machine can be tried now
        account.set_silent(False)
        if account.nodes.complete != was:
            self._accounts.changed(account)
        self._wake(account, changed)
        self._accounts.metrics.nodes.labels(account.namespace, account.name).set(len(ours))
        await self._orphans.look(account, listing)

    def _wake(self, account: Account, changed: set[str]) -> None:
        for token in changed:
            if (key := account.keys.get(token)) is not None:
                self._accounts.engine.enqueue(key)
        for token, key in list(account.waiting.items()):
            if token not in changed and account.nodes.missed(token):
                self._accounts.engine.enqueue(key)

    async def _call(self, account: Account, operation: str, work: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        while True:
            try:
                return await account.call(operation, work, caller=operation, seconds=seconds)
            except Busy as busy:
                await asyncio.sleep(busy.seconds)


def _give_up_waiting(account: Account) -> None:
    if account.unseen:
        account.set_ready(False, "CloudUnavailable", f"the first look isn't over after {FIRST_LOOK_SECONDS:g} s")


def _failed(account: Account) -> list[Finding]:
    return [finding for finding in account.findings if finding.failed]


def _words(failed: Sequence[Finding]) -> str:
    return "; ".join(f"{f.subject}: {f.message}" for f in failed)


def _usable(account: Account) -> str:
    failed, unknown = _failed(account), ", ".join(f.subject for f in account.findings if not f.known)
    text = f"{USABLE}, but for {_words(failed)}" if failed else USABLE
    return f"{text}; not known yet: {unknown}" if unknown else text


def _reason(error: CloudmeshError) -> str:
    return "CloudUnavailable" if error.reason in ("Transient", "RateLimited", "Error") else error.reason
