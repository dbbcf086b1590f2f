"""Policies of somebody else's, by entry point of group `cloudmesh.policy`."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import entry_points

from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.model import Policy
from cloudmesh.policy.scores import Plugin

GROUP = "cloudmesh.policy"


def plugin_of(policy: Policy) -> Plugin | None:
    """What `place` needs as `plugin` for a policy: None unless it is of mode Plugin.

    Raises:
        PolicyError: The plug-in isn't there, or can't be loaded.
    """
    return load_plugin(policy.plugin) if policy.mode == "Plugin" else None


@lru_cache(maxsize=64)
def load_plugin(name: str) -> Plugin:
    """The function behind an entry point, to be handed to `place`.

    Args:
        name: Name of the entry point.

    Raises:
        PolicyError: There is none of that name, or it can't be loaded.
    """
    for point in entry_points(group=GROUP, name=name):
        try:
            plugin: Plugin = point.load()
        except Exception as error:
            raise PolicyError(f"the plug-in '{name}' can't be loaded: {type(error).__name__}: {error}") from error
        return plugin
    raise PolicyError(f"there is no plug-in '{name}' in group {GROUP}")
