"""How stores are told who comes: by a Secret, or by a token of a service account, which each cloud takes otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from cloudmesh.api.cloudaccount import ROLE
from cloudmesh.api.fields import LocalReference
from cloudmesh.api.machines import exactly_one
from cloudmesh.api.schema import Model, Rule, Shape

_GUID = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
_PROVIDER = (
    r"^projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9][-a-z0-9]{2,30}[a-z0-9]"
    r"/providers/[a-z0-9][-a-z0-9]{2,30}[a-z0-9]$"
)
_SERVICE_ACCOUNT = r"^[a-z0-9][-a-z0-9]*@[a-z0-9][-a-z0-9.]*\.gserviceaccount\.com$"


def attribute(name: str) -> str:
    """The name in Python of what users write in camelCase."""
    return re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)


def listed(words: Iterable[str]) -> str:
    """Names in a sentence, such as `a`, `b` and `c`."""
    names = list(words)
    return " and ".join(filter(None, (", ".join(f"`{name}`" for name in names[:-1]), f"`{names[-1]}`")))


def _guid(what: str) -> Shape:
    return Shape(_GUID, f"must be {what} such as `6f2a4c1e-0b7d-4e55-9a3c-2d1f8e7b6a90`")


class StoreIdentity(Model):
    """The identity of the namespace's service account `default`, in namespaces that the installation names for it."""

    tenant_id: (
        Annotated[
            str, Field(min_length=36, max_length=36, pattern=_GUID), _guid("the id of a tenant of Microsoft Entra")
        ]
        | None
    ) = None
    """For azureBlob: the tenant that gives tokens."""
    client_id: (
        Annotated[
            str,
            Field(min_length=36, max_length=36, pattern=_GUID),
            _guid("the client id of an application or a managed identity"),
        ]
        | None
    ) = None
    """For azureBlob: the application or managed identity; a federated credential of it names the service account."""
    provider: (
        Annotated[
            str,
            Field(min_length=1, max_length=192, pattern=_PROVIDER),
            Shape(
                _PROVIDER,
                "must be a provider such as"
                " `projects/123456789012/locations/global/workloadIdentityPools/campus/providers/cluster`",
            ),
        ]
        | None
    ) = None
    """For gcs: the provider of a workload identity pool that trusts the cluster's issuer."""
    service_account_email: (
        Annotated[
            str,
            Field(min_length=1, max_length=254, pattern=_SERVICE_ACCOUNT),
            Shape(
                _SERVICE_ACCOUNT,
                "must be a service account of Google such as `lab-data@physics.iam.gserviceaccount.com`",
            ),
        ]
        | None
    ) = None
    """For gcs: the service account that gateways act as; left out, they come as the workload itself."""
    role_arn: (
        Annotated[
            str,
            Field(min_length=1, max_length=2048, pattern=ROLE),
            Shape(ROLE, "must be the ARN of a role, such as `arn:aws:iam::123456789012:role/lab-data`"),
        ]
        | None
    ) = None
    """For s3: the role that gateways assume; it must trust the namespace's service account `default`."""


class StoreCredentials(Model):
    """How the operator and the gateways prove who they are: exactly one of `secretRef` and `workloadIdentity`."""

    RULES: ClassVar = (exactly_one("spec.credentials", "secretRef", "workloadIdentity"),)

    secret_ref: LocalReference | None = None
    """A Secret of type `cloudmesh.org/credentials`."""
    workload_identity: StoreIdentity | None = None
    """No Secret, but a token of the gateway's service account; for azureBlob, gcs and s3 at their clouds only."""


_IDENTIFIED: Mapping[str, Mapping[str, bool]] = {
    "azureBlob": {"tenantId": True, "clientId": True},
    "gcs": {"provider": True, "serviceAccountEmail": False},
    "s3": {"roleArn": True},
}
"""Kinds of stores that can do without a Secret: what says who comes, and whether that must be set."""


def _identity_rule(kind: str) -> Rule:
    """The rule that a store's identity has what its cloud asks for, and nothing of another cloud."""
    asked = {name: must for of, names in _IDENTIFIED.items() if of == kind for name, must in names.items()}
    others = [name for of, names in _IDENTIFIED.items() if of != kind for name in names]
    must, may = [name for name in asked if asked[name]], [name for name in asked if not asked[name]]
    where = "self.credentials.workloadIdentity"
    told = f"must have {listed(must)}" + (f", may have {listed(may)}," if may else "")

    def holds(spec: Any) -> bool:
        who = spec.credentials.workload_identity if spec.credentials is not None else None
        if who is None or getattr(spec, attribute(kind)) is None:
            return True
        has = {name for names in _IDENTIFIED.values() for name in names if getattr(who, attribute(name)) is not None}
        return has.issuperset(must) and has.isdisjoint(others)

    return Rule(
        cel=f"!has(self.{kind}) || !has(self.credentials) || !has({where}) || ("
        + " && ".join((*(f"has({where}.{name})" for name in must), *(f"!has({where}.{name})" for name in others)))
        + ")",
        message=f"`spec.credentials.workloadIdentity` of `{kind}` {told} and can't have others",
        holds=holds,
        field_path=".credentials",
    )


def _kinds_rule() -> Rule:
    """The rule that the store's cloud takes such a token."""
    return Rule(
        cel="!has(self.credentials) || !has(self.credentials.workloadIdentity)"
        f" || {' || '.join(f'has(self.{kind})' for kind in _IDENTIFIED)}",
        message=f"`spec.credentials.workloadIdentity` can be set for {listed(_IDENTIFIED)} only",
        holds=lambda spec: (
            spec.credentials is None
            or spec.credentials.workload_identity is None
            or any(getattr(spec, attribute(kind)) is not None for kind in _IDENTIFIED)
        ),
        field_path=".credentials",
    )


IDENTITY_RULES = (_kinds_rule(), *(_identity_rule(kind) for kind in _IDENTIFIED))
"""Of DataStore.spec."""
