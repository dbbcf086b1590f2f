"""Imports the user's source under the module name it was given."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from typing import Any


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Keeps no bytecode: the file system is read-only and the source is small."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Writes nothing."""


def load(path: str, module: str) -> types.ModuleType:
    """Runs the source and puts the module into `sys.modules`.

    Args:
        path: the source file.
        module: the name it gets; any text, also one with a dash. A name that another module has already gets
            `_function` behind it, since whoever imports that one must not find ours.

    Raises:
        Exception: whatever the source raises.
    """
    if module in sys.modules or module in sys.stdlib_module_names or _found(module):
        module += "_function"
    loader = _SourceLoader(module, path)
    spec = importlib.machinery.ModuleSpec(module, loader, origin=path)
    spec.has_location = True
    made = types.ModuleType(module)
    made.__spec__ = spec
    made.__file__ = path
    made.__loader__ = loader
    sys.modules[module] = made
    try:
        loader.exec_module(made)
    except BaseException:
        sys.modules.pop(module, None)
        raise
    return made


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False
