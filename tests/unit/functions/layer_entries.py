"""Entries of a layer whose digest is known."""

from __future__ import annotations

from cloudmesh.functions.image.layer import Directory, Entry, File, Symlink

ENTRIES: list[Entry] = [
    File.of("opt/app/function.py", b"def f(x: int) -> int:\n    return x\n"),
    File.of("opt/app/bin/run", b"#!/bin/sh\n", executable=True),
    File.of("opt/app.d/x", b""),
    File.of("a/" * 60 + "é" * 90 + ".py", b"long"),
    Directory("tmp", 0o1777),
    Symlink("opt/link", "app/function.py"),
]
