"""Small parts of the runtime: docstrings, YAML, settings, metrics, threads, loader."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from pathlib import Path

import griffe
import pytest

from cloudmesh_function import docstring, loader, parts, service, settings
from cloudmesh_function.metrics import Metrics
from cloudmesh_function.model import Array, Scalar
from cloudmesh_function.pool import ExpiredError, ThreadPool

ROOT = Path(__file__).parents[3]

STYLES = {
    "sphinx": """Short text.

    Longer text.

    :param a: first, over
        two lines
    :param str b: second
    :type c: float
    :param c: third
    :returns: something
    :raises ValueError: never
    """,
    "google": """Short text.

    Longer text.

    Args:
        a: first, over
            two lines
        b (str): second
        c (float): third

    Returns:
        something

    Raises:
        ValueError: never
    """,
    "numpy": """Short text.

    Longer text.

    Parameters
    ----------
    a
        first, over
        two lines
    b : str
        second
    c : float
        third

    Returns
    -------
    int
        something

    Raises
    ------
    ValueError
        never
    """,
}


@pytest.mark.parametrize("style", STYLES)
def test_docstrings_as_griffe_reads_them(style: str) -> None:
    """griffe is the oracle; it isn't in a function's image, so the reader there is ours."""
    text = STYLES[style]
    ours = docstring.read(text)
    expected: dict[str, str] = {}
    returns = ""
    for section in griffe.Docstring(inspect.cleandoc(text)).parse(style):  # type: ignore[arg-type]
        if section.kind is griffe.DocstringSectionKind.parameters:
            expected = {item.name: " ".join(item.description.split()) for item in section.value}
        if section.kind is griffe.DocstringSectionKind.returns:
            returns = section.value[0].description.strip()
    assert ours.parameters == expected
    assert ours.returns == returns == "something"
    assert ours.parameter_types == {"b": "str", "c": "float"}
    assert (ours.summary, ours.description) == ("Short text.", "Longer text.")


def test_types_of_docstrings() -> None:
    assert docstring.named_type("int") == Scalar("int")
    assert docstring.named_type("list[int], optional") == Array("list", Scalar("int"))
    assert docstring.named_type("str | None") is not None
    for text in ("array-like", "list of int", "Foo", "os.system('x')", "", "x" * 10_000, "(" * 300):
        assert docstring.named_type(text) is None


def test_settings() -> None:
    found = settings.from_environment({"CLOUDMESH_TIMEOUT_SECONDS": "2.5", "CLOUDMESH_PORT": "81"})
    assert (found.timeout, found.port, found.concurrency, found.max_body) == (2.5, 81, 100, 10_485_760)
    for name, value in (
        ("CLOUDMESH_PORT", "70000"),
        ("CLOUDMESH_MAX_BODY_BYTES", "-1"),
        ("CLOUDMESH_DRAIN_SECONDS", "inf"),
    ):
        with pytest.raises(settings.SettingsError, match=name):
            settings.from_environment({name: value})


def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics(["a", 'b"\\'])
    metrics.observe("a", 200, 0.002)
    metrics.observe("a", 200, 100.0)
    metrics.observe('b"\\', 422, 0.5)
    from prometheus_client.parser import text_string_to_metric_families

    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    assert found["cloudmesh_function_requests_total", ("code", "200"), ("operation", "a")] == 2
    assert found["cloudmesh_function_requests_total", ("code", "422"), ("operation", 'b"\\')] == 1
    assert found["cloudmesh_function_request_seconds_bucket", ("le", "0.0025"), ("operation", "a")] == 1
    assert found["cloudmesh_function_request_seconds_bucket", ("le", "+Inf"), ("operation", "a")] == 2


async def test_threads() -> None:
    ended: list[float] = []
    pool = ThreadPool(2, lambda: ended.append(time.monotonic()))
    assert await pool.run(5, lambda x: x + 1, 1) == 2
    with pytest.raises(ZeroDivisionError):
        await pool.run(5, lambda: 1 / 0)
    gate = threading.Event()
    begun = time.monotonic()
    waiting = [asyncio.create_task(pool.run(0.2, gate.wait, 60)) for _ in range(2)]
    for task in waiting:
        with pytest.raises(ExpiredError):
            await task
    assert time.monotonic() - begun < 20
    assert len(ended) == 2  # the threads go on
    late = asyncio.create_task(pool.run(5, lambda: "late"))
    await asyncio.sleep(0.05)
    assert not late.done()
    gate.set()
    assert await late == "late"
    for _ in range(100):  # the last thread tells of its end after its answer is on the way
        if len(ended) == 5:
            break
        await asyncio.sleep(0.01)
    assert len(ended) == 5
    seen = set(await asyncio.gather(*(pool.run(5, threading.get_ident) for _ in range(20))))
    assert len(seen) <= 2


def test_a_module_keeps_out_of_the_way_of_others(tmp_path: Path) -> None:
    file = tmp_path / "function.py"
    file.write_text("import random\nx = random.random()\nclass K: pass\n")
    found = loader.load(str(file), "random")
    assert found.K.__module__ == "random_function"
    assert sys.modules["random"] is not found
    dashed = loader.load(str(file), "my-module")
    assert dashed.K.__module__ == "my-module"
    assert sys.modules.pop("my-module") is dashed
    sys.modules.pop("random_function")
    file.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        loader.load(str(file), "fails_to_load")
    assert "fails_to_load" not in sys.modules
    assert not list(tmp_path.glob("**/*.pyc"))


@pytest.mark.parametrize(
    ("static", "live", "text"),
    [
        ({"a": 1}, {"a": 2}, "/a is 1 in the document and 2 in the running function"),
        ({"a": {"b/c": [1, 2]}}, {"a": {"b/c": [1, 3]}}, "/a/b~1c/1 is 2 in the document and 3"),
        ({"a": 1, "b": 2}, {"a": 1}, "/b is missing in the running function"),
        ({"a": 1}, {"a": 1, "b": 2}, "/b is new in the running function"),
        ({"a": [1]}, {"a": [1, 2]}, "/a is [1] in the document"),
    ],
)
def test_the_first_difference(static: object, live: object, text: str) -> None:
    assert text in service.difference(static, live)


def test_the_runtime_stands_alone() -> None:
    """Serving imports nothing of the control plane and nothing beyond the runtime's parts."""
    code = "import sys, cloudmesh_function.server, cloudmesh_function.service, granian.server.embed\n"
    code += "print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(run.stdout.split())
    allowed = {"cloudmesh_function", "granian", "msgspec"} | set(sys.stdlib_module_names)
    # what granian and msgspec use when it happens to be there
    optional = {
        "dotenv",
        "uvloop",
        "typing_extensions",
        "anyio",
        "watchfiles",
        "setproctitle",
        "rloop",
        "sniffio",
        "idna",
    }
    extra = {name for name in loaded - allowed - optional if not name.startswith("_")}
    assert extra <= {"sitecustomize", "usercustomize", "cython_runtime"}, extra
    assert "cloudmesh" not in loaded
    assert "pydantic" not in loaded
    assert "jinja2" not in loaded
    assert set(parts.RUNTIME) == {"msgspec", "granian", "click", "swagger-ui-bundle-v2"}
