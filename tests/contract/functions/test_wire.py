"""What a served function answers, over a real socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest
import yaml
from tests.contract.functions.corpus_index import Case
from tests.contract.functions.serving import ROOT, Served, free_port

from cloudmesh.functions.signatures import Expose, read

SOURCE = '''
"""A service to look at."""
import asyncio
import math
import os
import sys
import time
from decimal import Decimal


def add(a: int, b: int = 1) -> int:
    """Adds.

    :param a: one number
    :param b: another
    """
    return a + b


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def greet(name: str) -> str:
    return f"hello {name}"


def blob(size: int) -> bytes:
    return bytes(range(256))[:size]


def fail(text: str) -> str:
    raise ValueError(text)


def leave() -> str:
    sys.exit(3)


def ratio(kind: str) -> float:
    return {"nan": math.nan, "inf": math.inf, "fine": 0.5}[kind]


def table() -> dict:
    return {"a": [1.0, float("nan")]}


def odd() -> object:
    return object()


def null() -> None:
    return None


def slow(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


async def slow_async(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


def surrogate() -> str:
    return "\\ud800"


def total(*amounts: Decimal) -> Decimal:
    return sum(amounts, Decimal(0))


def process() -> int:
    return os.getpid()
'''


def write(folder: Path, source: str, name: str = "wire", expose: Expose | None = None) -> Path:
    """The folder as it is in an image."""
    folder.mkdir(parents=True, exist_ok=True)
    parsed = read(source, name=name, module=name, expose=expose)
    (folder / "function.py").write_text(source)
    (folder / "openapi.json").write_bytes(parsed.canonical_openapi)
    definition = {"name": name, "module": name, "expose": (expose or Expose()).to_json(), "basePath": "/cloudmesh"}
    (folder / "function.json").write_text(json.dumps(definition))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = write(tmp_path_factory.mktemp("wire"), SOURCE)
    limits = {"CLOUDMESH_TIMEOUT_SECONDS": "1", "CLOUDMESH_CONCURRENCY": "3", "CLOUDMESH_MAX_BODY_BYTES": "2000"}
    with Served(folder, **limits) as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{served.url}/cloudmesh", timeout=10) as found:
        yield found


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, object]:
    """The body of an answer that must be a problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert body["status"] == status
    assert body["type"] == f"urn:cloudmesh:problem:{kind}"
    assert body["title"] and body["detail"]
    return body


def test_get_and_post(client: httpx.Client) -> None:
    assert client.get("/add", params={"a": 2, "b": 3}).json() == 5
    assert client.get("/add?a=2").json() == 3
    assert client.post("/add", json={"a": 2, "b": 40}).json() == 42
    assert client.get("/mean?values=1&values=2").json() == 1.5
    assert client.post("/mean", json={"values": [1, 2.5]}).json() == 1.75
    assert client.get("/greet", params={"name": "Ünal & +%20"}).json() == "hello Ünal & +%20"
    assert client.get("/null").json() is None
    assert client.get("/total?amounts=0.1&amounts=0.2").json() == "0.3"


def test_wrong_parameters_are_named(client: httpx.Client) -> None:
    found = problem(client.get("/add?a=x&c=1"), 422, "invalid-parameters")
    errors = {item["parameter"]: item for item in found["errors"]}  # type: ignore[attr-defined]
    assert "Expected `int`" in errors["a"]["detail"]
    assert "unknown parameter 'c'" in errors["c"]["detail"]
    assert errors["a"]["in"] == "query"
    found = problem(client.post("/mean", json={"valeus": []}), 422, "invalid-parameters")
    details = [item["detail"] for item in found["errors"]]  # type: ignore[attr-defined]
    assert details == ["unknown parameter 'valeus': did you mean 'values'?", "this parameter is required"]
    found = problem(client.post("/mean", json={"values": [1, "x"]}), 422, "invalid-parameters")
    assert found["errors"][0]["pointer"] == "/values/1"  # type: ignore[index]
    problem(client.get("/add?a=1&a=2"), 422, "invalid-parameters")


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"1", b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 1500, b'{"a": "\xed\xa0\x80"}', b'{"a":1}{}'],
)
def test_unreadable_bodies(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/add", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query", ["values=nan", "values=inf", "values=-Infinity", "values=1e999", "values=%ff", "values=1_0"]
)
def test_what_is_no_number_in_a_query(client: httpx.Client, query: str) -> None:
    assert client.get(f"/mean?{query}").status_code == 422


