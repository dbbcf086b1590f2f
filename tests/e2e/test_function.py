"""FunctionService on a real cluster, as a user sees it."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from tests.e2e.functions import Functions, query
from tests.install import ROOT

pytestmark = pytest.mark.e2e

ECHO = '''
def version() -> int:
    """The version of this function."""
    return {number}
'''


def test_the_slide_s_function_answers(functions: Functions) -> None:
    functions.kubectl("apply", "-f", str(ROOT / "manifests/examples/functions/processor-name.yaml"))
    functions.kubectl(
        "wait", "--for=condition=Ready", "functionservices.cloudmesh.org/processor-name", "--timeout=120s", timeout=130
    )
    answer = functions.call("processor-name", "/cloudmesh/get_processor_name")
    assert answer.status == 200
    assert list(answer.json) == ["model"]
    assert answer.json["model"]
    document = functions.call("processor-name", "/cloudmesh/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert document["paths"]["/get_processor_name"]["get"]["operationId"] == "cpu.get_processor_name"
    assert document["servers"] == [{"url": "/cloudmesh"}]
    kept = json.loads(
        functions.kubectl("get", "configmap", "processor-name-openapi", "-o", "jsonpath={.data.openapi\\.json}")
    )
    assert kept == document
    status = functions.get("processor-name")["status"]
    assert {o["operationId"] for o in status["openapi"]["operations"]} >= {"cpu.get_processor_name"}
    assert "@sha256:" in status["image"]
    assert float(status["importSeconds"]) > 0
    page = functions.call("processor-name", "/cloudmesh/ui")
    assert page.status == 200
    assert "swagger" in page.body.lower()
    assert yaml.safe_load(functions.call("processor-name", "/cloudmesh/openapi.yaml").body) == document
    assert functions.call("processor-name", "/healthz").status == 200
    assert functions.call("processor-name", "/readyz").status == 200
    assert "cloudmesh_function_requests_total" in functions.call("processor-name", "/metrics").body
    columns = functions.kubectl("get", "functionservices.cloudmesh.org", "processor-name").splitlines()
    assert columns[0].split() == ["NAME", "READY", "REASON", "URL", "REVISION", "REPLICAS", "AGE"]
    assert columns[1].split()[1:3] == ["True", "AsSpecified"]


def test_types_are_checked_on_the_wire(functions: Functions) -> None:
    functions.apply(
        "types",
        """
import enum
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Optional, TypedDict, Union
from uuid import UUID


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: float
    y: float = 0.0


class Box(TypedDict):
    low: Point
    high: Point


def scale(point: Point, factor: float = 2.0) -> Point:
    return Point(point.x * factor, point.y * factor)


def area(box: Box) -> float:
    return (box["high"].x - box["low"].x) * (box["high"].y - box["low"].y)


def paint(colour: Colour, times: Literal[1, 2, 3] = 1, note: Optional[str] = None) -> list[str]:
    return [colour.value] * times + ([note] if note else [])


def later(day: date, at: datetime, amount: Decimal, key: UUID) -> dict[str, str]:
    return {"day": day.isoformat(), "at": at.isoformat(), "amount": str(amount), "key": str(key)}


def either(value: Union[int, list[int]]) -> int:
    return value if isinstance(value, int) else sum(value)


def raw(data: bytes) -> int:
    return len(data)
