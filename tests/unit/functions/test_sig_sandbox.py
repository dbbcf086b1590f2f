"""The limited subprocess that reads sources, and that neither it nor the reader runs any of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cloudmesh.functions.signatures import Expose, SourceError, read, sandbox
from cloudmesh.functions.signatures.sandbox import Sandbox

ROOT = Path(__file__).parents[3]


@pytest_asyncio.fixture
async def box() -> AsyncIterator[Sandbox]:
    found = Sandbox()
    yield found
    await found.close()


GOOD = 'def mean(values: list[float], trim: float = 0.0) -> float:\n    """Mean."""\n    return 0.0\n'


async def test_the_same_as_in_this_process(box: Sandbox) -> None:
    source = "import cv2\n" + GOOD
    parsed = await box.parse(
        source, name="n", module="m", expose=Expose(("mean",)), base_path="/x", requirements=["opencv-python"]
    )
    assert parsed == read(
        source, name="n", module="m", expose=Expose(("mean",)), base_path="/x", requirements=["opencv-python"]
    )
    with pytest.raises(SourceError) as caught:
        await box.parse("def f(x: Foo): ...\n", name="n", module="m")
    assert (caught.value.line, caught.value.column) == (1, 10)


async def test_bombs_are_errors_and_the_next_source_is_read(box: Sandbox) -> None:
    for bomb in (
        "x = " + "-" * 130_000 + "1\ndef f(): ...\n",
        "x = a" + ".b" * 20_000 + "\ndef f(): ...\n",
        "x = " + "(" * 5_000 + ")" * 5_000 + "\n",
        "def f(): ...\n\0",
        "x = " + "[" * 60_000,
        "A0 = int\n" + "".join(f"A{i + 1} = tuple[A{i}, A{i}]\n" for i in range(16)) + "def f(x: A16): ...\n",
        "A0 = int\n" + "".join(f"A{i + 1} = tuple[A{i}, A{i}]\n" for i in range(60)) + "def f(x: A60): ...\n",
        "x = '" + "{" * 100_000 + "'\nf'" + "{a!r:" * 1000 + "'\n",
    ):
        with pytest.raises(SourceError):
            await box.parse(bomb, name="n", module="m")
        assert (await box.parse(GOOD, name="n", module="m")).operations


async def test_memory_and_time_are_limited(box: Sandbox) -> None:
    quick = Sandbox(seconds=1.5)
    await quick.parse(GOOD, name="n", module="m")
    first = quick._workers[0].process
    assert first is not None
    first.send_signal(signal.SIGSTOP)  # a process that hangs
    begun = time.monotonic()
    with pytest.raises(SourceError, match="takes longer than"):
        await quick.parse(GOOD, name="n", module="m")
    assert time.monotonic() - begun < 20
    assert (await quick.parse(GOOD, name="n", module="m")).operations
    assert quick._workers[0].process is not first
    os.kill(quick._workers[0].process.pid, signal.SIGKILL)  # type: ignore[union-attr]
    await quick._workers[0].process.wait()  # type: ignore[union-attr]
    assert (await quick.parse(GOOD, name="n", module="m")).operations
    await quick.close()


async def test_a_process_that_dies_over_a_source(box: Sandbox) -> None:
    await box.parse(GOOD, name="n", module="m")
    process = box._workers[0].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    waiting = asyncio.create_task(box.parse(GOOD, name="n", module="m"))
    await asyncio.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)  # as the kernel does beyond the limits
    with pytest.raises(SourceError, match="too much time or memory"):
        await waiting
    assert (await box.parse(GOOD, name="n", module="m")).operations


async def test_a_warm_parse_is_quick(box: Sandbox) -> None:
    await box.parse(GOOD, name="n", module="m")
    seconds: list[float] = []
    while sum(took < 0.03 for took in seconds) < 3 and len(seconds) < 200:
        begun = time.perf_counter()
        await box.parse(GOOD, name="n", module="m")
        seconds.append(time.perf_counter() - begun)
    assert sorted(seconds)[2] < 0.03  # the machine may be busy: its quiet moments count


def _slow(index: int) -> str:
    """The compiler writes each `finally` twice: a small source that takes minutes."""
    lines = [f"# {index}"]
    for name in range(100):
        lines.append(f"def g{name}():")
        for depth in range(1, 16):
            lines += [" " * depth + "try: pass", " " * depth + "finally:"]
        lines.append(" " * 16 + "x = 1")
    return "\n".join([*lines, "def f() -> int: ...", ""])


async def test_a_slow_source_holds_nobody_up_and_gets_its_verdict(box: Sandbox) -> None:
    await box.parse(GOOD, name="n", module="m")
    slow = asyncio.create_task(box.parse(_slow(0), name="n", module="m"))
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    for index in range(5):
        assert (await box.parse(GOOD + f"# {index}", name="n", module="m")).operations
    assert not slow.done()
    assert time.monotonic() - begun < 4
    with pytest.raises(SourceError, match="make it shorter or its types simpler"):
        await slow
    assert time.monotonic() - begun < 30
    assert (await box.parse(GOOD, name="n", module="m")).operations


async def test_a_reader_that_does_not_start_is_no_fault_of_the_source(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="doesn't start"):
        await box.parse(GOOD, name="n", module="m")
    monkeypatch.undo()
    assert (await box.parse(GOOD, name="n", module="m")).operations


async def test_many_at_once_and_cancelled_ones(box: Sandbox) -> None:
    async def one(index: int) -> str:
        parsed = await box.parse(f"def f{index}(): ...\n", name="n", module="m")
        return str(parsed.operations[0]["path"])

    waiting = [asyncio.create_task(one(index)) for index in range(12)]
    await asyncio.sleep(0.01)
    waiting[3].cancel()
    waiting[7].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    for index, item in enumerate(found):
        assert item == f"/f{index}" or (index in (3, 7) and isinstance(item, asyncio.CancelledError))


async def test_the_shared_one() -> None:
    await sandbox.warm()
    assert (await sandbox.parse(GOOD, name="n", module="m")).operations
    await sandbox.close()


HOSTILE = '''
import os, sys, socket, subprocess
open({marker!r}, "w").write("module body")
os.system("touch " + {marker!r})
raise SystemExit("ran")

def decorator(f):
    open({marker!r}, "w").write("decorator")
    return f

@decorator
def f(x: int = open({marker!r}, "w").write("default"), y: "open({marker!r}, 'w')" = 1) -> int:
    """Doc."""

class Meta(type):
    def __new__(cls, *a):
        open({marker!r}, "w").write("metaclass")
        return super().__new__(cls, *a)

class K(metaclass=Meta):
    x: int = open({marker!r}, "w").write("body")
    def m(self) -> int: ...
'''

AUDIT = """
import json, sys
from cloudmesh.functions.signatures import Expose, SourceError, read
read("def warm(x: 'int' = 1) -> int: ...", name="w", module="w")
events = []
def hook(event, arguments):
    if event == "import":
        events.append([event, str(arguments[0])])
    elif event == "exec":
        events.append([event, getattr(arguments[0], "co_filename", "?")])
    elif event == "open" and (arguments[1] is None or set(arguments[1]) & set("wax+")):
        events.append([event, str(arguments[0])])
    elif event.startswith(("socket.", "subprocess.", "os.", "ctypes.")):
        events.append([event, ""])
