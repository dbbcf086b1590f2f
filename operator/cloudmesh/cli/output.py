"""What a command says: rows as a table, JSON or YAML on one channel, sentences on the other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

FORMS = ("table", "json", "yaml")


def options() -> argparse.ArgumentParser:
    """The option of the form."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--output", choices=FORMS, default="table", help="how the result is written")
    return parser


def show(form: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows; a table has only these columns."""
    if form != "table":
        tell(form, list(rows))
        return
    cells = [[column.upper() for column in columns]]
    cells += [[_cell(row.get(column, "")) for column in columns] for row in rows]
    if len(cells) == 1:
        return
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    for row in cells:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def tell(form: str, document: Any) -> None:
    """Writes one document; a table of it is a line for each member."""
    if form == "json":
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    elif form == "yaml":
        yaml.safe_dump(document, sys.stdout, sort_keys=False, allow_unicode=True)
    else:
        width = max((len(key) for key in document), default=0)
        for key, value in document.items():
            sys.stdout.write(f"{key.ljust(width)}  {_cell(value)}\n")


def complain(text: str) -> None:
    """One sentence on the error channel, after what was said on the other one before."""
    sys.stdout.flush()
    sys.stderr.write(f"cms: {_printable(' '.join(text.split()))}\n")


class Progress:
    """A count on the error channel, only where somebody looks on.

    Args:
        of: How many there will be.
    """

    def __init__(self, of: int) -> None:
        self._of, self._shown = of, sys.stderr.isatty()

    def at(self, done: int) -> None:
        """Shows how many are done."""
        if self._shown:
            sys.stderr.write(f"\r{done} of {self._of}" + ("\n" if done == self._of else ""))
            sys.stderr.flush()


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{_cell(key)}={_cell(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ",".join(_cell(one) for one in value)
    return _printable(("no", "yes")[value] if isinstance(value, bool) else str(value))


def _printable(text: str) -> str:
    # names of files may hold what a terminal takes for commands
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
