"""The corpus of signatures: which files there are and what of each is exposed."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cloudmesh.functions.signatures import Parsed, read
from cloudmesh_function.loader import load
from cloudmesh_function.model import Expose

FOLDER = Path(__file__).parent / "corpus"
EXPOSE = {"calculator": Expose(class_name="Calculator"), "odd": Expose(("*", "under_condition"))}


@dataclass(frozen=True)
class Case:
    """One file of the corpus."""

    name: str

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.py"

    @property
    def source(self) -> str:
        return self.file.read_text()

    @property
    def expose(self) -> Expose:
        return EXPOSE.get(self.name, Expose())

    def parse(self) -> Parsed:
        return read(self.source, name=self.name, module=self.name, expose=self.expose)

    def load(self) -> ModuleType:
        """The live module, imported anew."""
        name = f"corpus_{self.name}"
        sys.modules.pop(name, None)
        return load(str(self.file), name)

    def write(self, folder: Path) -> Path:
        """The folder as it is in an image."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "function.py").write_text(self.source)
        (folder / "openapi.json").write_bytes(self.parse().canonical_openapi)
        definition = {
            "name": self.name,
            "module": self.name,
            "basePath": "/cloudmesh",
            "expose": self.expose.to_json(),
            "source": "function.py",
        }
        (folder / "function.json").write_text(json.dumps(definition))
        return folder


CASES = [Case(path.stem) for path in sorted(FOLDER.glob("*.py"))]
