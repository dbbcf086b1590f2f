"""EC2: machines of Amazon Web Services.

Credentials: a Secret with `aws_access_key_id`, `aws_secret_access_key` and, for temporary ones, `aws_session_token`;
or a role that trusts the operator's service account.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudmesh.compute.ports import Provider
from cloudmesh.compute.providers.aws.core import DISK_SECONDS, AwsCore
from cloudmesh.compute.providers.aws.powers.access import Access
from cloudmesh.compute.providers.aws.powers.catalogue import Catalogue
from cloudmesh.compute.providers.aws.powers.labels import Labels
from cloudmesh.compute.providers.aws.powers.lifecycle import Lifecycle
from cloudmesh.compute.providers.aws.powers.storage import Storage
from cloudmesh.compute.providers.aws.roles import SESSION_SECONDS, session_name
from cloudmesh.compute.providers.aws.session import CREATE_SECONDS, READ_SECONDS, Role, Session
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.tokens import Scope
from cloudmesh.engine import InvalidRequest


class AwsProvider(AwsCore, Lifecycle, Labels, Catalogue, Access, Storage):
    """EC2 with all that it can."""


def make(context: Context) -> Provider:
    """Makes the provider of an account.

    Raises:
        AuthFailed: The Secret lacks a key.
        InvalidRequest: `spec.aws.region` is missing.
    """
    region = str(context.spec.get("region") or "")
    if not region:
        raise InvalidRequest("spec.aws.region must name a region, such as 'us-east-1'")
    read = float(context.defaults.get("readSeconds") or READ_SECONDS)
    create = int(context.defaults.get("createSeconds") or CREATE_SECONDS)
    endpoint = str(context.spec.get("endpoint") or "")
    proof: Mapping[str, bytes] | Role = context.credentials
    if context.identity is not None:
        proof = Role(
            str(context.identity.spec.get("roleArn") or ""),
            session_name(context.namespace, context.name),
            context.identity.token_file,
            int(context.defaults.get("sessionSeconds") or SESSION_SECONDS),
        )
    session = Session(region, proof, endpoint, read, create, context.guard)
    disk = float(context.defaults.get("diskSeconds") or DISK_SECONDS)
    scope = Scope(context.installation, context.namespace, context.name)
    return AwsProvider(session, context.name, context.spec, create, disk, scope, context.images)
