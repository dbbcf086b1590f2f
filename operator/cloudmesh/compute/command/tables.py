"""Rows as a table, JSON, YAML or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

FORMS = ("table", "json", "yaml", "csv")
Row = Mapping[str, Any]


def show(rows: Sequence[Row], columns: Mapping[str, str], form: str) -> str:
    """The rows in a form, with a line end.

    Args:
        rows: Values by name; None is left empty, and left out of JSON and YAML.
        columns: Heading by name, for tables and CSV, in order.
        form: One of FORMS.
    """
    if form == "table":
        return table(rows, columns)
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_plain(row.get(name)) for name in columns] for row in rows)
        return out.getvalue()
    return document([{name: value for name, value in row.items() if value is not None} for row in rows], form)


def document(content: Any, form: str) -> str:
    """Any content as JSON or YAML."""
    if form == "json":
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """The rows under headings, as kubectl prints them."""
    lines = [list(columns.values()), *([_plain(row.get(name)) or "-" for name in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(str(value).split())