def test_media_types_and_methods(client: httpx.Client) -> None:
    problem(
        client.post("/add", content=b"a=1", headers={"content-type": "application/x-www-form-urlencoded"}),
        415,
        "unsupported-media-type",
    )
    assert client.post("/add", content=b'{"a": 1}').json() == 2  # no header: JSON is tried
    assert (
        client.post("/add", content=b'{"a": 1}', headers={"content-type": "application/json; charset=utf-8"}).json()
        == 2
    )
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "HEAD"):
        answer = client.request(method, "/add")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, POST"
    assert client.post("/openapi.json").headers["allow"] == "GET"
    problem(client.get("/nothing"), 404, "not-found")


def test_limit_of_the_body(client: httpx.Client, served: Served) -> None:
    problem(client.post("/mean", json={"values": [1] * 1000}), 413, "body-too-large")

    def parts() -> Iterator[bytes]:
        yield b'{"values": ['
        for _ in range(400):
            yield b"1.25, "
        yield b"1]}"

    with httpx.Client(base_url=f"{served.url}/cloudmesh") as chunked:  # noqa: SIM117 - only the inner one may fail
        with contextlib.suppress(httpx.WriteError):  # the server may hang up before all is sent
            problem(chunked.post("/mean", content=parts()), 413, "body-too-large")
    assert client.get("/add?a=1").status_code == 200


