"""The parts of the test bed that need no bed: addresses, settings, certificates, the pause image, prerequisites."""

from __future__ import annotations

import ipaddress
import itertools
import json
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.testbed import artifacts, clusters, config, host, oci, pki, prerequisites, stores
from tests.testbed.bed import ProcessId, Record
from tests.testbed.console import TestbedError


def test_no_two_plans_share_an_address() -> None:
    plans = [host.AddressPlan(index) for index in range(host.PLANS)]
    networks = [ipaddress.ip_network(n) for plan in plans for n in (plan.transfer, plan.pods, plan.services)]
    ordered = sorted(networks)
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(ordered))
    assert len({plan.link for plan in plans}) == host.PLANS
    assert all(len(plan.link) <= 15 for plan in plans), "the kernel takes 15 characters"


def test_addresses_lie_in_their_networks() -> None:
    plan = host.AddressPlan(255)
    assert ipaddress.ip_address(plan.node) in ipaddress.ip_network(plan.transfer)
    assert ipaddress.ip_address(plan.bridge) in ipaddress.ip_network(plan.pods)
    assert ipaddress.ip_address(plan.kubernetes) in ipaddress.ip_network(plan.services)


def test_a_taken_plan_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_taken", set)
    first = host.free_plan(Path("/some/checkout"))
    assert host.free_plan(Path("/some/checkout")) == first
    monkeypatch.setattr(host, "_taken", lambda: {first.index})
    assert host.free_plan(Path("/some/checkout")).index == (first.index + 1) % host.PLANS
    monkeypatch.setattr(host, "_taken", lambda: set(range(host.PLANS)))
    with pytest.raises(TestbedError, match="ip route"):
        host.free_plan(Path("/some/checkout"))


def test_components_name_only_components_they_wait_for() -> None:
    components = config.components(host.AddressPlan(7))
    names = [component.name for component in components]
    assert len(set(names)) == len(names)
    for position, component in enumerate(components):
        assert set(component.after) <= set(names[:position]), f"{component.name} would never start"


def test_without_a_reachable_resolver_dns_answers_for_the_cluster_alone() -> None:
    plan = host.AddressPlan(7)
    assert "forward" not in config.files(plan, [])["Corefile"]
    assert "forward . 192.0.2.1 192.0.2.2" in config.files(plan, ["192.0.2.1", "192.0.2.2"])["Corefile"]


def test_certificates_name_users_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "conf").mkdir()
    pki.write_all(tmp_path, "10.213.7.2", "10.216.112.1", "bed")
    kubeconfig = json.loads((tmp_path / "kubeconfig").read_text())
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://10.213.7.2:6443"
    assert (tmp_path / "kubeconfig").stat().st_mode & 0o077 == 0
    assert all(key.stat().st_mode & 0o077 == 0 for key in (tmp_path / "pki").glob("*.key"))
    authority = pki.issue("authority")
    leaf = pki.issue("somebody", group="some:group", names=["name.example", "192.0.2.7"], issuer=authority)
    leaf.certificate.verify_directly_issued_by(authority.certificate)
    assert leaf.certificate.subject.rfc4514_string() == "CN=somebody,O=some:group"
    assert isinstance(leaf.certificate.public_key(), ec.EllipticCurvePublicKey)


def test_pause_image_is_a_whole_oci_archive_and_equal_each_time(tmp_path: Path) -> None:
    binary = tmp_path / "pause"
    binary.write_bytes(b"\x7fELF and so on")
    digests = {oci.write_archive(tmp_path / f"{i}.tar", "example/pause:1", binary, "amd64") for i in range(2)}
    assert len(digests) == 1
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    with tarfile.open(tmp_path / "0.tar") as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    for name, content in contents.items():
        if name.startswith("blobs/sha256/"):
            assert sha256(content).hexdigest() == name.rpartition("/")[2]
    entry = json.loads(contents["index.json"])["manifests"][0]
    assert entry["digest"] in digests
    manifest = json.loads(contents["blobs/sha256/" + entry["digest"].removeprefix("sha256:")])
    assert all("blobs/sha256/" + part["digest"][7:] in contents for part in [manifest["config"], *manifest["layers"]])


def test_a_record_survives_writing_and_knows_another_process(tmp_path: Path) -> None:
    me = ProcessId.of(1)
    record = Record(7, "name", artifacts.Parts("/packages", "/kubernetes", "/registry"), ["/a"], init=me)
    record.save(tmp_path / "bed.json")
    loaded = Record.load(tmp_path / "bed.json")
    assert loaded == record and loaded is not None and loaded.alive()
    assert not ProcessId(1, me.started + 1, me.boot).alive(), "the number was given to a later process"
    assert not ProcessId(1, me.started, "another boot").alive()
    assert Record.load(tmp_path / "absent.json") is None


def test_interrupted_build_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def interrupted(work: Path) -> None:
        (work / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts._part("thing", "1", interrupted, "a thing")
    root = artifacts.cache_root()
    assert [path.name for path in root.iterdir()] == ["thing.lock"]
    (root / ".thing-left-by-a-kill").mkdir()
    built = artifacts._part("thing", "1", lambda work: (work / "whole").touch(), "a thing")
    assert [path.name for path in built.iterdir()] == ["whole"]
    assert artifacts._part("thing", "1", interrupted, "a thing") == built, "what is there isn't built again"
    assert sorted(path.name for path in root.iterdir()) == ["thing-1", "thing.lock"]


def test_little_space_is_told_before_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(artifacts, "FREE_BYTES_TO_BUILD", 2**60)
    with pytest.raises(TestbedError, match=r"free space .* XDG_CACHE_HOME"):
        artifacts._part("thing", "1", lambda work: None, "a thing")


def test_each_missing_thing_has_its_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(prerequisites, "FREE_BYTES_TO_RUN", 2**60)
    with pytest.raises(TestbedError) as caught:
        prerequisites.check(tmp_path)
    sentences = str(caught.value).splitlines()[1:]
    assert len(sentences) == 2 + len(prerequisites.COMMANDS)
    assert all(sentence.startswith("- ") and ":" in sentence for sentence in sentences)


def test_an_unknown_kind_of_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "minikube")
    with pytest.raises(TestbedError, match="CLUSTER=minikube"):
        clusters.choose()


def test_a_docker_command_without_a_daemon_is_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (("docker", "exit 1"), ("kind", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CLUSTER", raising=False)
    assert clusters.choose() == "own"
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 0\n")
    assert clusters.choose() == "kind"


def test_a_server_of_stores_that_cant_be_made_is_named_and_keeps_no_other_from_being_made() -> None:
    made = []

    def fails() -> None:
        raise TestbedError("no such package")

    with pytest.raises(TestbedError, match=r"\nswift: no such package\nazurite: no such package$"):
        stores.prepare([("swift", fails), ("azurite", fails), ("apache", lambda: made.append("apache"))])
    assert made == ["apache"]
    stores.prepare([("apache", lambda: made.append("again"))])
    assert made == ["apache", "again"]
