"""The kinds of the compute wing as the API server serves them."""

from __future__ import annotations

from cloudmesh.api.names import API_VERSION
from cloudmesh.engine import Resource

VIRTUAL_CLUSTER = Resource(API_VERSION, "VirtualCluster", "virtualclusters")
VIRTUAL_MACHINE = Resource(API_VERSION, "VirtualMachine", "virtualmachines")
CLOUD_ACCOUNT = Resource(API_VERSION, "CloudAccount", "cloudaccounts")
PLACEMENT_POLICY = Resource(API_VERSION, "PlacementPolicy", "placementpolicies")
PRICE_SHEET = Resource(API_VERSION, "PriceSheet", "pricesheets")
DATA_STORE = Resource(API_VERSION, "DataStore", "datastores")
BUDGET = Resource(API_VERSION, "Budget", "budgets")
CLUSTER_JOB = Resource(API_VERSION, "ClusterJob", "clusterjobs")
