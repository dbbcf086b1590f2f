"""The page that tells how to write a store, followed word for word: a plug-in through the whole suite."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.e2e.test_docs import follow

PAGE = Path(__file__).resolve().parents[3] / "docs/how-to/write-a-store.md"


def test_the_store_of_the_page_passes_and_a_mistake_is_seen(tmp_path: Path) -> None:
    made = tmp_path / "work"
    made.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    assert follow(PAGE, made, environment, {}) == 10