def test_time_out_and_concurrency(served: Served) -> None:
    async def calls(path: str, count: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=f"{served.url}/cloudmesh", timeout=10) as client:
            return await asyncio.gather(*(client.get(path) for _ in range(count)))

    begun = time.monotonic()
    for path in ("/slow?seconds=1.6", "/slow_async?seconds=30"):
        (answer,) = asyncio.run(calls(path, 1))
        problem(answer, 504, "timeout")
    assert time.monotonic() - begun < 20
    time.sleep(0.8)  # the thread of the first call ends
    answers = asyncio.run(calls("/slow?seconds=0.4", 5))
    assert sorted(item.status_code for item in answers) == [200, 200, 200, 503, 503]
    refused = next(item for item in answers if item.status_code == 503)
    problem(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    # a thread that outlives its time-out keeps its place
    asyncio.run(calls("/slow?seconds=3", 3))
    assert httpx.get(f"{served.url}/cloudmesh/add?a=1").status_code == 503
    end = time.monotonic() + 20
    while httpx.get(f"{served.url}/cloudmesh/add?a=1").status_code != 200:
        assert time.monotonic() < end, "the threads keep their places after they ended"
        time.sleep(0.1)


def test_errors_of_the_function_stay_in_the_log(client: httpx.Client, served: Served) -> None:
    found = problem(client.get("/fail?text=s3cret"), 500, "function-failed")
    assert "ValueError" in str(found["detail"])
    assert "s3cret" not in json.dumps(found)
    assert "ValueError: s3cret" in served.log.read_text()
    problem(client.get("/leave"), 500, "function-failed")
    assert client.get("/add?a=1").status_code == 200


def test_results_that_json_has_not(client: httpx.Client) -> None:
    assert client.get("/ratio?kind=fine").json() == 0.5
    for path in ("/ratio?kind=nan", "/ratio?kind=inf", "/table", "/odd", "/surrogate"):
        problem(client.get(path), 500, "result-not-json")
    assert "$.a[1]" in client.get("/table").json()["detail"]


def test_text_and_bytes(client: httpx.Client) -> None:
    answer = client.get("/greet?name=you", headers={"accept": "text/plain"})
    assert (answer.text, answer.headers["content-type"]) == ("hello you", "text/plain; charset=utf-8")
    assert client.get("/add?a=1", headers={"accept": "text/plain, application/json;q=0.1"}).text == "2"
    assert client.get("/greet?name=you", headers={"accept": "text/plain;q=0.1, application/json"}).text == '"hello you"'
    assert client.get("/greet?name=you", headers={"accept": "*/*"}).headers["content-type"] == "application/json"
    answer = client.get("/blob?size=200")
    assert (answer.content, answer.headers["content-type"]) == (bytes(range(200)), "application/octet-stream")
    answer = client.get("/blob?size=3", headers={"accept": "application/json"})
    assert base64.b64decode(answer.json()) == b"\0\1\2"


def test_document_in_json_and_yaml(client: httpx.Client, served: Served) -> None:
    answer = client.get("/openapi.json")
    assert answer.content == (served.folder / "openapi.json").read_bytes()
    document = answer.json()
    assert document["servers"] == [{"url": "/cloudmesh"}]
    assert document["paths"]["/add"]["get"]["operationId"] == "wire.add"
    assert document["paths"]["/add"]["get"]["parameters"][0]["description"] == "one number"
    assert yaml.safe_load(client.get("/openapi.yaml").text) == document


def test_page_without_other_hosts(client: httpx.Client) -> None:
    page = client.get("/ui")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe-eval" not in page.headers["content-security-policy"]
    assert not re.search(r"https?://", page.text)
    found = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(found) == 4
    for name in found:
        assert client.get(f"/{name}").status_code == 200
    assert "http" not in client.get("/ui/start.js").text
    assert len(client.get("/ui/swagger-ui-bundle.js").content) > 1_000_000
    for name in ("../../../etc/passwd", "nothing.js", "", "swagger-ui.css/x"):
        assert client.get(f"/ui/{name}").status_code in (404, 422)


def test_probes_and_metrics(client: httpx.Client, served: Served) -> None:
    assert httpx.get(f"{served.url}/healthz").text == "ok\n"
    assert httpx.get(f"{served.url}/readyz").status_code == 200
    client.get("/add?a=1")
    client.get("/add?a=x")
    text = httpx.get(f"{served.url}/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(figures['cloudmesh_function_requests_total{operation="add",code="200"}']) >= 1
    assert int(figures['cloudmesh_function_requests_total{operation="add",code="422"}']) >= 1
    assert figures["cloudmesh_function_in_flight"] == "0"
    assert float(figures["cloudmesh_function_import_seconds"]) > 0
    buckets = [int(value) for name, value in figures.items() if 'bucket{operation="add"' in name]
    assert buckets == sorted(buckets)
    assert buckets[-1] == int(figures['cloudmesh_function_request_seconds_count{operation="add"}'])


def test_results_are_what_the_document_says(tmp_path: Path) -> None:
    case = Case("tuples")
    document = case.parse().document
    with Served(case.write(tmp_path / "app")) as served:
        for path, body in (
            ("/pair", {"x": [1, "a"]}),
            ("/position", {"p": [1]}),
            ("/positions", {"ps": [[1, 2], [3]]}),
            ("/optional_pair", {"x": [1, 2]}),
            ("/nothing_in_it", {}),
            ("/nested", {"x": [1, ["a", True]]}),
        ):
            answer = httpx.post(f"{served.url}/cloudmesh{path}", json=body)
            assert answer.status_code == 200, answer.text
            schema = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())


def test_instance_methods_share_one_object(tmp_path: Path) -> None:
    source = "class Box:\n    def put(self, x: int) -> None:\n        self.x = x\n\n"
    source += "    def get(self) -> int:\n        return self.x\n"
    with Served(write(tmp_path, source, "box", Expose(class_name="Box"))) as served:
        httpx.post(f"{served.url}/cloudmesh/Box/put", json={"x": 5})
        assert httpx.get(f"{served.url}/cloudmesh/Box/get").json() == 5


def test_a_function_that_differs_from_its_document_is_not_ready(tmp_path: Path) -> None:
    folder = write(tmp_path, "def f(x: int) -> int:\n    return x\n")
    (folder / "function.py").write_text("def f(x: float) -> int:\n    return x\n")
    with Served(folder, ready=False) as served:
        found = problem(httpx.get(f"{served.url}/readyz"), 503, "not-ready")
        assert "/paths/~1f/get/parameters/0/schema/type" in str(found["detail"])
        assert '"integer" in the document and "number" in the running function' in str(found["detail"])
        assert httpx.get(f"{served.url}/healthz").status_code == 200
        problem(httpx.get(f"{served.url}/cloudmesh/f?x=1"), 503, "not-ready")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import nothing_like_this\ndef f(): ...\n", "No module named 'nothing_like_this'"),
        ("1 / 0\ndef f(): ...\n", "ZeroDivisionError"),
        ("import sys\nsys.exit(1)\ndef f(): ...\n", "sys.exit"),
    ],
)
def test_a_module_that_fails_to_import_says_why(tmp_path: Path, source: str, text: str) -> None:
    with Served(write(tmp_path, source), ready=False) as served:
        assert text in str(problem(httpx.get(f"{served.url}/readyz"), 503, "not-ready")["detail"])


