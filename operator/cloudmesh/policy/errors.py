"""What a wrong policy raises."""

from __future__ import annotations


class PolicyError(ValueError):
    """A policy names something that isn't there, or a plug-in answers what can't be used; the message names it."""
