"""Cases of secrets: credentials and private keys stay inside."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import traceback
from collections.abc import Iterator
from dataclasses import asdict

from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.testing.providers.case import Bench, case, need


def clean(bench: Bench, where: str, text: str) -> None:
    """Fails when a text holds a secret."""
    for secret in (*bench.harness.secrets, *bench.harness.access.host_key.splitlines()[1:2]):
        need(secret not in text, f"{where} holds a secret")


@contextlib.contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """All log records of all libraries, at the most talkative level."""
    text, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


async def failures(bench: Bench) -> list[BaseException]:
    """Errors of a few calls with wrong credentials."""
    provider = await bench.harness.provider(bad_credentials=True)
    spec = await bench.spec()
    calls = (
        provider.check(), provider.list_nodes(bench.scope), provider.find_node(spec), provider.ensure_node(spec),
        provider.delete_node("unknown", bench.scope),
    )  # fmt: skip
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [result for result in results if isinstance(result, BaseException)]


@case("secrets/repr", "Neither `repr` nor `str` of a provider holds its credentials.")
async def representation(bench: Bench) -> None:
    for text in (repr(bench.provider), str(bench.provider), repr(bench.provider.info), f"{bench.provider!r:.500}"):
        clean(bench, "the provider's text", text)


@case(
    "secrets/errors",
    "No error holds credentials in its text, arguments, causes or traceback.",
    traits=["Credentials"],
)
async def errors(bench: Bench) -> None:
    found = await failures(bench)
    need(found, "wrong credentials made no error")
    for error in found:
        need(isinstance(error, CloudmeshError), f"{type(error).__name__} isn't of the taxonomy")
        each: BaseException | None = error
        while each is not None:
            clean(bench, f"the text of {type(each).__name__}", f"{each} {each!r} {each.args!r} {vars(each)!r}")
            each = each.__cause__ or each.__context__
        clean(bench, "a traceback", "".join(traceback.format_exception(error)))


@case("secrets/log", "No library logs credentials or private keys, not even at its most talkative.")
async def log(bench: Bench) -> None:
    with everything_logged() as text:
        provider = await bench.harness.provider()
        spec = await bench.spec()
        await provider.check()
        node = await provider.ensure_node(spec)
        await provider.list_nodes(bench.scope)
        await provider.delete_node(node.id, bench.scope)
        await provider.close()
    clean(bench, "the log", text.getvalue())


@case("secrets/log-of-failures", "A failure isn't logged with credentials.", traits=["Credentials"])
async def log_of_failures(bench: Bench) -> None:
    with everything_logged() as text:
        await failures(bench)
    clean(bench, "the log", text.getvalue())


@case("secrets/log-of-outages", "An outage isn't logged with credentials or private keys.", needs=["drop"])
async def log_of_outages(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("drop", times=None)
    with everything_logged() as text:
        for call in (bench.provider.ensure_node(spec), bench.provider.list_nodes(bench.scope)):
            with contextlib.suppress(CloudmeshError):
                await call
    clean(bench, "the log", text.getvalue())


@case("secrets/nodes", "Nodes and offers hold no credentials.")
async def nodes(bench: Bench) -> None:
    await bench.running()
    clean(bench, "a node", repr(await bench.listed()))
    clean(bench, "an offer", repr([asdict(offer) for offer in (await bench.offers())[:50]]))


@case("secrets/tags", "The private host key is in no tag, name or detail of the machine.")
async def tags(bench: Bench) -> None:
    _, node = await bench.running()
    clean(bench, "a tag or detail", f"{dict(node.tags)} {dict(node.details)} {node.host_key}")
    clean(bench, "the back end's view", repr(await bench.truth()))


@case("secrets/check", "The findings of a check hold no credentials.", traits=["Credentials"])
async def findings(bench: Bench) -> None:
    clean(bench, "a finding", repr(await bench.provider.check()))
    provider = await bench.harness.provider(bad_credentials=True)
    with contextlib.suppress(CloudmeshError):
        clean(bench, "a finding", repr(await provider.check()))
