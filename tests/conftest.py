"""Fixtures for tests on a real Kubernetes, and what is kept of the cluster when such a test fails."""

from __future__ import annotations

import gc
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import accepting
from tests.testbed import clusters
from tests.testbed.dump import dump
from tests.testbed.kubectl import CommandFailed, TestCluster

# What CI runs must not depend on chance; HYPOTHESIS_PROFILE=random looks for new examples.
# No example is timed: on a busy machine any of them may wait a while for its turn.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("random", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
accepting.mend()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of tests that need a cluster."""
    config.addinivalue_line("markers", "kube: needs a Kubernetes, which the fixture `cluster` brings up")
    config.addinivalue_line("markers", "e2e: goes through the whole product as a user does")
    config.addinivalue_line(
        "markers", "alone: stops or kills parts of the product, or looks at all that was done with it"
    )


def pytest_collection_finish() -> None:
    """Modules and tests stay: looking through them for garbage, again and again, took a tenth of all processor time."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="session")
def cluster() -> TestCluster:
    """The checkout's cluster, started when none is up (with several workers, by the first); it stays up."""
    return TestCluster(clusters.up())


@pytest.fixture(scope="module")
def namespace(cluster: TestCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test module's own under pod security `restricted`, in which Pods can be made at once."""
    stem = re.sub(r"[^a-z0-9]+", "-", Path(str(request.path)).stem.removeprefix("test_").lower()).strip("-")
    name = f"t-{stem[:40]}-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        _wait_for_service_account(cluster, name)
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def _wait_for_service_account(cluster: TestCluster, namespace: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            cluster.kubectl("-n", namespace, "get", "serviceaccount", "default")
        except CommandFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


_dumped: dict[object, Path] = {}
"""Where what the cluster knew is, by the failure of a fixture in a module, or by test."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[Any]:
    """Keep what the cluster knows when a test with a namespace fails, and name the folder in the failure."""
    report: pytest.TestReport = yield
    fixtures = getattr(item, "funcargs", {})
    if report.failed and call.when in ("setup", "call") and isinstance(fixtures.get("cluster"), TestCluster):
        folder = clusters.STATE / "dumps" / re.sub(r"[^A-Za-z0-9_.-]+", "-", item.nodeid).strip("-")
        # a fixture that fails for a whole module does so once, and a dump takes seconds
        shared = call.excinfo.exconly() if call.when == "setup" and call.excinfo else ""
        of = (item.path, shared) if shared else (item.nodeid,)
        first = _dumped.setdefault(of, folder)
        if first == folder:
            dump(fixtures["cluster"], fixtures.get("namespace"), folder)
        folder = first
        text = f"objects, events and logs of the cluster: {folder}"
        report.sections.append(("cluster", text))
        # Also at the end of the traceback, which is what a summary shows.
        add = getattr(report.longrepr, "addsection", None)
        if add:
            add("cluster", text)
    return report
