"""What a function's spec refers to: the source in a ConfigMap, logins in Secrets, read when they are needed."""

from __future__ import annotations

import base64
import json
from typing import Any

from pydantic import BaseModel

from cloudmesh.api import names
from cloudmesh.api.functionservice import MAX_INLINE_LENGTH, FunctionService
from cloudmesh.engine import CONFIG_MAP, SECRET, Kube
from cloudmesh.functions.buildline import Sources
from cloudmesh.functions.revision import Wanted

Obj = dict[str, Any]


class SourceMissing(Exception):
    """What the spec refers to isn't there, or can't be used; the text names the field and says what to do."""


def references(function: FunctionService) -> set[tuple[str, str, str]]:
    """The objects (kind, namespace, name) whose change asks for a new look at the function."""
    namespace, found = function.metadata.namespace or "", set()
    if ref := function.spec.source.config_map_ref:
        found.add(("ConfigMap", namespace, ref.name))
    for secret in (function.spec.python.index_ref, function.spec.image.push_secret_ref):
        if secret is not None:
            found.add(("Secret", namespace, secret.name))
    return found


class Inputs:
    """Reads what specs refer to; nothing is kept."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def wanted(self, obj: Obj, function: FunctionService) -> Wanted:
        """What the spec asks for, with the source itself.

        Raises:
            SourceMissing: the ConfigMap or its key isn't there.
            CloudmeshError: the API server doesn't answer.
        """
        spec, metadata = function.spec, obj["metadata"]
        annotations = metadata.get("annotations") or {}
        asked: dict[str, Any] = {
            "module": spec.source.module,
            **{k: _written(getattr(spec, k)) for k in ("expose", "python", "image", "runtime")},
        }
        # It changes the default of the CPU request, which its percentage is a share of.
        autoscaled = spec.autoscaling is not None
        if autoscaled:
            asked["autoscaled"] = True
        return Wanted(
            namespace=metadata["namespace"],
            name=metadata["name"],
            module=function.module,
            source=await self._source(metadata["namespace"], function),
            expose={k: v for k, v in _full(spec.expose).items() if k in ("functions", "class")},
            base_path=spec.expose.base_path,
            python=spec.python.version,
            requirements=tuple(spec.python.requirements),
            index_secret=spec.python.index_ref.name if spec.python.index_ref else "",
            image=_full(spec.image),
            runtime=_full(spec.runtime),
            asked=asked,
            autoscaled=autoscaled,
            rebuild=annotations.get(names.ANNOTATION_REBUILD, ""),
            relock=annotations.get(names.ANNOTATION_RELOCK, ""),
        )

    async def _source(self, namespace: str, function: FunctionService) -> str:
        source = function.spec.source
        if source.config_map_ref is None:
            return source.inline or ""
        name, key = source.config_map_ref.name, source.config_map_ref.key
        found = await self._kube.get(CONFIG_MAP, namespace, name)
        if found is None:
            raise SourceMissing(f"`spec.source.configMapRef.name`: there is no ConfigMap '{name}'; create it")
        data = found.get("data") or {}
        if key not in data:
            known = ", ".join(f"'{k}'" for k in sorted(data)) or "none"
            raise SourceMissing(
                f"`spec.source.configMapRef.key`: ConfigMap '{name}' has no key '{key}'; it has {known}"
            )
        text = str(data[key])
        if len(text) > MAX_INLINE_LENGTH:
            limit = f"has {len(text)} characters, and may have {MAX_INLINE_LENGTH}"
            raise SourceMissing(f"`spec.source.configMapRef`: key '{key}' of ConfigMap '{name}' {limit}")
        return text

    async def sources(self, wanted: Wanted) -> Sources:
        """The credentials that the build of `wanted` needs.

        Raises:
            SourceMissing: a Secret isn't there, or doesn't hold what it must.
            CloudmeshError: the API server doesn't answer.
        """
        repository: Obj | None = None
        if push := wanted.image.get("repository"):
            repository = {"push": push, "pull": wanted.image.get("pullRepository") or push}
            if ref := wanted.image.get("pushSecretRef"):
                repository["credentials"] = await self._registry_login(wanted.namespace, ref["name"], push)
        index = await self._index(wanted.namespace, wanted.index_secret) if wanted.index_secret else None
        return Sources(repository, index)

    async def _secret(self, namespace: str, name: str, field: str, type_: str) -> dict[str, str]:
        found = await self._kube.get(SECRET, namespace, name)
        if found is None:
            raise SourceMissing(f"`{field}`: there is no Secret '{name}'; create it, of type {type_}")
        has = found.get("type") or "Opaque"
        if has != type_:
            todo = "delete it and create it again with that type"
            raise SourceMissing(f"`{field}`: Secret '{name}' must be of type {type_}, and is of type {has}; {todo}")
        try:
            return {k: base64.b64decode(v).decode() for k, v in (found.get("data") or {}).items()}
        except ValueError:
            raise SourceMissing(f"`{field}`: Secret '{name}' must hold text only") from None

    async def _registry_login(self, namespace: str, name: str, repository: str) -> Obj:
        field = "spec.image.pushSecretRef.name"
        data = await self._secret(namespace, name, field, names.SECRET_TYPE_REGISTRY)
        host = repository.split("/", 1)[0]
        try:
            auths = json.loads(data[".dockerconfigjson"])["auths"]
            entry = next(v for k, v in auths.items() if k.removeprefix("https://").split("/", 1)[0] == host)
            if "username" in entry:
                return {"username": entry["username"], "password": entry["password"]}
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (KeyError, ValueError, StopIteration, AttributeError, TypeError):
            raise SourceMissing(f"`{field}`: Secret '{name}' must hold a login for '{host}'") from None
        return {"username": user, "password": password}

    async def _index(self, namespace: str, name: str) -> Obj:
        field = "spec.python.indexRef.name"
        data = await self._secret(namespace, name, field, names.SECRET_TYPE_CREDENTIALS)
        url = data.get("url", "").strip()
        host = url.split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1]
        if not url.startswith("https://"):
            raise SourceMissing(f"`{field}`: Secret '{name}' must hold an https:// address under its key 'url'")
        if host not in data.get("hosts", "").replace(",", " ").split():
            raise SourceMissing(f"`{field}`: Secret '{name}' must list '{host}' under its key 'hosts'")
        login = {"username": data.get("username", ""), "password": data.get("password", "")}
        return {"url": url, **login, "caCrt": data.get("ca.crt", "")}


def _full(model: BaseModel) -> Obj:
    return model.model_dump(by_alias=True, exclude_none=True, mode="json")


def _written(model: BaseModel) -> Obj:
    return model.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, mode="json")
