"""The conformance suite on Pods of the real cluster: some cases of each group always, all of them with CI_FULL=1."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator

import asyncssh
import pytest
from images.__main__ import build
from images.compose import default_cache
from tests.contract.compute.pod_harness import RealPods, secret_of_keys
from tests.testbed import clusters
from tests.testbed.kubectl import TestCluster

from cloudmesh.testing.providers import CASES, run_case

pytestmark = pytest.mark.e2e

BAD_TOKEN = "suite-token-that-nobody-gave-0c7be1"
# What an API server in memory can't tell: scheduler, kubelet, real names, real quota, real admission.
SOME = (
    "check/good", "check/bad-credentials", "console/text", "create/burst-with-lost-answers", "create/concurrent",
    "create/disk", "create/foreign-name", "create/image", "create/one", "create/tags", "delete/ends", "delete/failed",
    "delete/twice", "drift/ended", "drift/image", "drift/resized", "drift/untagged", "errors/auth-list",
    "errors/capacity-late", "errors/quota", "errors/revoked", "groundwork/held", "groundwork/twice", "life/boot-id",
    "life/list-agrees", "life/runs", "list/other-installation", "list/pages", "metadata/round-trip", "secrets/errors",
)  # fmt: skip
NAMES = list(CASES) if os.environ.get("CI_FULL") else SOME


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all cases: connections are kept."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def harness(
    cluster: TestCluster, namespace: str, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealPods]:
    """The suite's namespace, with the Secret that its machines mount."""
    out = clusters.STATE / "machine-image"
    image = build(out, default_cache(), ("machine",))["machine"]
    clusters.import_images([out / "machine.tar"])
    key = asyncssh.generate_private_key("ssh-ed25519")
    secret = secret_of_keys(key.export_public_key().decode(), key.export_private_key().decode())
    cluster.apply(secret, namespace=namespace)
    told = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    told["users"] = [{"name": told["users"][0]["name"], "user": {"token": BAD_TOKEN}}]
    bad = tmp_path_factory.mktemp("nobody") / "kubeconfig"
    bad.write_text(json.dumps(told))
    harness = RealPods(str(cluster.kubeconfig), str(bad), namespace, image, (BAD_TOKEN,))
    runner.run(harness.start())
    try:
        yield harness
    finally:
        runner.run(harness.stop())


@pytest.mark.parametrize("name", NAMES)
def test_case(harness: RealPods, runner: asyncio.Runner, name: str) -> None:
    result = runner.run(run_case(harness, CASES[name]))
    assert result.outcome in ("pass", "n/a"), f"{CASES[name].title}\n{result.reason}\n{result.trace}"
    assert name not in SOME or result.outcome == "pass"
    assert result.outcome == "pass" or result.reason
