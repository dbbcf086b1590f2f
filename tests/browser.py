"""A real Chromium, spoken to over its DevTools protocol: no driver and no package besides the browser itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest


class Browser:
    """One page.

    Args:
        line: Connection to its target.
    """

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self._line = line
        self._numbers = itertools.count(1)
        self.told: list[str] = []
        """What the page said in its console, and errors that nobody caught."""

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; console messages that come in between are kept."""
        number = next(self._numbers)
        await self._line.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await asyncio.wait_for(self._line.receive_json(), 30)
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return dict(message["result"])
            match message.get("method"):
                case "Runtime.consoleAPICalled" if message["params"]["type"] in ("error", "warning", "assert"):
                    self.told.append(json.dumps(message["params"]["args"]))
                case "Runtime.exceptionThrown":
                    self.told.append(json.dumps(message["params"]["exceptionDetails"]))
                case "Log.entryAdded" if message["params"]["entry"]["level"] == "error":
                    self.told.append(json.dumps(message["params"]["entry"]))

    async def do(self, script: str) -> Any:
        """Runs JavaScript, and gives its value when it is there."""
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str, seconds: float = 20) -> Any:
        """Waits until a script gives something true."""
        deadline = time.monotonic() + seconds
        while not (found := await self.do(script)):
            if time.monotonic() > deadline:
                text = await self.do("document.body.innerText")
                raise AssertionError(f"never true: {script}; the page says {text!r}, the console {self.told}")
            await asyncio.sleep(0.05)
        return found

    async def open(self, url: str) -> None:
        """Goes to an address."""
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def click(self, text: str, within: str = "body") -> None:
        """Clicks the visible button or link with this text or label, as a mouse does."""
        await self.until(
            f"""(() => {{
              const found = [...document.querySelectorAll({json.dumps(within)} + ' :is(a, button)')].find((one) =>
                (one.getAttribute('aria-label') ?? one.textContent).trim() === {json.dumps(text)}
                && one.checkVisibility());
              found?.click();
              return Boolean(found);
            }})()"""
        )

    async def fill(self, selector: str, value: str) -> None:
        """Writes into a field."""
        await self.until(f"document.querySelector({json.dumps(selector)})?.checkVisibility()")
        await self.do(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(value)}; 0")

    async def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Gives the window a size."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    async def picture(self, file: Path) -> None:
        """Takes a picture of what is seen."""
        file.parent.mkdir(parents=True, exist_ok=True)
        answer = await self.send("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(answer["data"]))

    async def violations(self, axe: str) -> list[str]:
        """What axe finds against the page as it is now."""
        if await self.do("typeof axe") == "undefined":
            # as a debugger evaluates, which the page's policy doesn't bind
            await self.send("Runtime.evaluate", expression=axe)
        found = await self.do(
            "axe.run().then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.html).join(' | ')))"
        )
        return [str(one) for one in found]


@contextlib.asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """A browser with an empty profile; downloads go into `folder/downloads`."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("NO BROWSER: the page isn't tested here; install Chromium (Debian: chromium)")
    profile = folder / "profile"
    process = subprocess.Popen(
        [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}",
            "about:blank",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port.exists() and len(port.read_text().splitlines()) == 2):
            assert process.poll() is None, "the browser ended"
            assert time.monotonic() < deadline, "the browser doesn't come up"
            await asyncio.sleep(0.05)
        base = f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/json/list") as answer:
                target = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as line:
                browser = Browser(line)
                for domain in ("Page", "Runtime", "Log", "DOM"):
                    await browser.send(f"{domain}.enable")
                downloads = folder / "downloads"
                downloads.mkdir()
                await browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
                yield browser
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
