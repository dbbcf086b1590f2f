"""Cloudmesh installed on the tests' cluster, and functions as a user handles them."""

from __future__ import annotations

import pytest
from tests import install
from tests.e2e.functions import Functions
from tests.testbed.kubectl import TestCluster


@pytest.fixture(scope="session")
def cloudmesh(cluster: TestCluster) -> TestCluster:
    """The cluster with the chart of this checkout installed and ready."""
    install.build_images()
    install.install(cluster.info)
    return cluster


@pytest.fixture(scope="module")
def functions(cloudmesh: TestCluster, namespace: str) -> Functions:
    """FunctionServices in the module's namespace, whose Pod Security level is `restricted`."""
    return Functions(cloudmesh, namespace)
