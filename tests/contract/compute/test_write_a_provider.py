"""The page that tells how to write a provider, followed word for word: a plug-in through the whole suite."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.e2e.test_docs import follow

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/how-to/write-a-provider.md"


def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    """Its provider is installed as a plug-in, found by its entry point, and passes."""
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    assert follow(PAGE, folder, environment, {}) == 6
