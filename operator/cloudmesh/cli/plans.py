"""What a change of rules or stores takes: of a quote that waits for approval, or of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic import ValidationError

from cloudmesh.api.virtualdirectory import VirtualDirectory
from cloudmesh.cli.connection import UsageError
from cloudmesh.data.asked import rules_of


def read(file: str) -> VirtualDirectory:
    """The one VirtualDirectory of a YAML file.

    Raises:
        UsageError: There is none, or more, or it isn't right.
    """
    try:
        documents = [one for one in yaml.safe_load_all(Path(file).read_text()) if isinstance(one, dict)]
        found = [one for one in documents if one.get("kind") == "VirtualDirectory"]
        if len(found) != 1:
            raise UsageError(f"'{file}' must hold one VirtualDirectory, and holds {len(found)}")
        return VirtualDirectory.model_validate(found[0])
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UsageError(f"'{file}' isn't a VirtualDirectory: {told}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"'{file}' isn't YAML: {error}") from None


def wanted(directory: VirtualDirectory) -> tuple[list[dict[str, Any]], list[str]]:
    """Its rules as its gateway knows them, and its stores.

    Raises:
        UsageError: A rule names a VirtualCluster: only the operator knows where that is.
    """
    for rule in directory.spec.placement.rules:
        if rule.near is not None and rule.near.region is None:
            raise UsageError(f"rule '{rule.name}' is near a VirtualCluster: write its `region` to count without it")
    return msgspec.to_builtins(rules_of(directory)), [store.name for store in directory.spec.stores]