FLASK = '''
from flask import jsonify, current_app


def get_model() -> str:
    """The model.

    :return: the model
    """
    return jsonify({"model": "x"})


def teapot() -> str:
    return jsonify(error="short and stout"), 418


def plain() -> str:
    return current_app.name


async def later() -> str:
    return jsonify(later=current_app.name)
'''


def test_flask_responses_pass_through(tmp_path: Path) -> None:
    with Served(write(tmp_path, FLASK)) as served:
        answer = httpx.get(f"{served.url}/cloudmesh/get_model")
        assert answer.json() == {"model": "x"}
        assert answer.headers["content-type"] == "application/json"
        assert httpx.get(f"{served.url}/cloudmesh/teapot").status_code == 418
        assert httpx.get(f"{served.url}/cloudmesh/plain").json() == "wire"
        assert httpx.get(f"{served.url}/cloudmesh/later").json() == {"later": "wire"}


def test_sigterm_fails_no_request(tmp_path: Path) -> None:
    """New and running calls end well while the process is told to stop; it ends with status 0 in time."""
    with Served(write(tmp_path, SOURCE)) as served:

        async def load() -> tuple[list[int], float]:
            codes: list[int] = []
            stop = asyncio.Event()

            async def worker() -> None:
                async with httpx.AsyncClient(base_url=f"{served.url}/cloudmesh", timeout=10) as client:
                    while not stop.is_set():
                        codes.append((await client.get("/slow?seconds=0.05")).status_code)

            async def patient() -> None:
                async with httpx.AsyncClient(base_url=f"{served.url}/cloudmesh", timeout=20) as client:
                    codes.append((await client.get("/slow?seconds=2.5")).status_code)

            workers = [asyncio.create_task(worker()) for _ in range(4)]
            await asyncio.sleep(0.3)
            long = asyncio.create_task(patient())
            await asyncio.sleep(0.2)
            served.process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            await asyncio.sleep(0.6)
            stop.set()  # by now a load balancer has heard of it
            await asyncio.gather(*workers, long)
            await asyncio.to_thread(served.process.wait, 30)
            return codes, time.monotonic() - begun

        codes, seconds = asyncio.run(load())
        assert set(codes) == {200}
        assert len(codes) > 20
        assert seconds < 20
        assert served.process.returncode == 0
        assert httpx.codes.OK == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/healthz")


def test_sigterm_while_a_call_never_ends(tmp_path: Path) -> None:
    limits = {"CLOUDMESH_GRACE_SECONDS": "2", "CLOUDMESH_DRAIN_SECONDS": "0.2"}
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(Served(write(tmp_path, SOURCE), **limits))
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        connection.sendall(b"GET /cloudmesh/slow?seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        begun = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        assert time.monotonic() - begun < 15


def test_sigterm_with_idle_connections(tmp_path: Path) -> None:
    with Served(write(tmp_path, SOURCE)) as served, httpx.Client(base_url=served.url) as client:
        assert client.get("/healthz").status_code == 200  # the connection stays open
        begun = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        answer = client.get("/cloudmesh/add?a=1")
        assert answer.json() == 2
        assert answer.headers["connection"] == "close"
        assert httpx.get(f"{served.url}/readyz").status_code == 503
        assert httpx.get(f"{served.url}/healthz").status_code == 200
        assert served.process.wait(20) == 0
        assert time.monotonic() - begun < 15


def test_sigterm_while_the_module_is_imported(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a process namespace needs root")
    marker = tmp_path / "importing"
    source = f"import time\nopen({str(marker)!r}, 'w').close()\ntime.sleep(60)\ndef f(): ...\n"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "operator"),
        "CLOUDMESH_APP_DIR": str(write(tmp_path, source)),
        "CLOUDMESH_PORT": str(free_port()),
    }
    # process 1 of a namespace of its own, as in a container: signals without handler do nothing there
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "cloudmesh_function"]
    process = subprocess.Popen(command, env=environment, cwd="/")
    try:
        for _ in range(600):
            if marker.exists():
                break
            time.sleep(0.05)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


