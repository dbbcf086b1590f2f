"""Names by which a machine is found again: create token, owner tags, object names."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "cloudmesh.org/"
TAG_INSTALLATION = PREFIX + "installation"
TAG_NAMESPACE = PREFIX + "namespace"
TAG_ACCOUNT = PREFIX + "account"
TAG_CLUSTER = PREFIX + "cluster"
TAG_MACHINE = PREFIX + "machine"
TAG_UID = PREFIX + "machine-uid"
TAG_TOKEN = PREFIX + "token"
TAG_ADOPTED = PREFIX + "adopted"
"""On machines that were taken over: they are given back, never deleted."""
NOTE_LEFT = "left.cloudmesh.org/"
"""Begin of annotations of a CloudAccount, ended by the token of a machine that was let go: nobody collects it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose nodes: those that one CloudAccount of one installation made.

    Args:
        installation: Uid of the cluster's namespace kube-system.
        namespace: Namespace of the CloudAccount.
        account: Its name.
    """

    installation: str
    namespace: str
    account: str

    def tags(self) -> dict[str, str]:
        """The tags that all of its nodes carry."""
        return {TAG_INSTALLATION: self.installation, TAG_NAMESPACE: self.namespace, TAG_ACCOUNT: self.account}

    def holds(self, tags: Mapping[str, str]) -> bool:
        """Whether tags name this scope; to be asked again on our side, since some clouds ignore filters."""
        return all(tags.get(key) == value for key, value in self.tags().items())


def make_token(uid: str, pool: str, ordinal: int, attempt: int, offer_id: str) -> str:
    """The create token of one machine: 35 characters of `[a-z0-9-]`, which every cloud takes as a name.

    Another offer, zone or attempt is another token: a cloud may bind a token to its zone, and may give back a machine
    that has ended for one that was used before.
    """
    text = "\n".join((uid, pool, str(ordinal), str(attempt), offer_id))
    digest = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()
    return "cm-" + digest[:32]


def machine_name(cluster: str, pool: str, ordinal: int, attempt: int) -> str:
    """Name of a pool's VirtualMachine, and of its host: unique to the attempt."""
    name = f"{cluster}-{pool}-{ordinal}"
    return name if attempt == 1 else f"{name}-{attempt}"
