"""The two clients of S3: both know the credentials that they are given and ask nobody for others."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.handlers import convert_body_to_file_like_object
from botocore.loaders import Loader
from obstore.store import S3Store as Bytes

from cloudmesh.data.stores.s3_identity import for_obstore
from cloudmesh.engine.connections import connect_by
from cloudmesh.engine.endpoints import ANYWHERE, Guard

THREADS = 24
CONNECT_SECONDS = 5.0


@cache
def _loader() -> Loader:
    """The descriptions of the service, read once: they are large."""
    return Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)


def boto_client(
    credentials: Credentials | None, endpoint: str, region: str, seconds: float, *, tries: int,
    guard: Guard = ANYWHERE, service: str = "s3",
) -> Any:  # fmt: skip
    """boto3's, for all but bytes.

    Args:
        credentials: What calls are signed with; None for calls that aren't.
        endpoint: URL of the API, empty for that of AWS.
        region: Region.
        seconds: Time within which an answer must come.
        tries: How often a call is made at most.
        guard: Makes the connections.
        service: Whose API it is.
    """
    # a core session of its own: no file, no environment and no metadata service is asked for credentials or regions
    core = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, "/dev/null", None),
            "credentials_file": (None, None, "/dev/null", None),
        }
    )
    core.register_component("data_loader", _loader())
    core._credentials = credentials  # type: ignore[attr-defined]  # botocore's own setter asks the chain
    options: dict[str, Any] = {
        "signature_version": "s3v4" if credentials is not None else UNSIGNED,
        # the digest of what is sent is in the signature, also over TLS
        "s3": {"addressing_style": "path", "payload_signing_enabled": True},
        "retries": {"total_max_attempts": tries, "mode": "standard"},
        "connect_timeout": min(CONNECT_SECONDS, seconds),
        "read_timeout": seconds,
        "max_pool_connections": THREADS,
        "ignore_configured_endpoint_urls": True,
        # digests of our own: not all stores know the newer ones that come behind a body
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    session: Any = boto3.session.Session(botocore_session=core, region_name=region)
    client = session.client(service, endpoint_url=endpoint or None, config=Config(**options))
    connect_by(client, guard)
    # a part as a file would be sent in pieces of 16 KiB
    if service == "s3":
        client.meta.events.unregister("before-parameter-build.s3.UploadPart", convert_body_to_file_like_object)
    return client


def bytes_client(bucket: str, credentials: Credentials, url: str, region: str, seconds: float, *, tries: int) -> Bytes:
    """obstore's of one bucket; arguments as of the other, `url` never empty."""
    give: Any = for_obstore(credentials)
    # all that the environment could set otherwise is said
    return Bytes(
        bucket,
        endpoint=url,
        aws_endpoint_url_s3=url,
        region=region,
        credential_provider=give,
        virtual_hosted_style_request=False,
        skip_signature=False,
        s3_express=False,
        conditional_put="etag",
        client_options={
            "allow_http": url.startswith("http://"),
            "timeout": timedelta(seconds=seconds),
            "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, seconds)),
        },
        retry_config={
            "max_retries": tries - 1,
            "retry_timeout": timedelta(seconds=2 * seconds),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
    )
