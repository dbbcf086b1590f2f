"""How the build of a function stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Waiting:
    """The build goes on; look again after so many seconds."""

    stage: str
    after: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The user's input is wrong; nothing will change until it does.

    `kind` is the builder's error class, `done` how many of the steps parse and lock had been taken.
    """

    kind: str
    message: str
    line: int = 0
    column: int = 0
    done: int = 2


@dataclass(frozen=True, slots=True)
class Built:
    """An image, and what is to be kept of its making."""

    image: str
    data: Mapping[str, Any] = field(repr=False)
