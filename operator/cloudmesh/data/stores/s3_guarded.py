"""Contents by boto3 instead of obstore, where each connection has to go through the guard.

obstore looks names up by itself, and goes wherever an answer sends it. Over TLS both lead nowhere else: nothing but TLS
is followed, and only who has the certificate of the name is asked for anything. Without TLS anybody could be asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from cloudmesh.data.stores.objects import Pieces
from cloudmesh.data.stores.ports import CHUNK


def get(client: Any, bucket: str, key: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], Pieces]:
    """One call that reads, or looks only; what is known of the object, and the content.

    Args:
        client: boto3's.
        bucket: The bucket.
        key: Of the object.
        options: As of obstore's `get`: `head`, `range`, `if_match`.
    """
    asked: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if tag := options.get("if_match"):
        asked["IfMatch"] = tag
    if options.get("head"):
        return client.head_object(**asked), []
    if span := options.get("range"):
        asked["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    answer = client.get_object(**asked)
    with closing(answer["Body"]) as body:
        return answer, list(body.iter_chunks(CHUNK))


def whole_size(answer: Mapping[str, Any]) -> int:
    """Bytes of the object, of which the answer may have a part only."""
    told = str(answer.get("ContentRange") or "").rpartition("/")[2]
    return int(told) if told.isdigit() else int(answer["ContentLength"])


def put(client: Any, bucket: str, key: str, content: bytes, texts: Mapping[str, str], mode: Any) -> dict[str, Any]:
    """One call that writes; the answer as obstore's `put` gives it.

    Args:
        client: boto3's, which makes a call once.
        bucket: The bucket.
        key: Of the object.
        content: All of it.
        texts: Kept with it.
        mode: As of obstore's `put`: `overwrite`, `create` or a tag.
    """
    tied = {"IfNoneMatch": "*"} if mode == "create" else {"IfMatch": mode["e_tag"]} if mode != "overwrite" else {}
    answer = client.put_object(Bucket=bucket, Key=key, Body=content, Metadata=dict(texts), **tied)
    return {"e_tag": answer.get("ETag")}
