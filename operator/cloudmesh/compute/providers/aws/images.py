"""Images of an account: for which of its aliases there is one, and what machines can run it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudmesh.compute.ports import Finding
from cloudmesh.compute.providers.aws.session import Session, filters

DEFAULT = "default"
"""Alias of what a machine is made of that names no image."""
ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "arm64": "arm64"}
"""EC2's words for the architectures that machines have here."""

_GRAVITON = re.compile(r"a1\.|[a-z]+[0-9]+g")
"""Names of types with AWS's own processors, such as t4g.micro and c7gn.large."""


@dataclass(frozen=True, slots=True)
class Images:
    """What an account's aliases stand for.

    Args:
        arch: Architecture of each alias that can be used, such as `amd64`.
        wrong: Why another one can't be used, by alias.
    """

    arch: Mapping[str, str]
    wrong: Mapping[str, str]

    def of(self, arch: str) -> frozenset[str]:
        """Aliases that machines of an architecture can be made of; the empty one stands for a default."""
        found = {alias for alias, each in self.arch.items() if each == arch}
        return frozenset(found | {""} if DEFAULT in found else found)

    def example(self, ids: Mapping[str, str], types: Sequence[str]) -> tuple[str, str]:
        """A machine type and the id of an image that go together, by the type's name; whatever there is if none do."""
        for type_ in types:
            arch = "arm64" if _GRAVITON.match(type_) else "amd64"
            for alias, each in self.arch.items():
                if each == arch:
                    return type_, ids[alias]
        return types[0], next(iter(ids.values()), "")

    def finding(self) -> Finding:
        """What a check says of it; an image that lacks takes nothing from the others."""
        if not self.arch and not self.wrong:
            return Finding("images", False, "no machine can be made: spec.images names no image", fatal=False)
        told = [f"{alias}: {why}" for alias, why in sorted(self.wrong.items())]
        if told:
            return Finding("images", False, f"spec.images: {'; '.join(told)}"[:1000], fatal=False)
        return Finding("images", True, ", ".join(f"{alias} for {arch}" for alias, arch in sorted(self.arch.items())))


async def read_images(session: Session, aliases: Mapping[str, str]) -> Images:
    """Looks at the images of an account.

    Args:
        session: The region.
        aliases: Names of images and their ids.

    Raises:
        CloudmeshError: EC2 doesn't tell.
    """
    arch: dict[str, str] = {}
    wrong: dict[str, str] = {}
    ids = sorted(set(aliases.values()))
    # by a filter: asked for by id, one that isn't there would fail the call for all
    wanted = {"Filters": filters({"image-id": ids}), "IncludeDeprecated": True}
    items = await session.pages("describe_images", "Images", **wanted) if ids else []
    known = {str(item["ImageId"]): item for item in items}
    for alias, id_ in aliases.items():
        item = known.get(id_)
        if item is None:
            wrong[alias] = f"there is no image {id_} in {session.region} that this account can see"
        elif (state := str(item.get("State") or "available")) != "available":
            wrong[alias] = f"{id_} is {state}"
        elif (told := str(item.get("Architecture") or "x86_64")) not in ARCHITECTURES:
            wrong[alias] = f"{id_} is for the architecture {told}, which no machine here has"
        else:
            arch[alias] = ARCHITECTURES[told]
    return Images(arch, wrong)
