"""Machines of one's own, reached by SSH: one is lent to a VirtualMachine, and given back when that ends."""

from __future__ import annotations

from cloudmesh.compute.ports import Provider
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.providers.ssh.hosts import read_hosts
from cloudmesh.compute.providers.ssh.powers import SshProvider
from cloudmesh.compute.providers.ssh.records import Records


def make(context: Context) -> Provider:
    """Makes the provider of an account.

    Raises:
        AuthFailed: Its Secret has no key to log in with.
        InvalidRequest: `spec.ssh` can't be read.
    """
    records = Records(context.kube, context.namespace, context.name) if context.kube is not None else None
    return SshProvider(context.name, read_hosts(context), records=records, guard=context.guard)
