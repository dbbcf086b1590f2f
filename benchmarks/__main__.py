"""`python -m benchmarks NAME` runs `benchmarks/NAME.py`: figures on stdout as JSON lines, talk on stderr."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def names() -> list[str]:
    """Benchmarks that can be run: modules here with a function `main`."""
    here = Path(__file__).parent
    found = [path.stem for path in here.glob("*.py") if "\ndef main(" in path.read_text() and path.stem != "__main__"]
    return sorted(name.replace("_", "-") for name in found)


def main() -> int:
    """Runs the benchmark named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in names():
        sys.stderr.write(f"usage: make bench NAME=…, one of: {', '.join(names())}\n")
        return 2
    module = importlib.import_module(f"benchmarks.{sys.argv[1].replace('-', '_')}")
    return int(module.main() or 0)


if __name__ == "__main__":
    raise SystemExit(main())
