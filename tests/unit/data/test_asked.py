"""From specs to what a gateway is told, and who may use which part of a store."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.api.corpus_directories import DIRECTORIES, STORES, lab
from tests.unit.api.kinds import made

from cloudmesh.api.datastore import PLACES, DataStore
from cloudmesh.api.places import Place
from cloudmesh.api.virtualdirectory import DirectoryStore, VirtualDirectory
from cloudmesh.data import config as configs
from cloudmesh.data.asked import directory_config, location_of, overlap, prefix_of, store_config, users_in
from cloudmesh.data.config import AccessRule, DirectoryConfig, Match, PlacementRule, StoreConfig
from cloudmesh.data.resources import make_deployment
from cloudmesh.data.using import claimed, claimed_elsewhere, first_parts
from cloudmesh.data.words import apart, size_text, time_text
from cloudmesh.engine import InvalidRequest
from cloudmesh.engine.endpoints import hosts_at

BCRYPT = "$2b$12$" + "x" * 53


def directory(spec: dict[str, Any], name: str = "lab", **meta: Any) -> dict[str, Any]:
    obj = made("VirtualDirectory", name, spec)
    obj["metadata"] |= {"namespace": "ns", "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:00Z", **meta}
    return obj


def store(spec: dict[str, Any], name: str = "aws", **meta: Any) -> dict[str, Any]:
    obj = made("DataStore", name, spec)
    obj["metadata"] |= {"namespace": "ns", "uid": f"uid-{name}", **meta}
    return obj


def told(spec: dict[str, Any]) -> DirectoryConfig:
    read = VirtualDirectory.model_validate(directory(spec))
    stores = [StoreConfig(name=asked.name, kind="s3") for asked in read.spec.stores]
    return directory_config(
        read, stores, installation="i", token="t", users={"ada": BCRYPT}, allow_private=False
    )  # fmt: skip


def at(endpoint: str) -> dict[str, Any]:
    return {"s3": {"bucket": "lab", "endpoint": endpoint}}


def of_store(spec: dict[str, Any], **meta: Any) -> StoreConfig:
    asked = VirtualDirectory.model_validate(directory({"stores": [{"name": "aws"}]})).spec.stores[0]
    return store_config(asked, "ns", "lab", store(spec, **meta), {"key": b"value"})


def test_defaults_of_a_directory() -> None:
    found = told({"stores": [{"name": "one"}]})
    assert found.rules == (PlacementRule(name="default", copies=1),)
    assert told(DIRECTORIES["two"]).rules == (PlacementRule(name="default", copies=2),)
    assert (found.trash_seconds, found.verify_seconds, found.adopt) == (2592000, 2592000, True)
    assert (found.quota_bytes, found.quota_files, found.emptying) == (None, None, False)
    assert (found.auth.kubernetes, found.auth.anonymous, found.auth.basic) == (True, "None", {"ada": BCRYPT})


def test_all_of_a_directory() -> None:
    found = told(DIRECTORIES["whole"])
    raw, near, cold, rest = found.rules
    assert raw == PlacementRule(
        "raw", Match("raw/**", 1 << 30, 1 << 40), copies=2, min_copies=2, spread="Provider", prefer="Fastest"
    )
    assert (near.prefer, near.near, near.but, near.copies) == ("Nearest", ("us-east-1",), ("nas",), 2)
    assert near.match == Match(content_type="image/*", tags={"project": "apollo"})
    assert (cold.match.older_than_seconds, cold.only, cold.copies) == (7776000, ("nas",), 1)
    assert (rest.copies, rest.spread) == (3, "Region")
    assert (found.quota_bytes, found.quota_files) == (1 << 40, 1000000)
    assert (found.trash_seconds, found.verify_seconds, found.adopt) == (0, 0, False)
    assert (found.auth.kubernetes, found.auth.anonymous) == (False, "ReadOnly")
    assert found.auth.rules[1:] == (
        AccessRule("private/**", access="None"),
        AccessRule("**", groups=("system:authenticated",), access="ReadOnly"),
    )


@pytest.mark.parametrize("name", DIRECTORIES)
def test_what_is_told_can_be_read_again(name: str) -> None:
    found = told(DIRECTORIES[name])
    text = configs.dump(found)
    assert configs.load(text) == found
    assert configs.fingerprint(text) == configs.fingerprint(configs.dump(told(DIRECTORIES[name])))


def test_copies_never_exceed_what_a_rule_may_use() -> None:
    spec = lab(placement={"rules": [{"name": "a", "stores": {"except": ["aws", "minio"]}}]})
    assert told(spec).rules[0].copies == 1


def test_a_bucket() -> None:
    found = of_store(STORES["s3-whole"], labels={"region": "campus"})
    assert found.settings == {
        "endpoint": "http://minio.storage.svc:9000", "region": "us-east-1", "bucket": "lab-data"
    }  # fmt: skip
    assert (found.access, found.capacity, found.requests_per_second) == ("Drain", 500 << 30, 100)
    assert found.bytes_per_second == 100 << 20
    assert (found.domain, found.region, found.mount) == ("minio.storage.svc", "campus", "")
    assert (found.prefix, found.credentials, found.uid) == ("ns/lab/", {"key": "dmFsdWU="}, "uid-aws")
    assert (of_store(STORES["s3"]).domain, of_store(STORES["s3"]).region) == ("amazonaws.com", "us-east-1")


def test_a_volume() -> None:
    found = of_store(STORES["local"])
    assert (found.kind, found.mount, found.domain, found.region) == ("local", "/stores/aws", "cluster", "")
    assert found.settings == {"persistentVolumeClaimRef": {"name": "nas"}}


def test_two_stores_on_one_volume_mount_it_once_as_a_volume() -> None:
    config = DirectoryConfig(
        "ns", "lab", "u", "i",
        tuple(
            StoreConfig(n, "local", {"persistentVolumeClaimRef": {"name": "nas"}}, mount=f"/stores/{n}")
            for n in ("one", "two")
        ),
    )  # fmt: skip
    spec = make_deployment(directory(lab()), config, "image")["spec"]["template"]["spec"]
    assert [v["name"] for v in spec["volumes"]] == ["config", "ca", "catalog", "tmp", "store-0"]
    mounts = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "store-0"]
    assert [m["mountPath"] for m in mounts] == ["/stores/one", "/stores/two"]


def test_the_gateway_is_told_how_much_memory_it_may_have() -> None:
    config = DirectoryConfig("ns", "lab", "u", "i", ())
    container = make_deployment(directory(lab()), config, "image")["spec"]["template"]["spec"]["containers"][0]
    told = {one["name"]: one for one in container["env"]}["CLOUDMESH_MEMORY_LIMIT"]["valueFrom"]["resourceFieldRef"]
    assert told == {"containerName": container["name"], "resource": "limits.memory"}
    assert container["resources"]["limits"]["memory"]


def test_prefixes() -> None:
    assert prefix_of("ns", "lab", {}) == "ns/lab/"
    assert prefix_of("ns", "lab", {"prefix": "a/b/"}) == "a/b/"
    assert prefix_of("ns", "lab", {"prefix": "/"}) == ""


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("", "a/", True), ("a/", "a/", True), ("a/", "a/b/", True), ("a/b/", "a/", True), ("a/", "ab/", False),
        ("a/b/", "a/c/", False),
    ],
)  # fmt: skip
def test_overlap(one: str, other: str, both: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is both


def at_azure(endpoint: str) -> dict[str, Any]:
    """The container of the corpus at an endpoint."""
    place = {"account": "labdata", "container": "lab-data", "endpoint": endpoint}
    return {"azureBlob": place, "credentials": {"secretRef": {"name": "a"}}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (STORES["s3"], STORES["s3"], True),
        (STORES["s3"], STORES["s3-endpoint"], False),
        (STORES["s3"], {"s3": {"bucket": "other"}}, False),
        (at("http://A.org/"), at("http://a.org"), True),
        (at("http://a.org:80"), at("http://a.org"), True),
        (at("http://a.org:81"), at("http://a.org"), False),
        (at("http://a.org/x"), at("http://a.org/y"), False),
        (at("http://[2001:db8::7]:9000"), at("http://[2001:DB8::7]:9000/"), True),
        (STORES["local"], STORES["local-read-only"], True),
        (STORES["local"], STORES["s3"], False),
        (STORES["azure"], {"azureBlob": {"account": "other", "container": "lab-data"}}, False),
        (STORES["azure"], {"azureBlob": {"account": "labdata", "container": "other"}}, False),
        (STORES["azure"], at_azure("https://labdata.blob.core.windows.net:443/"), True),
        (STORES["azure"], at_azure("http://azurite:10000/labdata"), False),
        (STORES["gcs"], STORES["s3"], False),
        (
            STORES["gcs"],
            {"gcs": {"bucket": "lab-data", "endpoint": "https://storage.me-central2.rep.googleapis.com"}},
            True,
        ),
        (STORES["gcs"], {"gcs": {"bucket": "lab-data", "endpoint": "https://gcs.example.org"}}, False),
        (STORES["sftp"], {"sftp": {**STORES["sftp"]["sftp"], "host": "NAS.example.org", "user": "other"}}, True),
        (STORES["sftp"], {"sftp": {**STORES["sftp"]["sftp"], "port": 2222}}, False),
        (STORES["webdav"], {"webdav": {"endpoint": "https://DAV.example.org:443/files/lab/"}}, True),
        (STORES["webdav"], {"webdav": {"endpoint": "https://dav.example.org/files/other"}}, False),
        (STORES["sftp"], {"sftp": {**STORES["sftp"]["sftp"], "path": "/srv/other"}}, False),
    ],
)
def test_the_same_place(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    assert (location_of(store(one, "a")) == location_of(store(other, "b"))) is same


def test_stores_of_one_cloud_are_lost_together() -> None:
    def domain(spec: dict[str, Any]) -> str:
        return store_config(DirectoryStore(name="a"), "ns", "lab", store(spec, "a"), {}).domain

    assert domain(STORES["azure"]) == domain(at_azure("https://other.blob.core.windows.net")) == "blob.core.windows.net"
    assert domain(STORES["gcs"]) == domain(STORES["gcs-domain"]) == "googleapis.com"
    assert domain(at_azure("http://azurite:10000/labdata")) == "azurite" and domain(STORES["local"]) == "cluster"


AT: dict[str, dict[str, tuple[tuple[str, ...], str, str]]] = {
    "azureBlob": {
        "azure": (("labdata.blob.core.windows.net", "443", "", "lab-data"), "blob.core.windows.net", ""),
        "azure-emulator": (
            ("azurite.storage.svc", "10000", "labdata", "lab-data"), "azurite.storage.svc", "",
        ),
    },
    "gcs": {"gcs-domain": (("googleapis.com", "443", "", "data_1.lab.example.org"), "googleapis.com", "")},
    "local": {"local": (("ns", "nas"), "cluster", "")},
    "plugin": {
        "plugin": (("box",), "", ""),
        "plugin-credentials": (("box", "depth=3", "endpoint=https://box.example.org"), "box.example.org", ""),
    },
    "s3": {
        "s3": (("s3.amazonaws.com", "443", "", "lab-data"), "amazonaws.com", "us-east-1"),
        "s3-endpoint": (("s3.example.org", "9000", "", "lab-data"), "s3.example.org", "campus"),
    },
    "sftp": {"sftp-whole": (("2001:db8::7", "2222", "/"), "2001:db8::7", "")},
    "swift": {
        "swift-whole": (
            ("keystone.example.org", "5000", "v3", "RegionOne", "default", "My Physics", "lab"),
            "keystone.example.org", "RegionOne",
        ),
        "swift-own-login": (
            ("2001:db8::7", "8080", "auth/v1.0", "", "", "ns/s3", "Lab_data.1"), "2001:db8::7", "",
        ),
    },
    "webdav": {
        "webdav-address": (("2001:db8::7", "8080", "remote.php/dav/files/lab%20data"), "2001:db8::7", ""),
    },
}  # fmt: skip
"""By kind, examples with their location, domain and region: each kind must have one."""


@pytest.mark.parametrize("kind", PLACES)
def test_what_each_kind_says_of_its_place(kind: str) -> None:
    for name, (location, domain, region) in AT[kind].items():
        obj = store(STORES[name], "a")
        found = of_store(STORES[name])
        assert (location_of(obj), found.domain, found.region) == ((kind, *location), domain, region)
        # who is connected to has a say in whom a name means
        place = DataStore.model_validate(obj).spec.place
        hosts = hosts_at(obj["spec"][kind], place.ENDPOINTS)
        assert not hosts or place.reached_at in {host.strip("[]") for host in hosts}


def test_a_kind_that_does_not_say_which_place_it_is() -> None:
    with pytest.raises(TypeError, match="Tape must say what its domain, location, own_region, reached_at is"):

        class Tape(Place):
            """A kind without anything."""

    with pytest.raises(InvalidRequest, match="'a' is of a kind that isn't known"):
        location_of({"metadata": {"namespace": "ns", "name": "a"}, "spec": {"tape": {}}})


def test_who_comes_first() -> None:
    stores = {"aws": store(STORES["s3"])}
    spec = {"stores": [{"name": "aws", "prefix": "data/"}]}
    old, young = directory(spec), directory(spec, "young", creationTimestamp="2026-02-01T00:00:00Z")
    assert claimed(old, [old, young], stores) == ""
    assert "VirtualDirectory 'lab'" in claimed(young, [old, young], stores)
    # whose gateway has the store already keeps it
    young["status"] = {"stores": [{"name": "aws", "prefix": "data/", "state": "Up"}]}
    assert claimed(young, [old, young], stores) == ""
    assert "VirtualDirectory 'young'" in claimed(old, [old, young], stores)


def test_who_is_refused_keeps_nobody_else_out() -> None:
    stores = {"aws": store({"s3": {"region": "us-east-1", "bucket": "lab"}})}
    spans = ("a/", "a/b/", "a/b/c/", "a/d/", "")
    asked = [
        directory(
            {"stores": [{"name": "aws", "prefix": prefix or "/"}]},
            f"d{at}",
            creationTimestamp=f"2026-01-0{at + 1}T00:00:00Z",
        )
        for at, prefix in enumerate(spans)
    ]
    _, inside, deeper, beside, over = asked
    for refused in (inside, deeper, beside, over):
        # the first one has it, not those that are refused themselves
        assert "VirtualDirectory 'd0'" in claimed(refused, asked, stores)
    without = [inside, deeper, beside, over]
    assert claimed(inside, without, stores) == claimed(beside, without, stores) == ""
    assert "'d1'" in claimed(deeper, without, stores)
    assert "'d1'" in claimed(over, without, stores)
    # `over` overlaps with all, and is refused: a younger one beside the others gets its own
    last = directory({"stores": [{"name": "aws", "prefix": "z/"}]}, "last", creationTimestamp="2026-02-01T00:00:00Z")
    assert claimed(last, [*asked, last], stores) == ""
    assert "VirtualDirectory 'd4'" in claimed(last, [over, last], stores)


def elsewhere(spec: dict[str, Any], state: str = "Up", **meta: Any) -> dict[str, Any]:
    """A directory of another namespace."""
    made = directory(spec, "theirs", namespace="other", **meta)
    made["status"] = {"stores": [{"name": entry["name"], "state": state} for entry in spec["stores"]]}
    return made


@pytest.mark.parametrize(
    ("mine", "theirs", "claim"),
    [
        ("lab/", "lab/", True), ("lab/deep/", "lab/", True), ("lab/", "lab/deep/", True), ("/", "lab/", True),
        ("lab/", "/", True), ("lab/", "labs/", False), (None, None, False), ("other/theirs/", None, True),
    ],
)  # fmt: skip
def test_a_prefix_of_another_namespace(mine: str | None, theirs: str | None, claim: bool) -> None:
    stores = {("ns", "aws"): store(STORES["s3"]), ("other", "aws"): store(STORES["s3"])}

    def spec(prefix: str | None) -> dict[str, Any]:
        return {"stores": [{"name": "aws"} | ({"prefix": prefix} if prefix else {})]}

    one, other = directory(spec(mine)), elsewhere(spec(theirs))
    why = claimed_elsewhere(one, [one, other], lambda *name: stores.get(name))
    assert ("overlaps one that a directory of another" in why) is claim
    assert "theirs" not in why.replace("'other/theirs/'", "")
    # what the index of directories gives is enough to find it
    shared = set(first_parts(one)) & set(first_parts(other))
    assert not claim or shared or "" in first_parts(one) + first_parts(other)


def test_only_a_gateway_that_is_in_the_store_has_it() -> None:
    spec = {"stores": [{"name": "aws", "prefix": "lab/"}]}
    stores = {("ns", "aws"): store(STORES["s3"]), ("other", "aws"): store(STORES["s3"])}
    one = directory(spec, creationTimestamp="2026-02-01T00:00:00Z")
    # somebody without good keys keeps nobody from the prefix
    for state in ("Unknown", "Claimed", "Suspicious"):
        assert claimed_elsewhere(one, [elsewhere(spec, state)], lambda *name: stores.get(name)) == ""
    # and who has it goes on
    one["status"] = {"stores": [{"name": "aws", "state": "Up"}]}
    assert claimed_elsewhere(one, [elsewhere(spec)], lambda *name: stores.get(name)) == ""


@pytest.mark.parametrize(
    ("kind", "claim"),
    [
        ({"s3": {"bucket": "lab", "endpoint": "http://minio:9000"}}, False),
        ({"s3": {"bucket": "lab", "endpoint": "http://minio.store.svc:9000"}}, True),
        ({"s3": {"bucket": "lab", "endpoint": "http://[2001:db8::7]:9000"}}, True),
        ({"azureBlob": {"account": "labdata", "container": "lab", "endpoint": "http://azurite:10000/labdata"}}, False),
        (STORES["azure-emulator"], True),
        (STORES["azure"], True),
        ({"gcs": {"bucket": "lab", "endpoint": "http://fake-gcs:4443"}}, False),
        (STORES["gcs"], True),
        ({"sftp": {**STORES["sftp"]["sftp"], "host": "nas"}}, False),
        (STORES["sftp"], True),
        ({"webdav": {"endpoint": "http://dav/files"}}, False),
        (STORES["webdav"], True),
        ({"swift": {"authUrl": "http://keystone:5000/v3", "container": "lab", "project": "p"}}, False),
        ({"swift": {"authUrl": "http://keystone.os.svc:5000/v3", "container": "lab", "project": "p"}}, True),
        ({"plugin": {"name": "box", "settings": {"endpoint": "http://box:8080"}}}, False),
        ({"plugin": {"name": "box", "settings": {"endpoint": "http://box.example.org"}}}, True),
        ({"plugin": {"name": "box"}}, True),
        (STORES["local"], False),
    ],
)
def test_names_that_mean_something_else_in_another_namespace(kind: dict[str, Any], claim: bool) -> None:
    mine, theirs = store(kind), store(kind)
    theirs["metadata"]["namespace"] = "other"
    stores = {("ns", "aws"): mine, ("other", "aws"): theirs}
    spec = {"stores": [{"name": "aws", "prefix": "lab/"}]}
    why = claimed_elsewhere(directory(spec), [elsewhere(spec)], lambda *name: stores.get(name))
    assert bool(why) is claim


def test_what_is_being_emptied_is_still_claimed() -> None:
    stores = {"aws": store(STORES["s3"]), "nas": store(STORES["local"], "nas")}
    leaving = directory({"stores": [{"name": "nas"}]})
    leaving["status"] = {"stores": [{"name": "aws", "prefix": "data/", "state": "Up", "files": 3}]}
    young = directory({"stores": [{"name": "aws", "prefix": "data/"}]}, "young")
    assert "VirtualDirectory 'lab'" in claimed(young, [leaving, young], stores)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ada", "line 1"), ("ada:secret", "line 1"), (f"ada:{BCRYPT}\n:{BCRYPT}", "line 2"),
        (f"ada:{BCRYPT}x", "line 1"), ("ada:$apr1$abc$def", "line 1"),
    ],
)  # fmt: skip
def test_users_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        users_in({"htpasswd": text.encode()}, "users")
    assert "secret" not in str(caught.value)


def test_users() -> None:
    assert users_in({"htpasswd": f"\n# all\nada:{BCRYPT}\nbob:{BCRYPT}".encode()}, "users") == dict.fromkeys(
        ("ada", "bob"), BCRYPT
    )
    with pytest.raises(InvalidRequest, match="`htpasswd`"):
        users_in({}, "users")


def test_doors_are_open_unless_they_are_closed() -> None:
    found = told(lab())
    assert (found.web, found.webdav) == (True, True)
    found = told(lab() | {"expose": {"web": "Disabled"}})
    assert (found.web, found.webdav) == (False, True)
    found = told(lab() | {"expose": {"webdav": "Disabled"}})
    assert (found.web, found.webdav) == (True, False)


def test_the_secrets_of_a_configuration_are_in_no_text() -> None:
    found = told(DIRECTORIES["whole"])
    assert BCRYPT not in repr(found)
    assert "dmFsdWU" not in repr(of_store(STORES["s3"]))


def test_words() -> None:
    texts = [size_text(n) for n in (0, 1023, 1024, 1536, 10 << 30, (1 << 40) - 1, 1 << 60)]
    assert texts == ["0", "1023", "1Ki", "1.5Ki", "10Gi", "1024Gi", "1Ei"]
    assert time_text(1_767_225_600_999_999) == "2026-01-01T00:00:00Z"
    assert [apart(*pair) for pair in ((0, 0), (1, 0), (1000, 1010), (1000, 1011), (5, 4))] == [
        False, True, False, True, True
    ]  # fmt: skip
