"""`python -m cloudmesh.cli`."""

from __future__ import annotations

import sys

from cloudmesh.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
