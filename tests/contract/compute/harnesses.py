"""Back ends on which the conformance suite runs, and on which clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.contract.compute.emulator import moto_server
from tests.testbed.kubectl import TestCluster

from cloudmesh.testing.providers import Harness
from cloudmesh.testing.providers.memory import MemoryHarness
from cloudmesh.testing.virtualtime import VirtualLoop

BAD_TOKEN = "suite-token-that-nobody-gave-0c7be1"
Start = Callable[[asyncio.Runner], AbstractContextManager[Harness]]


@dataclass(frozen=True, slots=True)
class BackEnd:
    """One column of the table.

    Args:
        start: Brings the back end up for as long as its harness is used; all cases run on that event loop.
        words: What it is, for the table.
        virtual: Whether time is virtual there.
        some: Cases that are always run, empty for all; the others with CI_FULL=1 and in `make bench`.
    """

    start: Start
    words: str
    virtual: bool = True
    some: tuple[str, ...] = ()

    @contextlib.contextmanager
    def run(self) -> Iterator[tuple[Harness, asyncio.Runner]]:
        """The harness and its event loop."""
        with (
            asyncio.Runner(loop_factory=VirtualLoop if self.virtual else None) as runner,
            self.start(runner) as harness,
        ):
            yield harness, runner


@contextlib.contextmanager
def memory(runner: asyncio.Runner) -> Iterator[Harness]:
    """The memory provider with all that there is."""
    yield MemoryHarness()


@contextlib.contextmanager
def memory_plain(runner: asyncio.Runner) -> Iterator[Harness]:
    """A cloud that has no tokens and no optional power, as some of the real ones."""
    yield MemoryHarness(name="memory-plain", powers="none", native_tokens=False)


@contextlib.contextmanager
def aws(runner: asyncio.Runner) -> Iterator[Harness]:
    """EC2 as moto has it, behind the fault proxy."""
    from tests.contract.compute.aws.harness import AwsHarness

    with moto_server() as url:
        yield AwsHarness(url)


@contextlib.contextmanager
def ssh(runner: asyncio.Runner) -> Iterator[Harness]:
    """Real sshd on addresses of loopback, as hosts of one's own."""
    from tests.contract.compute.ssh.harness import ADDRESSES, USERS, SshHarness
    from tests.contract.compute.ssh.sshd import running

    with running(USERS, ADDRESSES) as sshd:
        yield SshHarness(sshd)


@contextlib.contextmanager
def pods(runner: asyncio.Runner) -> Iterator[Harness]:
    """Pods of the checkout's cluster, in a namespace of their own."""
    from tests.testbed import clusters

    cluster = TestCluster(clusters.up())
    namespace = f"suite-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", namespace)
    try:
        cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        with pods_in(cluster, namespace, runner) as harness:
            yield harness
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@contextlib.contextmanager
def pods_in(cluster: TestCluster, namespace: str, runner: asyncio.Runner) -> Iterator[Harness]:
    """Pods in a namespace that is there; makes the Secret that they mount."""
    import asyncssh
    from tests import install
    from tests.contract.compute.pod_harness import RealPods, secret_of_keys

    image = install.machine_image()
    key = asyncssh.generate_private_key("ssh-ed25519")
    secret = secret_of_keys(key.export_public_key().decode(), key.export_private_key().decode())
    cluster.apply(secret, namespace=namespace)
    told = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    told["users"] = [{"name": told["users"][0]["name"], "user": {"token": BAD_TOKEN}}]
    with tempfile.TemporaryDirectory() as folder:
        bad = Path(folder) / "kubeconfig"
        bad.write_text(json.dumps(told))
        harness = RealPods(str(cluster.kubeconfig), str(bad), namespace, image, (BAD_TOKEN,))
        runner.run(harness.start())
        try:
            yield harness
        finally:
            runner.run(harness.stop())


SOME = (
    "check/bad-credentials", "create/cancelled", "create/delivered-twice", "create/fails-but-made",
    "create/lost-answer", "create/next-process", "create/no-retries", "create/other-order", "create/tags",
    "delete/foreign", "delete/lost-answer", "delete/twice", "drift/resized", "drift/stopped", "errors/auth-list",
    "errors/capacity", "errors/capacity-late", "errors/quota", "errors/unknown-image", "errors/unknown-type",
    "find/filter-ignored", "images/architecture", "list/filter-ignored", "list/limited", "list/middle-page-fails",
    "list/pages", "secrets/errors", "secrets/log", "start-stop/round-trip", "tags/odd",
)  # fmt: skip
SOME_SSH = (
    "check/good", "check/bad-credentials", "create/burst-with-lost-answers", "create/cancelled", "create/concurrent",
    "create/delivered-twice", "create/fails-but-made", "create/foreign-token", "create/hangs", "create/logins",
    "create/lost-answer", "create/next-process", "create/no-retries", "create/one", "create/other-order", "create/tags",
    "create/too-slow", "delete/cancelled", "delete/ends", "delete/foreign", "delete/lost-answer", "delete/neighbours",
    "delete/twice", "delete/unknown", "drift/ended", "drift/untagged", "errors/auth-create", "errors/auth-list",
    "errors/capacity", "errors/capacity-comes-back", "errors/revoked", "errors/unknown-type", "errors/unknown-zone",
    "find/at-once", "find/failure-is-no-absence", "find/foreign-scope", "find/none", "flavors/listed", "life/boot-id",
    "life/list-agrees", "life/runs", "list/all", "list/dropped", "list/other-account", "list/other-installation",
    "list/partial", "list/stranger", "metadata/ours", "metadata/round-trip", "offers/full", "offers/unpriced",
    "secrets/errors", "secrets/log", "tags/odd",
)  # fmt: skip
BACK_ENDS: Mapping[str, BackEnd] = {
    "memory": BackEnd(memory, "a cloud in the process, on a virtual clock"),
    "memory-plain": BackEnd(memory_plain, "the same without create tokens and optional powers"),
    "aws": BackEnd(aws, "moto behind the fault proxy", virtual=False, some=SOME),
    "ssh": BackEnd(ssh, "hosts with Debian's sshd on loopback", virtual=False, some=SOME_SSH),
}
"""Those that need nothing but this machine."""

ON_CLUSTER: Mapping[str, BackEnd] = {
    "kubernetes": BackEnd(pods, "Pods of a real cluster", virtual=False),
}
"""Those that need a Kubernetes; tests/bed runs some of their cases, `make bench NAME=conformance` all."""
