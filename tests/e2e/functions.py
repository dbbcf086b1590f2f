"""A user's view of FunctionServices: apply, wait, look, call."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.demo import port_forward
from tests.testbed.kubectl import CommandFailed, TestCluster

Obj = dict[str, Any]
RESOURCE = "functionservices.cloudmesh.org"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str
    type: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Functions:
    """FunctionServices of one namespace."""

    def __init__(self, cluster: TestCluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **more)

    def apply(self, name: str, source: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        """Applies one with an inline source; `spec` adds to it."""
        self.put(name, {"source": {"inline": source}, **spec}, annotations)

    def put(self, name: str, spec: Obj, annotations: dict[str, str] | None = None) -> None:
        body = {
            "apiVersion": "cloudmesh.org/v1alpha1",
            "kind": "FunctionService",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": spec,
        }
        self.cluster.apply(body, namespace=self.namespace)

    def get(self, name: str) -> Obj:
        return self.cluster.get("-n", self.namespace, RESOURCE, name)

    def condition(self, name: str, type_: str = "Ready") -> Obj:
        """The condition, empty while it isn't there or is about an older spec."""
        found = self.get(name)
        for condition in (found.get("status") or {}).get("conditions") or []:
            if condition["type"] == type_ and condition.get("observedGeneration") == found["metadata"]["generation"]:
                return dict(condition)
        return {}

    def wait(self, name: str, reason: str = "AsSpecified", *, seconds: float = 90) -> Obj:
        """Waits until Ready, of the newest spec, has this reason; gives the object."""
        self.until(lambda: self.condition(name).get("reason") == reason, f"{name}: {reason}", seconds, name)
        return self.get(name)

    def until(self, true: Callable[[], bool], what: str, seconds: float = 60, name: str = "") -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                state = json.dumps(self.get(name).get("status"), indent=1) if name else ""
                raise AssertionError(f"not within {seconds:g} s: {what}\n{state}")
            time.sleep(0.2)

    def call(self, name: str, path: str, body: Any = None, *, accept: str = "", retries: float = 10) -> Answer:
        """One call: GET, or POST with a JSON body. A connection that is refused is tried again for a while."""
        if self.cluster.info.kind == "own":
            return self._call(f"http://{self.address(name)}", path, body, accept, retries)
        with port_forward(self.cluster.info, self.namespace, f"service/{name}") as base:
            return self._call(base, path, body, accept, retries)

    def address(self, name: str) -> str:
        """The Service's ClusterIP; the test bed has a route to it."""
        return str(self.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}"))

    def _call(self, base: str, path: str, body: Any, accept: str, retries: float) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if accept:
            headers["Accept"] = accept
        end = time.monotonic() + retries
        while True:
            try:
                request = urllib.request.Request(base + path, data=data, headers=headers)
                with urllib.request.urlopen(request, timeout=15) as answer:
                    return Answer(answer.status, answer.read().decode(), answer.headers["Content-Type"] or "")
            except urllib.error.HTTPError as error:
                with error:
                    return Answer(error.code, error.read().decode(), error.headers["Content-Type"] or "")
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def delete(self, name: str) -> None:
        self.kubectl("delete", RESOURCE, name, "--ignore-not-found", timeout=60)

    def gone(self, kind: str, name: str) -> bool:
        try:
            return not self.kubectl("get", kind, name, "--ignore-not-found", "-o", "name").strip()
        except CommandFailed:
            return False


def query(**values: Any) -> str:
    """`?a=1&b=2`"""
    return "?" + urllib.parse.urlencode(values, doseq=True)
