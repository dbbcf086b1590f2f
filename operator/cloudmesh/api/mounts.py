"""Directories mounted on the machines of a VirtualCluster: what users write, and what the wings tell each other."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from cloudmesh.api.fields import LocalReference, by_key
from cloudmesh.api.schema import Model, Rule, Rules, Shape

MAX_MOUNTS = 8
GROUP = "cloudmesh:clusters"
"""Group of all clusters that have a directory mounted: rules for paths may name it."""

_PATH = r"^(/[A-Za-z0-9_.][-A-Za-z0-9_.]*)+$"
_DOTS = r"/[.]{1,2}(/|$)"
_SYSTEM = (
    r"^/(bin|boot|dev|etc|lib|lib32|lib64|libx32|lost[+]found|proc|run|sbin|snap|sys|tmp|usr|var)(/|$)"
    r"|^/(home|media|mnt|opt|root|srv)$"
)
_FOLDER = r"^[^/\x00-\x1f\x7f]+(/[^/\x00-\x1f\x7f]+)*$"
_ADDRESS = (
    r"^https?://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[-A-Za-z0-9._~]+)*/?$"
)

MountPath = Annotated[
    str,
    Field(min_length=2, max_length=255, pattern=_PATH),
    Shape(
        _PATH, "`path` must be absolute, such as `/data`, of letters, digits, '-', '_' and '.', with no '/' at its end"
    ),
    Rules(
        Rule(
            cel=f"!self.matches('{_DOTS}')",
            message="no part of `path` may be '.' or '..'",
            holds=lambda p: re.search(r"/\.{1,2}(/|\Z)", p) is None,
        ),
        Rule(
            cel=f"!self.matches('{_SYSTEM}')",
            message="`path` must not be a folder of the system's, such as '/etc', '/usr/local' or '/home': take"
            " one such as `/data` or `/mnt/data`",
            holds=lambda p: re.search(_SYSTEM.replace("$", r"\Z"), p) is None,
        ),
    ),
]
SubPath = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=_FOLDER),
    Shape(_FOLDER, "`subPath` must be a folder such as `raw/2024`, without a '/' at its beginning or end"),
    Rules(
        Rule(
            cel="!self.matches('(^|/)[.]{1,2}(/|$)') && !self.matches('^[.]cloudmesh(/|$)')",
            message="no part of `subPath` may be '.' or '..', nor its first one '.cloudmesh'",
            holds=lambda p: re.search(r"(\A|/)\.{1,2}(/|\Z)|\A\.cloudmesh(/|\Z)", p) is None,
        )
    ),
]
Access = Literal["ReadWrite", "ReadOnly"]


class Mount(Model):
    """A VirtualDirectory as a folder of each machine."""

    path: MountPath
    """The folder on the machines, such as `/data`; it is made where it isn't there, and must be empty."""
    directory_ref: LocalReference
    """The VirtualDirectory, of the same namespace."""
    sub_path: SubPath | None = None
    """Folder of the directory that is mounted, such as `raw/2024`; left out, the whole directory."""
    access: Access = "ReadWrite"
    """What the machines may do there."""
    address: (
        Annotated[
            str,
            Field(min_length=8, max_length=512, pattern=_ADDRESS),
            Shape(_ADDRESS, "`address` must be an address such as `https://files.example.org`"),
        ]
        | None
    ) = None
    """Where machines reach the directory's gateway, such as `https://files.example.org`; left out, its Service inside
    the cluster, which machines elsewhere don't reach."""


def _paths_differ(mounts: list[Mount]) -> list[Mount]:
    for path, count in Counter(mount.path for mount in mounts).items():
        if count > 1:
            raise ValueError(f"must not hold '{path}' twice")
    return mounts


Mounts = Annotated[
    list[Mount], Field(max_length=MAX_MOUNTS, json_schema_extra=by_key("path")), AfterValidator(_paths_differ)
]


@dataclass(frozen=True, slots=True)
class Login:
    """What a cluster is let in with, for one of its mounts; the Secret holds one below each key.

    Args:
        directory: Name of the VirtualDirectory.
        folder: All that it may see; empty for the whole directory.
        access: What it may do there.
        login: Its name at the door.
        password: Its password.
        hashed: The same as a bcrypt hash.
    """

    directory: str
    folder: str
    access: Access
    login: str
    password: str = field(repr=False)
    hashed: str = field(repr=False)

    def to_json(self) -> bytes:
        """As it stands in the Secret."""
        return json.dumps(asdict(self), sort_keys=True).encode()


def secret_name(cluster: str) -> str:
    """Name of the Secret with a cluster's logins."""
    return f"{cluster}-vc-mounts"


def user_name(cluster: str) -> str:
    """Who all mounts of a cluster are for the rules of a directory."""
    return f"cloudmesh:cluster:{cluster}"


def key_of(mount: Mount) -> str:
    """By which one mount is known in the Secret and on machines; another place, folder or access is another mount.

    Access counts, as what was written to a mount gets into its directory with the right to write only.
    """
    only = (mount.access,) if mount.access == "ReadOnly" else ()
    told = "\0".join((mount.path, mount.directory_ref.name, mount.sub_path or "", *only))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def logins_in(data: Mapping[str, bytes]) -> dict[str, Login]:
    """The logins of a Secret by their keys; what can't be read isn't there."""
    found: dict[str, Login] = {}
    for key, text in data.items():
        try:
            told: Any = json.loads(text)
            words = [str(told[name]) for name in ("directory", "folder", "login", "password", "hashed")]
            access: Access = "ReadWrite" if told["access"] == "ReadWrite" else "ReadOnly"
        except (ValueError, KeyError, TypeError):
            continue
        directory, folder, login, password, hashed = words
        found[key] = Login(directory, folder, access, login, password, hashed)
    return found
