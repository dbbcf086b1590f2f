"""What each kind of store says of the place that it is."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from cloudmesh.api.schema import Model

_URL = re.compile(r"(https?)://(\[[^]]*\]|[^/:]*)(?::([0-9]+))?(/.*)?")
_PORTS = {"http": "80", "https": "443"}
Location = tuple[str, ...]
"""Which place a store is: two stores of the same one see the same objects."""


def address(url: str) -> tuple[str, str, str]:
    """Host, port and path of an endpoint; the API server has looked at its form."""
    found = _URL.fullmatch(url)
    if found is None:
        return url.lower(), "", ""
    scheme, host, port, path = found.groups(default="")
    return host.lower().strip("[]"), port or _PORTS[scheme], path.strip("/")


class Place(Model):
    """A member of DataStore.spec that says which store it is."""

    CREDENTIALS: ClassVar[Literal["Needed", "Allowed", "None"]] = "None"
    """Whether `spec.credentials` must be set, may be, or can't be."""
    ENDPOINTS: ClassVar[Mapping[str, Literal["Url", "Host"]]] = {}
    """Paths of the fields that say where to connect: the Secret must list these hosts."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Refuses a kind that leaves out what each must say."""
        if missing := ", ".join(sorted(cls.__abstractmethods__)):
            raise TypeError(f"{cls.__name__} must say what its {missing} is")

    @abstractmethod
    def location(self, namespace: str, secret: str) -> Location:
        """Which place it is: the kind, then what no two places have in common.

        Args:
            namespace: Of the DataStore.
            secret: Name of its Secret, empty for none.
        """

    @property
    @abstractmethod
    def reached_at(self) -> str:
        """Host that it is reached at, in lower case and without brackets; empty for nowhere."""

    @property
    @abstractmethod
    def domain(self) -> str:
        """What it is lost together with; empty for what the store itself declares."""

    @property
    @abstractmethod
    def own_region(self) -> str:
        """Where it is, as far as its fields tell; empty if they don't."""

    @property
    def same_for_all(self) -> bool:
        """Whether all namespaces mean one place by the location: a host without a dot is a Service of their own."""
        host = self.reached_at
        return not host or "." in host or ":" in host
