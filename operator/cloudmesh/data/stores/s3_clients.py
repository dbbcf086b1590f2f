"""The two clients of S3: both know the credentials that they are given and ask nobody for others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.handlers import convert_body_to_file_like_object
from botocore.loaders import Loader
from obstore.store import S3Store as Bytes

from cloudmesh.engine.connections import connect_by
from cloudmesh.engine.endpoints import ANYWHERE, Guard

KEY_ID, SECRET_KEY, SESSION_TOKEN = "aws_access_key_id", "aws_secret_access_key", "aws_session_token"
THREADS = 24
CONNECT_SECONDS = 5.0


@cache
def _loader() -> Loader:
    """The descriptions of the service, read once: they are large."""
    return Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)


def boto_client(
    values: Mapping[str, str], endpoint: str, region: str, seconds: float, *, tries: int, guard: Guard = ANYWHERE
) -> Any:
    """boto3's, for all but bytes.

    Args:
        values: The credentials.
        endpoint: URL of the API, empty for that of AWS.
        region: Region.
        seconds: Time within which an answer must come.
        tries: How often a call is made at most.
        guard: Makes the connections.
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
    core._credentials = Credentials(  # type: ignore[attr-defined]  # botocore's own setter asks the chain
        values[KEY_ID], values[SECRET_KEY], values.get(SESSION_TOKEN) or None, method="cloudmesh"
    )
    options: dict[str, Any] = {
        "signature_version": "s3v4",
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
    client = session.client("s3", endpoint_url=endpoint or None, config=Config(**options))
    connect_by(client, guard)
    # a part as a file would be sent in pieces of 16 KiB
    client.meta.events.unregister("before-parameter-build.s3.UploadPart", convert_body_to_file_like_object)
    return client


def bytes_client(bucket: str, values: Mapping[str, str], url: str, region: str, seconds: float, *, tries: int) -> Bytes:
    """obstore's of one bucket; arguments as of the other, `url` never empty."""
    credentials: Any = {
        "access_key_id": values[KEY_ID],
        "secret_access_key": values[SECRET_KEY],
        "token": values.get(SESSION_TOKEN) or None,
        "expires_at": None,
    }
    # all that the environment could set otherwise is said
    return Bytes(
        bucket,
        endpoint=url,
        aws_endpoint_url_s3=url,
        region=region,
        credential_provider=lambda: credentials,
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