NUMPY = """
import numpy
from numpy import array


def scale(X: array, by: float = 2.0) -> array:
    return X * by


def total(X: numpy.ndarray) -> float:
    return X.sum()
"""


def test_arrays_of_numpy(tmp_path: Path) -> None:
    with Served(write(tmp_path, NUMPY)) as served:
        url = f"{served.url}/cloudmesh"
        assert httpx.post(f"{url}/scale", json={"X": [[1, 2], [3, 4.5]]}).json() == [[2.0, 4.0], [6.0, 9.0]]
        assert httpx.post(f"{url}/total", json={"X": [1, 2]}).json() == 3
        problem(httpx.post(f"{url}/total", json={"X": [[1], [1, 2]]}), 422, "invalid-parameters")
        assert httpx.get(f"{url}/total?X=1").status_code == 405


def test_one_process_serves(tmp_path: Path) -> None:
    """PID 1 of a container is the one that serves: no supervisor that costs memory and must pass on signals."""
    with Served(write(tmp_path, SOURCE)) as served:
        assert httpx.get(f"{served.url}/cloudmesh/process").json() == served.process.pid


def test_starting_is_cheap(tmp_path: Path) -> None:
    """The figure is 400 ms from start to ready; on a busy machine only processor time says something."""
    with Served(write(tmp_path, "def f(x: int) -> int:\n    return x\n")) as served:
        fields = Path(f"/proc/{served.process.pid}/stat").read_text().rpartition(")")[2].split()
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        memory = Path(f"/proc/{served.process.pid}/smaps_rollup").read_text()
    assert seconds <= 0.4
    resident = next(int(line.split()[1]) for line in memory.splitlines() if line.startswith("Rss:"))
    assert resident <= 60 * 1024


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    for name, value in (("CLOUDMESH_PORT", "x"), ("CLOUDMESH_TIMEOUT_SECONDS", "nan"), ("CLOUDMESH_CONCURRENCY", "0")):
        run = subprocess.run(
            [sys.executable, "-m", "cloudmesh_function"],
            env={"PYTHONPATH": str(ROOT / "operator"), name: value},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert run.returncode == 2
        assert name in run.stderr


def test_serve_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "stats-of.py"
    file.write_text('def mean(values: list[float]) -> float:\n    """Mean."""\n    return sum(values) / len(values)\n')
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudmesh.functions", "serve", f"{file}:mean", "--port", str(port)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "operator")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(400):
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/cloudmesh/mean?values=1&values=3")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        else:
            raise AssertionError("it doesn't come up")
        assert answer.json() == 2.0
        document = httpx.get(f"http://127.0.0.1:{port}/cloudmesh/openapi.json").json()
        assert document["paths"]["/mean"]["get"]["operationId"] == "stats_of.mean"
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said


def test_a_function_that_cannot_be_loaded_ends_with_its_reason(tmp_path: Path) -> None:
    folder = write(tmp_path, "raise RuntimeError('no licence')\n\n\ndef f() -> int:\n    return 1\n")
    environment = {
        **os.environ,
        "CLOUDMESH_APP_DIR": str(folder),
        "CLOUDMESH_FAULT_SECONDS": "0.2",
        "CLOUDMESH_HOST": "127.0.0.1",
        "CLOUDMESH_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", "cloudmesh_function"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].endswith("importing the function failed: RuntimeError: no licence")
