"""What of a configuration says where files belong: when it changes, the mover looks at all of them.

What doesn't is named; anything else does, so that a member that comes later is forgotten by nobody.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cloudmesh.data.config import DirectoryConfig, StoreConfig, fingerprint

DIRECTORY_APART: Final = frozenset({
    "namespace", "name", "uid", "installation", "quota_bytes", "quota_files", "currency", "max_monthly_nanos", "adopt",
    "auth", "web", "webdav", "operator_token", "allow_private", "proposal", "emptying", "postgres", "postgres_ca",
    "ending", "forbidden",
})  # fmt: skip
"""Members of a directory by which no file is placed or looked at."""
STORE_APART: Final = frozenset({
    "kind", "settings", "credentials", "identity", "requests_per_second", "bytes_per_second", "mount", "uid",
})  # fmt: skip
"""Members of a store by which no file is placed; those of another place make it a store that is new to us."""


def placing(config: DirectoryConfig) -> str:
    """Hash of what says where files belong."""
    told = {name: getattr(config, name) for name in _members(config, DIRECTORY_APART) if name != "stores"}
    told["stores"] = [{name: getattr(s, name) for name in _members(s, STORE_APART)} for s in config.stores]
    return fingerprint(msgspec.json.encode(told, order="sorted"))


def _members(config: DirectoryConfig | StoreConfig, apart: frozenset[str]) -> list[str]:
    fields: tuple[Any, ...] = config.__struct_fields__
    return [name for name in fields if name not in apart]
