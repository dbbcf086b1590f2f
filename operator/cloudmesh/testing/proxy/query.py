"""The query protocol of EC2 and STS, read against botocore's own service model: an unknown parameter is an error."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from botocore.loaders import Loader
from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.validate import ParamValidator


class UnknownParameter(Exception):
    """A request that the service's model doesn't allow; the message names the parameter."""


@cache
def service_model(name: str) -> ServiceModel:
    """A service's model as botocore ships it."""
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


def parse_form(body: bytes) -> dict[str, str]:
    """The flat parameters of a request body."""
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


def decode(service: str, form: Mapping[str, str]) -> dict[str, Any]:
    """The nested parameters of a request, validated.

    Args:
        service: Such as `ec2`.
        form: Flat parameters with `Action`.

    Raises:
        UnknownParameter: Operation or parameter isn't in the model, or a value isn't allowed.
    """
    model = service_model(service)
    action = form.get("Action", "")
    if action not in model.operation_names:
        raise UnknownParameter(f"{service} has no operation {action!r}")
    operation: OperationModel = model.operation_model(action)
    left = {key: value for key, value in form.items() if key not in ("Action", "Version")}
    shape = operation.input_shape
    found = _structure(shape, "", left, service) if shape is not None else {}
    if left:
        raise UnknownParameter(f"{action} doesn't know {', '.join(sorted(left))}")
    if shape is not None:
        report = ParamValidator().validate(found, shape)
        if report.has_errors():
            raise UnknownParameter(f"{action}: {report.generate_report()}")
    return found


def _wire_name(member: Shape, name: str, service: str) -> str:
    serialization = member.serialization
    if service != "ec2":
        return str(serialization.get("name", name))
    if "queryName" in serialization:
        return str(serialization["queryName"])
    given = str(serialization.get("name", name))
    return given[0].upper() + given[1:]


def _structure(shape: StructureShape, prefix: str, left: dict[str, str], service: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        path = f"{prefix}{_wire_name(member, name, service)}"
        if path in left or any(key.startswith(path + ".") for key in left):
            found[name] = _value(member, path, left, service)
    return found


def _value(shape: Shape, path: str, left: dict[str, str], service: str) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, path + ".", left, service)
    if isinstance(shape, ListShape):
        return _list(shape, path, left, service)
    return _scalar(shape, left.pop(path))


def _list(shape: ListShape, path: str, left: dict[str, str], service: str) -> list[Any]:
    base = path if service == "ec2" or any(f"{path}.1" == key.rpartition(".")[0] for key in left) else f"{path}.member"
    found: list[Any] = []
    number = 1
    while f"{base}.{number}" in left or any(key.startswith(f"{base}.{number}.") for key in left):
        found.append(_value(shape.member, f"{base}.{number}", left, service))
        number += 1
    return found


def _scalar(shape: Shape, text: str) -> Any:
    try:
        return _typed(shape, text)
    except ValueError as error:
        raise UnknownParameter(f"{shape.name}: {text!r} is no {shape.type_name}") from error


def _typed(shape: Shape, text: str) -> Any:
    match shape.type_name:
        case "integer" | "long":
            return int(text)
        case "float" | "double":
            return float(text)
        case "boolean":
            if text not in ("true", "false"):
                raise ValueError(text)
            return text == "true"
        case "blob":
            return base64.b64decode(text)
        case _:
            return text
