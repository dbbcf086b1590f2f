# ruff: noqa
"""Kinds of parameters."""

from typing import Any


def positional_only(a: int, b: int = 2, /) -> int:
    return a - b


def keyword_only(*, a: int, b: str = "b") -> str:
    return f"{a}{b}"


def all_kinds(a: int, /, b: int, *, c: int = 3) -> list[int]:
    return [a, b, c]


def variadic(*values: int) -> list[int]:
    return list(values)


def variadic_after(first: str, *rest: str) -> str:
    return "|".join((first, *rest))


def variadic_untyped(*values) -> int:
    return len(values)


def keywords(**params: int) -> dict[str, int]:
    return params


def keywords_untyped(**params) -> list[str]:
    return sorted(params)


def keywords_dict(**params: dict) -> list[str]:
    """As the earlier Cloudmesh's `set_params(**params: dict)`."""
    return sorted(params)


def everything(a: int, /, b: int = 2, *rest: int, c: int = 3, **more: int) -> dict[str, Any]:
    return {"a": a, "b": b, "rest": list(rest), "c": c, "more": more}


def keyword_beside_positional(a: int, /, **more: str) -> list[str]:
    return sorted(more)


def no_annotation(a, b):
    return [a, b]


def no_annotation_default(l, output="table") -> str:  # noqa: E741
    return str(output)


def documented_type(a, b=1):
    """Types come from the docstring.

    :param int a: a number
    :param b: another
    :type b: float
    """
    return a + b


def google_types(values, name):
    """Types come from the docstring.

    Args:
        values (list[int]): numbers
        name (str, optional): a name
    """
    return [len(values), name]


def numpy_types(values):
    """Types come from the docstring.

    Parameters
    ----------
    values : list of int
        not a type that is known
    """
    return values


def self_named(self: int, cls: int) -> int:
    return self - cls


def python_names(class_: str, from_: str = "x", _hidden: int = 0) -> str:
    return class_ + from_


def unicode_größe(länge: float, größe: float = 1.0) -> float:
    return länge
