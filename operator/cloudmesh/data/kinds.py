"""The kinds of the data wing, and of what it makes, as the API server serves them."""

from __future__ import annotations

from cloudmesh.api.names import API_VERSION
from cloudmesh.engine.resources import Resource

VIRTUAL_DIRECTORY = Resource(API_VERSION, "VirtualDirectory", "virtualdirectories")
DATA_STORE = Resource(API_VERSION, "DataStore", "datastores")
CLOUD_ACCOUNT = Resource(API_VERSION, "CloudAccount", "cloudaccounts")
PRICE_SHEET = Resource(API_VERSION, "PriceSheet", "pricesheets")
VIRTUAL_CLUSTER = Resource(API_VERSION, "VirtualCluster", "virtualclusters")
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
SERVICE = Resource("v1", "Service", "services")
CLAIM = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
POD = Resource("v1", "Pod", "pods")
NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
