"""News of Pods that are machines: a hint to list an account's machines now; what counts is the listing."""

from __future__ import annotations

from collections.abc import Callable

from cloudmesh.compute.providers.kubernetes.core import POD
from cloudmesh.compute.tokens import TAG_ACCOUNT
from cloudmesh.engine import Engine, Obj


def listen(engine: Engine, hint: Callable[[str, str], None]) -> None:
    """Gives a hint at each change of a Pod that is a machine; before the engine starts.

    Args:
        engine: Watches Pods of ours already, for functions.
        hint: Called with namespace and name of a CloudAccount.
    """

    def told(pod: Obj) -> None:
        meta = pod["metadata"]
        if account := (meta.get("labels") or {}).get(TAG_ACCOUNT):
            hint(meta["namespace"], account)

    engine.listen(POD, told)