""",
    )
    functions.wait("types")
    assert functions.call("types", "/cloudmesh/scale", {"point": {"x": 1, "y": 2}}).json == {"x": 2.0, "y": 4.0}
    box = {"low": {"x": 0, "y": 0}, "high": {"x": 2, "y": 3}}
    assert functions.call("types", "/cloudmesh/area", {"box": box}).json == 6.0
    assert functions.call("types", "/cloudmesh/paint" + query(colour="red", times=2)).json == ["red", "red"]
    assert functions.call("types", "/cloudmesh/either", {"value": [1, 2]}).json == 3
    assert functions.call("types", "/cloudmesh/raw", {"data": "AAEC"}).json == 3
    key = "12345678-1234-5678-1234-567812345678"
    answer = functions.call(
        "types", "/cloudmesh/later" + query(day="2026-01-02", at="2026-01-02T03:04:05Z", amount="1.10", key=key)
    )
    assert answer.json["amount"] == "1.10"
    wrong = functions.call("types", "/cloudmesh/paint" + query(colour="green"))
    assert wrong.status == 422
    assert wrong.type.startswith("application/problem+json")
    assert "colour" in wrong.body
    assert functions.call("types", "/cloudmesh/paint" + query(colour="red", tims=2)).status == 422
    assert functions.call("types", "/cloudmesh/nothing").status == 404


def test_an_edit_rolls_out_and_a_pin_goes_back(functions: Functions) -> None:
    functions.apply("edit", ECHO.format(number=1))
    functions.wait("edit")
    functions.apply("edit", ECHO.format(number=2))
    found = functions.wait("edit")
    assert found["status"]["servingRevision"] == "edit-00002"
    assert functions.call("edit", "/cloudmesh/version").json == 2
    functions.apply("edit", ECHO.format(number=2), revision={"pin": "edit-00001"})
    found = functions.wait("edit")
    assert found["status"]["servingRevision"] == "edit-00001"
    assert functions.call("edit", "/cloudmesh/version").json == 1
    functions.apply("edit", ECHO.format(number=2), revision={"pin": "edit-00007"})
    assert "edit-00007" in functions.wait("edit", "RolloutFailed")["status"]["conditions"][0]["message"]
    assert functions.call("edit", "/cloudmesh/version").json == 1
    functions.apply("edit", ECHO.format(number=2))
    assert functions.wait("edit")["status"]["servingRevision"] == "edit-00002"
    functions.delete("edit")
    for kind in ("deployment", "service", "configmap/edit-openapi"):
        name = "" if "/" in kind else "edit"
        functions.until(lambda k=kind, n=name: functions.gone(*(k.split("/") if "/" in k else (k, n))), f"{kind} gone")  # type: ignore[misc]


def test_a_wrong_edit_names_the_place_and_what_ran_goes_on(functions: Functions) -> None:
    functions.apply("wrong", ECHO.format(number=1))
    functions.wait("wrong")
    functions.apply("wrong", "def version() -> int:\n    return 1 +\n")
    found = functions.wait("wrong", "SourceInvalid")
    condition = functions.condition("wrong", "SourceValid")
    assert condition["status"] == "False"
    assert condition["message"].startswith("line 2, column ")
    assert found["status"]["build"]["error"]["line"] == 2
    assert functions.call("wrong", "/cloudmesh/version").json == 1
    functions.apply("wrong", "def version(thing: Undefined) -> int:\n    return 1\n")
    functions.until(
        lambda: functions.condition("wrong", "SourceValid").get("message", "").startswith("line 1, column "),
        "place",
        30,
    )
    functions.apply("wrong", "import flask\n\ndef version() -> int:\n    return 1\n")
    functions.until(lambda: "flask" in functions.condition("wrong").get("message", ""), "the missing package", 30)
    functions.apply("wrong", ECHO.format(number=3), python={"requirements": ["no-such-package-of-cloudmesh-tests"]})
    functions.wait("wrong", "DependenciesUnsatisfiable")
    assert "no-such-package-of-cloudmesh-tests" in functions.condition("wrong", "DependenciesLocked")["message"]
    assert functions.call("wrong", "/cloudmesh/version").json == 1
    functions.apply("wrong", ECHO.format(number=4))
    functions.wait("wrong")
    assert functions.call("wrong", "/cloudmesh/version").json == 4


def test_a_revision_that_crashes_takes_no_traffic(functions: Functions) -> None:
    functions.apply("crash", ECHO.format(number=1))
    functions.wait("crash")
    functions.apply("crash", "raise RuntimeError('no licence')\n" + ECHO.format(number=2))
    found = functions.wait("crash", "RolloutFailed", seconds=150)
    assert "no licence" in found["status"]["conditions"][0]["message"]
    assert found["status"]["servingRevision"] == "crash-00001"
    assert functions.call("crash", "/cloudmesh/version").json == 1
    assert functions.condition("crash", "Available")["status"] == "True"


def test_settings_reach_the_code(functions: Functions) -> None:
    functions.kubectl("create", "secret", "generic", "words", "--from-literal=TOKEN=s3cret")
    functions.kubectl("create", "configmap", "settings", "--from-literal=MODE=fast")
    functions.apply(
        "settings",
        'import os\nimport time\n\n\ndef read(name: str) -> str:\n    return os.environ.get(name, "")\n\n\n'
        "def sleep(seconds: float) -> float:\n    time.sleep(seconds)\n    return seconds\n",
        replicas=2,
        runtime={
            "env": [
                {"name": "PLAIN", "value": "x"},
                {"name": "ONE", "valueFrom": {"secretKeyRef": {"name": "words", "key": "TOKEN"}}},
            ],
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "words"}}],
            "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}},
            "timeoutSeconds": 1,
            "maxBodyBytes": 1000,
        },
    )
    found = functions.wait("settings")
    assert found["status"]["replicas"] == 2
    for name, value in (("PLAIN", "x"), ("ONE", "s3cret"), ("MODE", "fast"), ("TOKEN", "s3cret")):
        assert functions.call("settings", "/cloudmesh/read" + query(name=name)).json == value
    assert functions.call("settings", "/cloudmesh/sleep" + query(seconds=5)).status == 504
    assert functions.call("settings", "/cloudmesh/read", {"name": "x" * 2000}).status == 413
    pod = json.loads(functions.kubectl("get", "pods", "-l", "cloudmesh.org/function=settings", "-o", "json"))["items"][
        0
    ]
    container = pod["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"memory": "256Mi"}
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    functions.kubectl("scale", "functionservices.cloudmesh.org/settings", "--replicas=1")
    functions.until(lambda: functions.get("settings")["status"].get("replicas") == 1, "one replica", 60, "settings")


def test_an_autoscaler_has_its_metrics(functions: Functions) -> None:
    functions.apply("scaled", ECHO.format(number=1), autoscaling={"maxReplicas": 3, "targetCPUPercent": 50})
    functions.wait("scaled")
    scaler = json.loads(functions.kubectl("get", "hpa", "scaled", "-o", "json"))
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 3)

    def measured() -> bool:
        return "averageUtilization" in functions.kubectl(
            "get", "hpa", "scaled", "-o", "jsonpath={.status.currentMetrics}"
        )

    functions.until(measured, "the autoscaler sees the CPU", 120)
    functions.apply("scaled", ECHO.format(number=1))
    functions.wait("scaled")
    functions.until(lambda: functions.gone("hpa", "scaled"), "the autoscaler is gone", 30)


EXAMPLES = {
    "stats": ("/cloudmesh/fahrenheit?celsius=20", 68.0),
    "text": ("/cloudmesh/Text/words?text=a+mesh+of+clouds", None),
}


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / "manifests/examples/functions").glob("*.yaml")))
def test_every_example_gets_ready_and_answers(functions: Functions, file: str) -> None:
    if file == "kustomization.yaml":
        listed = functions.cluster.kubectl("kustomize", str(ROOT / "manifests/examples/functions"))
        assert listed.count("kind: FunctionService") == 6
        return
    path = ROOT / "manifests/examples/functions" / file
    if file == "scaled.yaml":
        functions.kubectl("create", "secret", "generic", "pi-settings", "--from-literal=SEED=42")
    functions.kubectl("apply", "-f", str(path))
    name = functions.kubectl("get", "-f", str(path), "-o", "jsonpath={..metadata.name}").split()[-1]
    found = functions.wait(name, seconds=180)
    paths = {o["path"] for o in found["status"]["openapi"]["operations"]}
    assert paths
    if name in EXAMPLES:
        call, expected = EXAMPLES[name]
        answer = functions.call(name, call)
        assert answer.status == 200
        assert expected is None or answer.json == expected
    else:
        assert functions.call(name, "/cloudmesh/openapi.json").status == 200


def test_a_hundred_kilobytes_of_source(functions: Functions) -> None:
    filler = "".join(f"# {n:08d} {'x' * 100}\n" for n in range(1000))
    began = time.monotonic()
    functions.apply("large", ECHO.format(number=7) + filler)
    functions.wait("large")
    assert functions.call("large", "/cloudmesh/version").json == 7
    assert time.monotonic() - began < 60
