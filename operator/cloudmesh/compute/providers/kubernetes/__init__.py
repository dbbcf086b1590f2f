"""Machines that are Pods of this very Kubernetes, in the namespace of their CloudAccount; no credentials are needed."""

from __future__ import annotations

from cloudmesh.compute.ports import Provider
from cloudmesh.compute.providers.kubernetes.powers import PodProvider
from cloudmesh.compute.providers.kubernetes.sizes import read_settings
from cloudmesh.compute.providers.registry import Context
from cloudmesh.engine import InvalidRequest, utc_now


def make(context: Context) -> Provider:
    """Makes the provider of an account.

    Raises:
        InvalidRequest: A field of `spec.kubernetes` or a price of the installation can't be read.
    """
    if context.kube is None:
        raise InvalidRequest("machines that are Pods need the API server of the installation")
    today = utc_now()[:10] + "T00:00:00Z"  # of the day, so that processes agree
    return PodProvider(context.kube, read_settings(context, today))