request = json.load(sys.stdin)
outcome = []
sys.addaudithook(hook)
for expose in (Expose(("f",)), Expose(class_name="K"), Expose()):
    try:
        read(request["source"], name="h", module="h", expose=expose)
        outcome.append("read")
    except SourceError as error:
        outcome.append(error.message)
seen = list(events)
print(json.dumps({"events": seen, "outcome": outcome}))
"""


def _audited(source: str, tmp_path: Path) -> dict[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-c", AUDIT],
        input=json.dumps({"source": source}),
        env={"PYTHONPATH": str(ROOT / "operator"), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, list[str]] = json.loads(run.stdout)
    return found


def test_reading_runs_no_code_imports_nothing_and_opens_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    found = _audited(HOSTILE.format(marker=str(marker)), tmp_path)
    assert found["events"] == []
    assert not marker.exists()
    readable = HOSTILE.format(marker=str(marker)).replace(f""", y: "open({str(marker)!r}, 'w')" = 1""", "")
    found = _audited(readable, tmp_path)
    assert found["outcome"] == ["read", "read", "read"]
    assert found["events"] == []
    assert not marker.exists()


async def test_the_worker_refuses_what_reading_does_not_need(tmp_path: Path) -> None:
    """The hook inside the worker itself, driven as a fault in the reader would."""
    code = f"""
import sys
from cloudmesh.functions.signatures import worker
from pathlib import Path
import socket, subprocess, os
sys.addaudithook(worker.hook)
refused = 0
for what in (
    lambda: exec(compile("1", "user", "exec")),
    lambda: open({str(tmp_path / "x")!r}, "w"),
    lambda: socket.socket(),
    lambda: subprocess.Popen(["true"]),
    lambda: os.system("true"),
    lambda: __import__("wave"),
    lambda: os.mkdir({str(tmp_path / "d")!r}),
):
    try:
        what()
    except worker.ForbiddenError:
        refused += 1
sys.stdout.write(str(refused))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout == "7", run.stderr
    assert not (tmp_path / "x").exists()
