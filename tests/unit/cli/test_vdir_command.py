"""`cms vdir` and `cms storage` against a real gateway."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.test_docs import follow
from tests.unit.data.gateway_scene import AUTH, PASSWORD, Served, until

from cloudmesh.cli.main import main
from cloudmesh.data.client import Vdir
from cloudmesh.data.config import AccessRule, AuthConfig

ROOT = Path(__file__).parents[3]
Run = Callable[..., tuple[int, str, str]]
ODD = "a b/naïve - 日本.txt"


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    auth = AuthConfig(False, AUTH.basic, "None", (AccessRule("**/closed/**", access="None", users=("bob",)),))
    with Served(tmp_path_factory.mktemp("gateway"), auth=auth) as served:
        yield served


@pytest.fixture
def vdir(served: Served) -> Iterator[Vdir]:
    vdir = served.vdir()
    yield vdir
    vdir.close()


@pytest.fixture
def environment(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("CLOUDMESH_VDIR_URL", served.url)
    monkeypatch.delenv("CLOUDMESH_VDIR_TOKEN", raising=False)
    monkeypatch.delenv("CLOUDMESH_VDIR", raising=False)
    return {
        "CLOUDMESH_VDIR_URL": served.url, "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(ROOT / "operator"),
    }  # fmt: skip


@pytest.fixture
def cms(environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, user: str = "ada") -> tuple[int, str, str]:
        code = main([*words, "--user", user, "--password-file", str(tmp_path / "password")])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert PASSWORD not in said.out + said.err
        return code, said.out, said.err

    return run


@pytest.fixture
def tree(environment: dict[str, str]) -> Path:
    """50 files, one of them with an odd name, one empty."""
    for number in range(48):
        path = Path(f"tree/d{number % 4}/e{number % 3}/f{number}.{'csv' if number % 2 else 'txt'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d," % number * (number + 1))
    Path("tree", ODD).parent.mkdir()
    Path("tree", ODD).write_text("odd")
    Path("tree/empty").touch()
    return Path("tree")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def there(vdir: Vdir, under: str) -> dict[str, bytes]:
    found = [one["path"] for one in vdir.list(under, recursive=True) if one["kind"] == "File"]
    return {path.removeprefix(f"{under}/"): vdir.read(path) for path in found}


def test_each_verb_of_vdir(cms: Run, vdir: Vdir) -> None:
    Path("x.txt").write_text("hello")
    assert cms("vdir", "mkdir", "lab:/a/b")[0] == 0
    assert cms("vdir", "put", "x.txt", "lab:/a/b/")[0] == 0
    assert vdir.read("a/b/x.txt") == b"hello"
    assert cms("vdir", "put", "x.txt", f"lab:/{ODD}")[0] == 0
    code, out, _ = cms("vdir", "ls", "lab:/", "--recursive")
    assert code == 0 and ODD in out and "a/b/x.txt" in out
    assert json.loads(cms("vdir", "ls", "--name", "lab", "/a/b/x.txt", "--output", "json")[1])[0]["size"] == 5
    assert cms("vdir", "cp", "lab:/a/b/x.txt", "lab:/y.txt")[0] == 0
    assert cms("vdir", "cp", "lab:/a/b/x.txt", "lab:/y.txt")[0] == 1, "there is one"
    assert cms("vdir", "mv", "lab:/y.txt", "lab:/z.txt", "--overwrite")[0] == 0
    assert vdir.read("z.txt") == b"hello" and not vdir.exists("y.txt")
    assert cms("vdir", "get", "lab:/z.txt")[0] == 0
    assert Path("z.txt").read_text() == "hello"
    assert Path("z.txt").stat().st_mtime_ns // 1000 == Path("x.txt").stat().st_mtime_ns // 1000
    assert json.loads(cms("vdir", "tags", "lab:/z.txt", "kind=test", "--output", "json")[1]) == {"kind": "test"}
    found = yaml.safe_load(cms("vdir", "search", "*.txt", "lab:/", "--tag", "kind=test", "--output", "yaml")[1])
    assert [one["path"] for one in found] == ["z.txt"]
    assert cms("vdir", "tags", "lab:/z.txt")[1].split() == ["kind", "test"]
    assert cms("vdir", "tags", "lab:/z.txt", "--none")[:2] == (0, "")
    code, out, _ = cms("vdir", "where", "lab:/z.txt")
    assert code == 0 and "Whole" in out
    code, out, _ = cms("vdir", "why", "lab:/z.txt")
    assert code == 0 and "rule" in out and "two" in out
    assert cms("vdir", "rm", "lab:/a")[0] == 1, "it isn't empty"
    assert cms("vdir", "rm", "lab:/a", "--recursive")[0] == 0
    [gone] = json.loads(cms("vdir", "trash", "lab", "--output", "json")[1])
    assert gone["path"] == "a"
    assert cms("vdir", "restore", gone["id"], "lab:/back")[0] == 0
    assert vdir.read("back/b/x.txt") == b"hello"
    assert json.loads(cms("vdir", "usage", "lab", "--output", "json")[1])["files"] == 3
    code, out, _ = cms("vdir", "status", "--name", "lab")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["NAME", "one", "two"]


def test_older_versions(cms: Run, served: Served, vdir: Vdir) -> None:
    served.reconfigure(versions=2)
    for content in (b"one", b"second", b"3"):
        entry = vdir.write("f", content)
    told = json.loads(cms("vdir", "versions", "lab:/f", "--output", "json")[1])
    assert [(one["version"], one["size"]) for one in told] == [(2, 6), (1, 3)]
    assert cms("vdir", "versions", "lab:/f", "--get", "2", "--to", "old")[0] == 0
    assert Path("old").read_bytes() == b"second"
    assert cms("vdir", "versions", "lab:/f", "--get", "1", "--to", "old")[0] == 2, "there is one"
    assert cms("vdir", "versions", "lab:/f", "--get", "1")[0] == 2, "where to?"
    assert cms("vdir", "versions", "lab:/f", "--delete", "2")[0] == 0
    assert cms("vdir", "versions", "lab:/f", "--restore", "2")[0] == 1, "it is given up"
    assert cms("vdir", "versions", "lab:/f", "--restore", "1")[0] == 0
    assert (vdir.read("f"), vdir.stat("f")["version"]) == (b"one", entry["version"] + 1)


def test_links(cms: Run, served: Served, vdir: Vdir) -> None:
    def read_or(refused: str) -> bool:
        code, _, err = cms("vdir", "get", "lab:/old/NAME", "x")
        assert code == 0 or refused in err
        return code == 0

    served.reconfigure(adopt=False)
    served.place("one").put("archive/run.csv", b"theirs")
    assert cms("vdir", "add", "one:/archive/run.csv", "lab:/old/NAME")[0] == 0
    assert vdir.read("old/NAME") == b"theirs"
    link = {"store": "one", "key": "archive/run.csv"}
    [told] = json.loads(cms("vdir", "ls", "lab:/old", "--output", "json")[1])
    assert (told["kind"], told["link"]) == ("File", link)
    for words in ("lab:/old", "lab:/old/NAME"):
        assert "old/NAME -> one:/archive/run.csv" in cms("vdir", "ls", words)[1]
    [place] = json.loads(cms("vdir", "where", "lab:/old/NAME", "--output", "json")[1])
    assert (place["store"], place["key"], place["state"]) == ("one", "archive/run.csv", "Linked")
    served.place("one").remove("archive/run.csv")
    code, _, err = cms("vdir", "get", "lab:/old/NAME", "x")
    assert code == 1 and "there is no such object any more" in err
    assert vdir.stat("old/NAME")["link"]["error"]
    served.place("one").put("archive/run.csv", b"theirs, changed")
    until(lambda: read_or("was changed"))  # refused, unless the mover was on its way there
    assert Path("x").read_bytes() == b"theirs, changed"
    assert cms("vdir", "adopt", "lab:/old/NAME")[0] == 0
    assert "link" not in vdir.stat("old/NAME")
    assert cms("vdir", "adopt", "lab:/old/NAME")[0] == 1
    assert cms("vdir", "rm", "lab:/old/NAME")[0] == 0
    assert served.place("one").objects["archive/run.csv"].content == b"theirs, changed"


def test_a_tree_goes_in_and_comes_back(cms: Run, tree: Path, vdir: Vdir) -> None:
    assert cms("storage", "put", "tree", "lab:/t")[0] == 2, "a folder needs --recursive"
    assert cms("storage", "put", "tree", "lab:/t", "--recursive")[0] == 0
    assert there(vdir, "t") == contents(tree)
    assert cms("storage", "get", "lab:/t", "back", "--recursive", "--parallel", "8")[0] == 0
    assert contents(Path("back")) == contents(tree) and len(contents(tree)) == 50
    assert cms("storage", "copy", "lab:/t/d1", "lab:/u", "--recursive")[0] == 0
    assert there(vdir, "u") == contents(tree / "d1")
    assert cms("storage", "create", "dir", "lab:/new/one")[0] == 0
    assert vdir.stat("new/one")["kind"] == "Directory"
    assert ODD in cms("storage", "search", "na*", "lab:/t")[1]
    assert cms("storage", "delete", "lab:/u", "--recursive", "--dryrun")[0] == 0
    assert vdir.exists("u")
    assert cms("storage", "delete", "lab:/u", "--recursive")[0] == 0
    assert not vdir.exists("u")
    assert "d1/e1/f1.csv" in cms("storage", "list", "lab:/t", "--recursive")[1]


def test_sync_copies_what_differs(cms: Run, tree: Path, vdir: Vdir) -> None:
    code, out, _ = cms("storage", "sync", "tree", "lab:/t", "--dryrun")
    assert code == 0 and len(out.splitlines()) == 51 and not vdir.exists("t")
    assert cms("storage", "sync", "tree", "lab:/t", "--check")[0] == 1
    assert cms("storage", "sync", "tree", "lab:/t")[0] == 0
    assert cms("storage", "sync", "tree", "lab:/t", "--check")[:2] == (0, "")
    assert json.loads(cms("storage", "sync", "tree", "lab:/t", "--output", "json")[1]) == []
    os.utime(tree / "empty")
    vdir.write("t/d1/e1/f1.csv", b"9,9,")  # of the same size, at another time
    vdir.write("t/extra", b"kept")
    found = json.loads(cms("storage", "sync", "tree", "lab:/t", "--check", "--output", "json")[1])
    assert found == [{"difference": "differs", "path": "d1/e1/f1.csv"}, {"difference": "extra", "path": "extra"}]
    done = json.loads(cms("storage", "sync", "tree", "lab:/t", "--output", "json")[1])
    assert [(one["action"], one["path"]) for one in done] == [("copied", "d1/e1/f1.csv")]
    assert there(vdir, "t") == contents(tree) | {"extra": b"kept"}
    assert cms("storage", "sync", "tree", "lab:/t", "--delete", "--exclude", "ex*")[0] == 0
    assert vdir.exists("t/extra"), "what is excluded is left alone"
    assert cms("storage", "sync", "tree", "lab:/t", "--delete")[0] == 0
    assert there(vdir, "t") == contents(tree)
    Path("back").mkdir()
    Path("back/extra").touch()
    assert cms("storage", "sync", "lab:/t", "back", "--delete")[0] == 0
    (tree.parent / "unmounted").mkdir()
    code, _, err = cms("storage", "sync", "unmounted", "lab:/t", "--delete")
    assert code == 1
    assert "the source is empty" in err
    assert vdir.exists("t")
    assert contents(Path("back")) == contents(tree)


def test_one_file_is_compared_and_copied(cms: Run, vdir: Vdir) -> None:
    Path("x").write_text("1")
    assert cms("storage", "put", "x", "lab:/y", "--check")[:2] == (1, "DIFFERENCE  PATH\nmissing     x\n")
    assert cms("storage", "put", "x", "lab:/y")[0] == 0
    assert cms("storage", "put", "x", "lab:/y", "--check")[:2] == (0, "")
    vdir.write("y", b"2")
    assert cms("storage", "copy", "x", "lab:/y", "--check")[:2] == (1, "DIFFERENCE  PATH\ndiffers     x\n")


def test_files_go_from_one_directory_to_another(
    cms: Run, served: Served, vdir: Vdir, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = {"a/b.bin": os.urandom(3 << 20), "empty": b"", ODD: b"odd"}
    for path, one in content.items():
        vdir.write(f"t/{path}", one)
    with Served(tmp_path_factory.mktemp("other")) as other:
        # names of digits, so that one URL is of both
        for gateway in (served, other):
            gateway.reconfigure(name=str(gateway.port))
        words = (f"{served.port}:/t", f"{other.port}:/", "--url", "http://127.0.0.1:{name}")
        assert cms("storage", "sync", *words)[0] == 0
        assert there(Vdir(str(other.port), url=other.url, user="ada", password=PASSWORD), "") == content
        assert cms("storage", "sync", *words, "--check")[:2] == (0, "")
        assert cms("storage", "sync", *words)[:2] == (0, ""), "times are carried too"


def test_patterns_choose(cms: Run, tree: Path, vdir: Vdir) -> None:
    words = ("--include", "d1/**", "--include", "**/*.txt", "--exclude", "**/e2/*")
    assert cms("storage", "sync", "tree", "lab:/t", *words)[0] == 0
    wanted = {
        path: content
        for path, content in contents(tree).items()
        if (path.startswith("d1/") or path.endswith(".txt")) and "/e2/" not in path
    }
    assert 10 < len(wanted) < 40
    assert there(vdir, "t") == wanted


def test_a_failing_upload_fails_alone_and_deletes_nothing(cms: Run, tree: Path, vdir: Vdir) -> None:
    vdir.write("t/extra", b"kept")
    (tree / "closed").mkdir()
    (tree / "closed/x").write_text("x")
    os.mkfifo(tree / "pipe")
    code, out, err = cms("storage", "sync", "tree", "lab:/t", "--delete", user="bob")
    assert code == 1
    assert "cms: closed/x: " in err and "cms: pipe: is no regular file" in err and "nothing is deleted" in err
    assert "2 failed, 50 done" in err and len(out.splitlines()) == 51
    kept = contents(tree)
    del kept["closed/x"]
    assert there(vdir, "t") == kept | {"extra": b"kept"}


def test_sync_does_not_delete_much_unasked(cms: Run, tmp_path: Path, vdir: Vdir) -> None:
    few, many = tmp_path / "work/few", 30
    few.mkdir()
    for number in range(many):
        vdir.write(f"t/f{number:02}", b"x")
    for number in range(many - 11):
        (few / f"f{number:02}").write_text("x")
    (few / "new").write_text("new")
    before = there(vdir, "t")
    code, out, err = cms("storage", "sync", "few", "lab:/t", "--delete")
    assert (code, out) == (1, "")
    assert "11 of 30 files" in err and "--force" in err and "nothing was changed" in err
    assert there(vdir, "t") == before
    code, out, err = cms("storage", "sync", "few", "lab:/t", "--delete", "--dryrun")
    assert code == 1 and "--force" in err and out.count("delete ") == 11
    assert there(vdir, "t") == before
    # without --delete, or for a few of many, nobody has to say it twice
    assert cms("storage", "sync", "few", "lab:/t")[0] == 0
    (few / "f19").write_text("x")
    assert cms("storage", "sync", "few", "lab:/t", "--delete")[0] == 0
    (few / "f00").unlink()
    for number in range(1, 12):
        (few / f"f{number:02}").unlink()
    assert cms("storage", "sync", "few", "lab:/t", "--delete", "--force")[0] == 0
    assert there(vdir, "t") == contents(few)


def test_links_lead_nowhere(cms: Run, tmp_path: Path, vdir: Vdir) -> None:
    work, outside = tmp_path / "work/tree", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (work / "d").mkdir(parents=True)
    (work / "d/a").write_text("a")
    (work / "file").symlink_to(outside / "secret")
    (work / "folder").symlink_to(outside)
    (work / "dangling").symlink_to("nowhere")
    os.mkfifo(work / "pipe")
    vdir.write("t/extra", b"kept")
    code, _, err = cms("storage", "sync", "tree", "lab:/t", "--delete")
    assert code == 1
    for name in ("file", "folder", "dangling"):
        assert f"cms: {name}: is a symbolic link" in err
    assert "cms: pipe: is no regular file" in err
    assert there(vdir, "t") == {"d/a": b"a", "extra": b"kept"}
    # nor out of the target
    vdir.write("t/folder/new", b"new")
    vdir.write("t/file", b"new")
    code, _, err = cms("storage", "get", "lab:/t", "tree", "--recursive")
    assert code == 1 and "nothing is written through it" in err
    assert contents(outside) == {"secret": b"secret"}
    assert (work / "file").read_text() == "new" and not (work / "file").is_symlink()
    # what is named is meant
    (tmp_path / "work/named").symlink_to(outside / "secret")
    assert cms("storage", "put", "named", "lab:/named")[0] == 0
    assert vdir.read("named") == b"secret"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("vdir ls", 2, "which directory"),
        ("vdir ls lab:/a/../b", 1, "has the part '..'"),
        ("vdir ls lab:/none", 1, "none"),
        ("vdir ls lab:/ --name other", 2, "name one directory"),
        ("vdir ls lab:/ --url ftp://x", 2, "https://host/path"),
        ("vdir ls lab:/ --url http://me:secret@x", 2, "without a user"),
        ("vdir ls lab:/ --url http://127.0.0.1:1", 1, "doesn't answer"),
        ("vdir ls lab:/ --token a\x01b", 2, "characters that no token has"),
        ("vdir put lab:/x lab:/y", 2, "on this machine"),
        ("vdir put none lab:/y", 1, "nothing at the source 'none'"),
        ("vdir get lab:/none y", 1, "nothing at the source 'lab:/none'"),
        ("vdir ls lab:y", 2, "write lab:/y"),
        ("vdir ls other:/", 1, "the directory here is 'lab' of namespace 'default', not 'other'"),
        ("vdir ls lab:/ --namespace elsewhere", 1, "not 'elsewhere/lab'"),
        ("vdir ls lab:/ --nope", 2, "'--nope' isn't known here"),
        ("storage copy x --source lab:/x", 2, "write the source once"),
        ("storage copy --target lab:/x", 2, "write the source once"),
        ("vdir mv lab:/x other:/y", 2, "storage copy"),
        ("vdir tags lab:/x word", 2, "KEY=VALUE"),
        ("vdir restore zz lab:/", 1, "trash"),
        ("vdir add archive/f lab:/x", 2, "SERVICE:/dir/file"),
        ("vdir add none:/archive/f lab:/x", 1, "isn't a store"),
        ("vdir adopt lab:/none", 1, "none"),
        ("vdir fly", 2, "invalid choice"),
        ("fly", 2, "invalid choice"),
        ("storage put lab:/x y", 2, "put copies"),
        ("storage get x lab:/y", 2, "get copies"),
        ("storage copy x y", 2, "NAME:/path"),
        ("storage copy lab:/x other:/y", 2, "{name}"),
        ("storage copy lab:/ lab:/y --recursive", 2, "within one another"),
        ("storage sync . lab:/y --parallel 99", 2, "from 1 to 16"),
        ("storage sync . lab:/y --output xml", 2, "invalid choice"),
    ],
)
def test_bad_input_is_one_sentence(cms: Run, words: str, code: int, sentence: str) -> None:
    found, out, err = cms(*words.split())
    assert (found, out) == (code, "")
    assert sentence in err
    assert "secret" not in err
    if not err.startswith("usage:"):
        assert err.startswith("cms: ") and err.count("\n") == 1


def test_a_directory_of_another_name_is_left_alone(cms: Run, vdir: Vdir) -> None:
    vdir.write("x", b"old")
    Path("x").write_text("new")
    for words in (("vdir", "put", "x", "other:/x"), ("vdir", "rm", "other:/x"), ("storage", "sync", ".", "other:/")):
        code, _, err = cms(*words)
        assert code == 1 and "not 'other'" in err
    assert there(vdir, "") == {"x": b"old"}


def test_grammar_of_before(cms: Run, vdir: Vdir) -> None:
    Path("x").write_text("x")
    assert cms("storage", "copy", "--source=x", "--target=lab:/d/x")[0] == 0
    assert cms("storage", "list", "--storage=lab", "--recursive")[1].split()[-1] == "d/x"
    assert cms("storage", "copy", "x", "lab:/y", "--dry-run")[1].split()[-3:] == ["copy", "x", "1"]
    code, _, err = cms("vdir", "delete", "lab:/d")
    assert code == 1 and "add --recursive" in err
    assert cms("vdir", "delete", "lab:/d", "--recursive")[0] == 0
    assert there(vdir, "") == {}


def test_rules_say_what_brings_a_file_to_each(cms: Run, vdir: Vdir) -> None:
    vdir.write("x", b"x")
    lines = cms("vdir", "rules", "lab:/x")[1].splitlines()
    assert lines[0].split() == ["NAME", "CURRENT", "POSSIBLE", "COPIES", "STORES", "MONTHLY", "TAGS", "TO"]
    assert lines[1].split() == ["default", "yes", "yes", "2", "one,two"]
    assert json.loads(cms("vdir", "rules", "lab:/x", "--output", "json")[1])["rules"][0]["name"] == "default"


def test_a_wrong_password_and_a_stranger_at_the_url(cms: Run, served: Served) -> None:
    assert cms("vdir", "ls", "lab:/", user="eve")[0] == 1

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<p>hello")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code, _, err = cms("vdir", "ls", "lab:/", "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert code == 1 and "is there a gateway" in err


def test_names_can_not_command_the_terminal(cms: Run, vdir: Vdir) -> None:
    vdir.write("a\x1b[2Jb", b"")
    out = cms("vdir", "ls", "lab:/")[1]
    assert "\x1b" not in out and "a\\x1b[2Jb" in out


def test_a_name_from_the_gateway_does_not_lead_out(cms: Run, vdir: Vdir, monkeypatch: pytest.MonkeyPatch) -> None:
    vdir.write("t/x", b"")
    evil = {"path": "t/../../x", "kind": "File", "size": 0, "modified": "2026-01-01T00:00:00Z"}
    monkeypatch.setattr(Vdir, "list", lambda *_, **__: iter([evil]))
    code, _, err = cms("storage", "get", "lab:/t", "down", "--recursive")
    assert code == 1 and "has the part '..'" in err
    assert not Path("../x").exists() and not Path("x").exists()


def test_a_command_of_its_own_process_ends_with_0(environment: dict[str, str], tmp_path: Path, vdir: Vdir) -> None:
    Path("some").mkdir()
    for number in range(5):
        Path(f"some/{number}").write_bytes(os.urandom(5000))
    words = [sys.executable, "-m", "cloudmesh.cli", "storage", "put", "some", "", "--recursive"]
    words += ["--user", "ada", "--password-file", str(tmp_path / "password")]
    for number in range(20):
        words[6] = f"lab:/run-{number}"
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert there(vdir, f"run-{number}") == contents(Path("some"))


def test_the_how_to_page_is_followed(environment: dict[str, str], tmp_path: Path, served: Served) -> None:
    command = tmp_path / "bin/cms"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cloudmesh.cli "$@"\n')
    command.chmod(0o755)
    folder = tmp_path / "reader"
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    there = {**environment, "PATH": f"{command.parent}:{environment['PATH']}"}
    changes = {"http://localhost:8080": served.url}
    page = ROOT / "docs/how-to/use-cms-for-files.md"
    served.reconfigure(adopt=False)
    served.place("two").put("archive/2019/run.csv", b"run,value\n")
    assert follow(page, folder, there, changes) >= 15
    assert served.place("two").objects["archive/2019/run.csv"].content == b"run,value\n"


def test_the_catalogue_is_written_down_and_made_anew(
    cms: Run, vdir: Vdir, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    vdir.write("a/f", b"1")
    vdir.move("a", "b")
    code, out, _ = cms("vdir", "snapshot", "lab", "--output", "json")
    assert code == 0
    assert json.loads(out)["record"] > 0
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda words: asked.append(words) or "no")
    code, _, err = cms("vdir", "rebuild", "lab")
    assert code != 0
    assert "nothing was done" in err
    assert asked == ["Throw the catalogue of lab away? Type its name: "]
    monkeypatch.setattr("builtins.input", lambda words: "lab")
    assert cms("vdir", "rebuild", "lab")[0] == 0
    until(lambda: served.ask("GET", "/v1/usage").status == 200)
    assert cms("vdir", "rebuild", "lab", "--yes", "--output", "json")[1].split() == [
        "{", '"directory":', '"lab",', '"state":', '"Rebuilding"', "}",
    ]  # fmt: skip
    until(lambda: served.ask("GET", "/v1/usage").status == 200)
    assert vdir.read("b/f") == b"1"
    code, _, err = cms("vdir", "believe", "one", "lab", "--seen", "3-abc")
    assert code != 0
    assert "isn't doubted" in err
