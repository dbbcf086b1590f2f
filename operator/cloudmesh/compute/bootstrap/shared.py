"""One Bootstrap and one pool of connections for all reconcilers of a process."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from cloudmesh.compute.bootstrap import Bootstrap
from cloudmesh.compute.endpoints import guard_of
from cloudmesh.compute.ssh import Ssh, SshPool
from cloudmesh.engine import Engine

_pools: WeakKeyDictionary[Engine, Ssh] = WeakKeyDictionary()
_bootstraps: WeakKeyDictionary[Engine, Bootstrap] = WeakKeyDictionary()


def ssh_of(engine: Engine) -> Ssh:
    """The connections of a process, made when they are first asked for."""
    if engine not in _pools:
        _pools[engine] = SshPool(guard=guard_of(engine))
    return _pools[engine]


def use_ssh(engine: Engine, ssh: Ssh) -> None:
    """Reaches machines another way, as tests do; before anybody asks."""
    _pools[engine] = ssh


def bootstrap_of(engine: Engine) -> Bootstrap:
    """The Bootstrap of a process, made when it is first asked for; it tells by `engine.enqueue`."""
    if engine not in _bootstraps:
        _bootstraps[engine] = Bootstrap(ssh_of(engine), engine.kube, engine.enqueue)
    return _bootstraps[engine]
