"""One Bootstrap and one pool of connections for all reconcilers of a process."""

from __future__ import annotations

from cloudmesh.compute.bootstrap import Bootstrap
from cloudmesh.compute.endpoints import guard_of
from cloudmesh.compute.ssh import Ssh, SshPool
from cloudmesh.engine import Engine, per_engine


@per_engine
def ssh_of(engine: Engine) -> Ssh:
    """The connections of a process, made when they are first asked for."""
    return SshPool(guard=guard_of(engine))


@per_engine
def bootstrap_of(engine: Engine) -> Bootstrap:
    """The Bootstrap of a process, made when it is first asked for; it tells by `engine.enqueue`."""
    return Bootstrap(ssh_of(engine), engine.kube, engine.enqueue, lambda: engine.directories)
