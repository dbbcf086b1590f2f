"""Secrets and ConfigMaps made for an object: changed only when they differ, never taken from a stranger."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from cloudmesh.api import names
from cloudmesh.engine import (
    Kube,
    NameConflict,
    Obj,
    Resource,
    Transient,
    is_deleting,
    is_owned_by,
    own,
)


async def ensure_data(kube: Kube, resource: Resource, owner: Obj, name: str, wanted: Mapping[str, bytes]) -> bool:
    """Makes a Secret or ConfigMap of the owner hold exactly this; says whether a write was needed.

    Raises:
        NameConflict: Something that isn't the owner's has the name.
    """
    found = await find_own(kube, resource, owner, name)
    if found is None:
        await create_data(kube, resource, owner, name, wanted)
        return True
    held = data_of(resource, found)
    if held == wanted:
        return False
    await change_data(kube, resource, found, {**dict.fromkeys(held, None), **wanted})
    return True


async def find_own(kube: Kube, resource: Resource, owner: Obj, name: str) -> Obj | None:
    """The owner's object of that name; None if there is none.

    Raises:
        NameConflict: A stranger's has the name.
        Transient: One is there that is going.
    """
    found = await kube.get(resource, owner["metadata"]["namespace"], name)
    if found is None:
        return None
    if is_deleting(found):
        raise Transient(f"{resource.kind} '{name}' is being deleted")
    if is_owned_by(found, owner["metadata"]["uid"]):
        return found
    labels = found["metadata"].get("labels") or {}
    mine = (names.MANAGED_BY, owner["kind"], owner["metadata"]["name"])
    if mine == tuple(labels.get(n) for n in (names.LABEL_MANAGED_BY, names.LABEL_OWNER_KIND, names.LABEL_OWNER_NAME)):
        raise Transient(f"{resource.kind} '{name}' of a deleted {owner['kind']} of this name is going")
    raise NameConflict(
        f"{resource.kind} '{name}' exists and isn't of this {owner['kind']}; "
        f"delete it or give the {owner['kind']} another name"
    )


async def create_data(kube: Kube, resource: Resource, owner: Obj, name: str, data: Mapping[str, bytes]) -> Obj:
    """Creates the object.

    Raises:
        AlreadyExists: Something has the name: look again.
    """
    body = own({"metadata": {"name": name}, **_fields(resource, data)}, owner)
    if resource.kind == "Secret":
        body["type"] = "Opaque"
    return await kube.create(resource, body)


async def change_data(kube: Kube, resource: Resource, found: Obj, changes: Mapping[str, bytes | None]) -> Obj:
    """Sets keys, and removes those whose value is None; only of this very version of the object.

    Raises:
        Conflict: It was changed meanwhile.
    """
    meta = found["metadata"]
    fields = _fields(resource, {key: value for key, value in changes.items() if value is not None})
    fields.setdefault("data", {}).update({key: None for key, value in changes.items() if value is None})
    patch = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}, **fields}
    return await kube.patch(resource, meta["namespace"], meta["name"], patch)


def data_of(resource: Resource, obj: Obj) -> dict[str, bytes]:
    """What a Secret or ConfigMap holds."""
    held = obj.get("data") or {}
    if resource.kind == "Secret":
        return {key: base64.b64decode(value) for key, value in held.items()}
    binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in held.items()} | binary


def _fields(resource: Resource, data: Mapping[str, bytes]) -> Obj:
    if resource.kind == "Secret":
        return {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for key, value in data.items():
        try:
            text[key] = value.decode()
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(value).decode()
    return {"data": text} | ({"binaryData": binary} if binary else {})
