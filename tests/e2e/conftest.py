"""Cloudmesh installed on the tests' cluster, and functions as a user handles them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import install
from tests.e2e.functions import Functions
from tests.e2e.leaks import Secrets, find, logs
from tests.testbed.kubectl import TestCluster


def _install_once(cluster: TestCluster, run: Path) -> None:
    """Installs the chart, if no other worker of this run has."""
    with (run / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = run / "installed"
        if not installed.exists():
            install.build_images()
            install.install(cluster.info)
            installed.touch()


@pytest.fixture(scope="session")
def cloudmesh(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[TestCluster]:
    """The cluster with the chart of this checkout installed and ready; in the end no secret is in its logs.

    Each worker looks for secrets when it ends: for those that it heard of, and it hears of all the workers'.
    """
    own = tmp_path_factory.getbasetemp()
    secrets = Secrets(cluster)
    try:
        _install_once(cluster, own if worker_id == "master" else own.parent)
        yield cluster
        told = logs(cluster, install.NAMESPACE)
    finally:
        secrets.close()
    assert any("cloudmesh-operator" in name and log for name, log in told.items()), "no log to look at"
    assert any("cloudmesh-signing" in name for name in secrets.needles.values()), "no secret to look for"
    leaks = {name: found for name, log in told.items() if (found := find(log, secrets.needles))}
    assert not leaks, "secrets are in logs"
    print(f"none of {len(secrets.needles)} secrets is in {sum(map(len, told.values()))} characters of {len(told)} logs")


@pytest.fixture(scope="module")
def functions(cloudmesh: TestCluster, namespace: str) -> Functions:
    """FunctionServices in the module's namespace, whose Pod Security level is `restricted`."""
    return Functions(cloudmesh, namespace)
