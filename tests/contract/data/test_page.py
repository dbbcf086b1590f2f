"""The web page in a real browser: what people do with it, who can use it, and what it lets nobody do."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import msgspec
from tests.browser import Browser, chromium
from tests.testbed import artifacts
from tests.unit.data.gateway_scene import PASSWORD, Served, basic, until

from cloudmesh.data.config import Match, PlacementRule, Prices

EVIL = "<img src=x onerror=document.title='evil'>&amp;.txt"


def _pictures(tmp_path: Path) -> Path:
    """Where pictures are kept: CLOUDMESH_PICTURES, to look at them."""
    return Path(os.environ.get("CLOUDMESH_PICTURES") or tmp_path)


async def _log_in(browser: Browser, served: Served, user: str = "ada", password: str = PASSWORD) -> None:
    await browser.open(served.url)
    await browser.fill("#user", user)
    await browser.fill("#password", password)
    await browser.click("Log in", "#login")


async def _sees(browser: Browser, text: str, within: str = "main") -> None:
    await browser.until(f"document.querySelector({json.dumps(within)}).innerText.includes({json.dumps(text)})")


async def _drop(browser: Browser, name: str, content: bytes) -> None:
    """Drops a file on the page, as from a file manager."""
    await browser.do(
        f"""(() => {{
          const data = new DataTransfer();
          const bytes = Uint8Array.from(atob({json.dumps(base64.b64encode(content).decode())}), (c) => c.charCodeAt(0));
          data.items.add(new File([bytes], {json.dumps(name)}, {{ type: 'text/plain', lastModified: 1600000000000 }}));
          document.querySelector('#view').dispatchEvent(
            new DragEvent('drop', {{ bubbles: true, cancelable: true, dataTransfer: data }}));
        }})()"""
    )


async def test_people_work_with_their_files(tmp_path: Path) -> None:
    axe, pictures = artifacts.axe().read_text(), _pictures(tmp_path)
    found: dict[str, list[str]] = {}
    with Served(tmp_path, versions=2) as served:
        async with chromium(tmp_path / "browser") as browser:
            await browser.size(1200, 900)
            await browser.open(served.url)
            await browser.until("document.querySelector('#login').checkVisibility()")
            found["login"] = await browser.violations(axe)
            await browser.picture(pictures / "login.png")

            await _log_in(browser, served, password="wrong")
            await _sees(browser, "isn't known here", "#wrong")
            await _log_in(browser, served)
            await _sees(browser, "There is nothing here.")

            await browser.click("New folder")
            await browser.fill("#answer", "results ü")
            found["prompt"] = await browser.violations(axe)
            await browser.click("OK", "#dialog")
            await _sees(browser, "results ü/")
            await browser.click("results ü/")
            await _sees(browser, "There is nothing here.")

            content = os.urandom(300_000)
            await _drop(browser, EVIL, content)
            await _sees(browser, "done", "#uploads")
            await _sees(browser, "293 KiB", "#list")
            entry = served.ask("GET", "/v1/list/results%20%C3%BC").json["entries"][0]
            assert (entry["name"], entry["size"]) == (EVIL, len(content))
            assert entry["modified"] == "2020-09-13T12:26:40.000000Z"
            assert await browser.do("document.title") == "lab: /results ü"

            # what is there isn't replaced unasked
            await _drop(browser, EVIL, b"other")
            await _sees(browser, "there is a file of this name", "#uploads")
            assert served.vdir().read(entry["path"]) == content
            await browser.click(f"Replace /{entry['path']}".replace("Replace /", "Replace "))
            await browser.until("document.querySelector('#list').innerText.includes('5 B')")
            assert served.vdir().read(entry["path"]) == b"other"
            found["files"] = await browser.violations(axe)
            await browser.picture(pictures / "files.png")

            await browser.click(f"Details of {EVIL}")
            await _sees(browser, "Where its copies lie", "#dialog")
            await _sees(browser, "Rule 'default': 2 copies, at least 1", "#dialog")
            for store in ("one", "two"):
                await _sees(browser, store, "#dialog")
            await _sees(browser, "Together not known", "#dialog")
            prices = Prices(gib_month=23 * 10**6, currency="USD")
            stores = tuple(msgspec.structs.replace(store, prices=prices) for store in served.config.stores)
            served.reconfigure(stores=stores)
            await browser.click("Close", "#dialog")
            await browser.click(f"Details of {EVIL}")
            await _sees(browser, "USD a month", "#dialog")
            found["details"] = await browser.violations(axe)
            await browser.picture(pictures / "details.png")
            await browser.click("Download", "#dialog")
            file = until(lambda: [f for f in (tmp_path / "browser/downloads").iterdir() if f.suffix != ".crdownload"])
            assert file[0].read_bytes() == b"other"

            await browser.click(f"Details of {EVIL}")
            await browser.click("Rename", "#dialog")
            await browser.fill("#answer", "/plain.txt")
            await browser.click("OK", "#dialog")
            await _sees(browser, "is now /plain.txt", "#said")
            await browser.click("All files")
            await browser.click("Details of plain.txt")
            await browser.click("Delete", "#dialog")
            await _sees(browser, "goes to the trash", "#dialog")
            await browser.click("Delete", "#dialog")
            await _sees(browser, "is in the trash", "#said")
            assert not served.vdir().exists("plain.txt")

            await browser.click("Trash", "nav")
            await browser.click("Restore plain.txt")
            await _sees(browser, "plain.txt is back", "#said")
            assert served.vdir().read("plain.txt") == b"other"
            found["trash"] = await browser.violations(axe)

            await browser.click("Files", "nav")
            await _sees(browser, "plain.txt", "#list")
            await browser.click("Details of plain.txt")
            await _sees(browser, "Older versions", "#dialog")
            found["versions"] = await browser.violations(axe)
            await browser.picture(pictures / "versions.png")
            await browser.click("Restore version 1", "#dialog")
            await _sees(browser, "as it was in version 1", "#said")
            assert served.vdir().read("plain.txt") == content
            await browser.click("Details of plain.txt")
            await browser.click("Delete version 2", "#dialog")
            await _sees(browser, "is removed for good", "#dialog")
            await browser.click("Delete", "#dialog")
            await _sees(browser, "version 2 of plain.txt is deleted", "#said")
            assert [one["version"] for one in served.vdir().versions("plain.txt")["versions"]] == [1]
            for width in (360, 320):
                await browser.size(width, 740, mobile=True)
                assert await browser.do("document.documentElement.scrollWidth") <= width
            await browser.size(360, 740, mobile=True)
            await browser.click("Details of plain.txt")
            await _sees(browser, "Why there", "#dialog")
            assert await browser.do("document.querySelector('#dialog').scrollWidth") <= 360
            found["phone"] = await browser.violations(axe)
            await browser.picture(pictures / "phone.png")

            await browser.click("Close", "#dialog")
            await browser.click("Log out")
            await browser.until("document.querySelector('#login').checkVisibility()")
            assert await browser.do("sessionStorage.length + localStorage.length + document.cookie.length") == 0
            noise = [one for one in browser.told if "status of 4" not in one]
    assert found == {name: [] for name in found}
    assert not noise


async def test_files_are_moved_by_policy_linked_and_adopted(tmp_path: Path) -> None:
    axe, pictures = artifacts.axe().read_text(), _pictures(tmp_path)
    found: dict[str, list[str]] = {}
    rules = (
        PlacementRule(name="archive", match=Match(path="archive/**"), copies=1, only=("two",)),
        PlacementRule(name="kept", match=Match(tags={"keep": "long"}), copies=2),
        PlacementRule(name="huge", match=Match(min_size=1 << 40), copies=1),
        PlacementRule(name="default", copies=1, only=("one",)),
    )
    with Served(tmp_path, rules=rules) as served:
        prices = Prices(gib_month=23 * 10**6, currency="USD")
        served.reconfigure(stores=tuple(msgspec.structs.replace(one, prices=prices) for one in served.config.stores))
        vdir = served.vdir()
        vdir.write("2026/run.csv", b"x" * 5_000_000, tags={"who": "ada"})

        def where(path: str) -> list[str]:
            return [copy["store"] for copy in vdir.where(path)["copies"] if copy["state"] == "Whole"]

        async with chromium(tmp_path / "browser") as browser:
            await browser.size(1200, 1100)
            await _log_in(browser, served)
            await _sees(browser, "USD a month", "#usage")
            # an address may be a file's
            await browser.do("location.hash = '#/2026/run.csv'; 0")
            await _sees(browser, "Move by policy", "#dialog")
            await _sees(browser, "who=ada", "#dialog")
            await _sees(browser, "Together 0.00011 USD a month", "#dialog")
            assert await browser.do("location.hash") == "#/2026"
            table = "[...document.querySelectorAll('[aria-label=Rules] tbody tr')].map((row) => row.innerText)"
            told = [" ".join(row.split()) for row in await browser.do(table)]
            assert told == [
                "archive two as /archive/2026/run.csv 0.00011 USD a month Move",
                "kept one, two tag keep=long 0.00021 USD a month Move",
                "huge 1 copy its size, age, type or name decides",
                "default one places it now 0.00011 USD a month",
            ]
            found["policy"] = await browser.violations(axe)
            await browser.picture(pictures / "policy.png")

            await browser.click("Move to rule kept", "#dialog")
            await _sees(browser, "tag keep=long", "#dialog")
            await browser.click("Move", "#dialog")
            await _sees(browser, "rule 'kept' places /2026/run.csv now", "#said")
            until(lambda: where("2026/run.csv") == ["one", "two"])
            await browser.click("Details of run.csv")
            await browser.click("Move to rule archive", "#dialog")
            await browser.click("Move", "#dialog")
            await _sees(browser, "rule 'archive' places /archive/2026/run.csv now", "#said")
            until(lambda: where("archive/2026/run.csv") == ["two"])
            assert vdir.stat("archive/2026/run.csv")["tags"] == {"who": "ada", "keep": "long"}
            # who works by keys goes on where the list is
            assert await browser.do("document.activeElement.id") == "main"

            served.place("two").put("old/f 1.txt", b"theirs")
            await browser.do("location.hash = '#/'; 0")
            await browser.click("New link")
            await browser.fill("#field-store", "two")
            await browser.fill("#field-key", "old/f 1.txt")
            await browser.fill("#field-name", "linked.txt")
            found["link"] = await browser.violations(axe)
            await browser.picture(pictures / "link.png")
            await browser.click("Link", "#dialog")
            await _sees(browser, "linked.txt leads to two:/old/f 1.txt", "#said")
            await _sees(browser, "link to two:/old/f 1.txt", "#list")
            assert vdir.read("linked.txt") == b"theirs"
            await browser.click("Details of linked.txt")
            await _sees(browser, "nothing here", "#dialog")
            found["linked"] = await browser.violations(axe)
            await browser.picture(pictures / "linked.png")
            await browser.click("Adopt", "#dialog")
            await _sees(browser, "linked.txt is a file of this directory now", "#said")
            assert where("linked.txt") == ["one"]

            await browser.do("location.hash = '#/none'; 0")
            await _sees(browser, "there is no directory '/none'", "#wrong")
            await browser.do("location.hash = '#/%zz'; 0")
            await _sees(browser, "the address of this page can't be read", "#wrong")

            await browser.size(360, 740, mobile=True)
            await browser.do("location.hash = '#/archive/2026/run.csv'; 0")
            await _sees(browser, "Move by policy", "#dialog")
            assert await browser.do("document.querySelector('#dialog').scrollWidth") <= 360
            found["phone"] = await browser.violations(axe)
            await browser.picture(pictures / "policy-phone.png")
            noise = [one for one in browser.told if "status of 4" not in one]
    assert found == {name: [] for name in found}
    assert not noise


async def test_a_move_by_policy_that_is_refused_leaves_the_tags(tmp_path: Path) -> None:
    both = PlacementRule(name="both", match=Match(path="both/**", tags={"keep": "long"}))
    with Served(tmp_path, rules=(both, PlacementRule(name="default"))) as served:
        vdir = served.vdir()
        vdir.write("f", b"mine")
        vdir.write("both/f", b"in the way")
        async with chromium(tmp_path / "browser") as browser:
            await _log_in(browser, served)
            await browser.click("Details of f")
            await browser.click("Move to rule both", "#dialog")
            await browser.click("Move", "#dialog")
            await _sees(browser, "both/f", "#wrong")
            assert "tags" not in vdir.stat("f")
            vdir.delete("both/f")
            await browser.click("Details of f")
            await browser.click("Move to rule both", "#dialog")
            await browser.click("Move", "#dialog")
            await _sees(browser, "rule 'both' places /both/f now", "#said")
            assert vdir.stat("both/f")["tags"] == {"keep": "long"}


async def test_many_files_come_by_pages_and_a_failure_is_told(tmp_path: Path) -> None:
    with Served(tmp_path, quota_bytes=1000) as served:

        async def fill() -> None:
            for number in range(450):
                await served.gateway.catalog.mkdir(f"{number:03}", parents=True)

        served.call(fill())
        async with chromium(tmp_path / "browser") as browser:
            await _log_in(browser, served)
            rows = "document.querySelectorAll('#list tbody tr').length"
            await browser.until(f"{rows} === 200")
            await browser.click("Show more")
            await browser.until(f"{rows} === 400")
            await browser.click("Show more")
            await browser.until(f"{rows} === 450")
            assert not await browser.do("document.querySelector('#more').checkVisibility()")
            await _drop(browser, "large.bin", b"x" * 2000)
            await _sees(browser, "quota of 1000 bytes", "#wrong")
            assert not served.vdir().exists("large.bin")
            # nothing that is written here runs, were it to get into the page
            await browser.do("document.body.append(Object.assign(document.createElement('script'), {}))")
            ran = await browser.do(
                "(() => { try { document.body.innerHTML = '<b>x</b>'; return true } catch { return false } })()"
            )
            assert ran is False


def test_the_page_is_told_to_let_nothing_else_in(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        for path, kind in (("/", "text/html"), ("/page/page.js", "text/javascript"), ("/page/page.css", "text/css")):
            answer = served.ask("GET", path, user="")
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(kind)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert b"style=" not in answer.body
            assert b"onclick=" not in answer.body
        assert served.ask("GET", "/page/../auth.py", user="").status in (404, 422)
        served.reconfigure(web=False)
        for path in ("/", "/page/page.js", "/page/file?ticket=x"):
            assert served.ask("GET", path, user="").status == 404


def test_a_ticket_opens_one_file_for_a_while(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.ask("PUT", "/v1/files/a%22%0d%0ab", b"content")
        assert served.ask("POST", "/page/ticket", {"path": "none"}).status == 404
        assert served.ask("POST", "/page/ticket", {"path": "a"}, user="").status == 401
        url = served.ask("POST", "/page/ticket", {"path": 'a"\r\nb'}).json["url"]
        answer = served.ask("GET", url, user="")
        assert (answer.status, answer.body) == (200, b"content")
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%22%0D%0Ab"
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert served.ask("GET", url, user="", headers={"Range": "bytes=0-2"}).body == b"con"
        assert served.ask("GET", "/page/file?ticket=other", user="").status == 403
        page = served.gateway.page
        served.call(_later(page))
        assert served.ask("GET", url, user="").status == 403


async def _later(page: object) -> None:
    clock = page._clock  # type: ignore[attr-defined]
    page._clock = lambda: clock() + 301  # type: ignore[attr-defined]


def test_a_script_isnt_asked_for_a_password_by_the_browser(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        by_script = served.ask("GET", "/v1/list/", headers={"Sec-Fetch-Mode": "cors"}, user="")
        assert "Basic" not in by_script.headers["WWW-Authenticate"]
        assert "Basic" in served.ask("GET", "/v1/list/", user="").headers["WWW-Authenticate"]
        assert served.ask("GET", "/v1/list/", headers={"Authorization": basic()}, user="").status == 200
