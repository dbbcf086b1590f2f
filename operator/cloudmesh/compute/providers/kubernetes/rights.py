"""Asks the API server whether the operator may do what Pod machines need."""

from __future__ import annotations

import asyncio

from cloudmesh.compute.ports import Finding
from cloudmesh.engine import Kube, Resource

REVIEW = Resource("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)
NEEDED = (
    ("pods", "", "create get list delete patch"),
    ("pods", "log", "get"),
    ("services", "", "create get patch delete"),
)
"""Resource, subresource, verbs."""


async def review_rights(kube: Kube, namespace: str) -> Finding:
    """One finding for all rights in a namespace."""
    asked = [(*row[:2], verb) for row in NEEDED for verb in row[2].split()]
    allowed = await asyncio.gather(*(_may(kube, namespace, *each) for each in asked))
    missing: dict[str, list[str]] = {}
    for (resource, subresource, verb), yes in zip(asked, allowed, strict=True):
        if not yes:
            missing.setdefault(f"{resource}/{subresource}" if subresource else resource, []).append(verb)
    if not missing:
        return Finding("rights", True, f"machines can be made in namespace {namespace}")
    words = "; ".join(f"{', '.join(verbs)} {resource}" for resource, verbs in missing.items())
    return Finding("rights", False, f"the operator may not {words} in namespace {namespace}: its role lacks them")


async def _may(kube: Kube, namespace: str, resource: str, subresource: str, verb: str) -> bool:
    attributes = {"namespace": namespace, "resource": resource, "verb": verb}
    if subresource:
        attributes["subresource"] = subresource
    review = await kube.create(REVIEW, {"metadata": {}, "spec": {"resourceAttributes": attributes}})
    return bool((review.get("status") or {}).get("allowed"))
