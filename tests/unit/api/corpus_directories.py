"""DataStores and VirtualDirectories that users may write, good and bad; see `corpus`."""

from __future__ import annotations

from typing import Any

from tests.unit.api.corpus import Bad, Spec

_SECRET: Spec = {"credentials": {"secretRef": {"name": "s3"}}}


_ROLE = "arn:aws:iam::123456789012:role/lab-data"
_IDENTITY: Spec = {"credentials": {"workloadIdentity": {"roleArn": _ROLE}}}
_TENANT, _CLIENT = "6f2a4c1e-0b7d-4e55-9a3c-2d1f8e7b6a90", "0B7D4E55-9a3c-2d1f-8e7b-6a906f2a4c1e"
_PROVIDER = "projects/123456789012/locations/global/workloadIdentityPools/campus/providers/cluster-1"
_EMAIL = "lab-data@physics.example.org.iam.gserviceaccount.com"


def azure_identity(**fields: Any) -> Spec:
    """A container of Azure without a Secret."""
    asked = {"tenantId": _TENANT, "clientId": _CLIENT, **fields}
    who = {name: value for name, value in asked.items() if value is not None}
    return {"azureBlob": {"account": "labdata", "container": "lab-data"}, "credentials": {"workloadIdentity": who}}


def gcs_identity(provider: str | None = _PROVIDER, **fields: Any) -> Spec:
    """A bucket of Google without a Secret."""
    who = {**({} if provider is None else {"provider": provider}), **fields}
    return {"gcs": {"bucket": "lab-data"}, "credentials": {"workloadIdentity": who}}


def s3(**fields: Any) -> Spec:
    """A store of S3 with a Secret."""
    return {"s3": {"bucket": "lab-data", **fields}, **_SECRET}


_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk3n1XyzzUjvJ0pLgTQ2MeU3v2bWqfF5sG7aWc1h0Qp"


def sftp(**fields: Any) -> Spec:
    """A store on an SFTP server."""
    place = {"host": "nas.example.org", "user": "lab-files", "hostKey": _HOST_KEY, "path": "/srv/lab", **fields}
    return {"sftp": {name: value for name, value in place.items() if value is not None}, **_SECRET}


def webdav(endpoint: str | None = "https://dav.example.org/files/lab", **fields: Any) -> Spec:
    """A store on a WebDAV server."""
    return {"webdav": {**({} if endpoint is None else {"endpoint": endpoint}), **fields}, **_SECRET}


def local(name: str = "nas", **fields: Any) -> Spec:
    """A store on a volume."""
    return {"local": {"persistentVolumeClaimRef": {"name": name}}, **fields}


def azure(**fields: Any) -> Spec:
    """A container of Azure with a Secret."""
    place = {"account": "labdata", "container": "lab-data", **fields}
    return {"azureBlob": {name: value for name, value in place.items() if value is not None}, **_SECRET}


def gcs(**fields: Any) -> Spec:
    """A bucket of Google with a Secret."""
    return {"gcs": {"bucket": "lab-data", **fields}, **_SECRET}


def swift(**fields: Any) -> Spec:
    """A store in Swift by Keystone, or by another login if one is named."""
    return {"swift": {"authUrl": "https://keystone.example.org:5000/v3", "container": "lab"} | fields, **_SECRET}


def plugin(settings: Spec | None = None, **fields: Any) -> Spec:
    """A store that is plugged in."""
    return {"plugin": {"name": "box", "settings": settings or {}}, **fields}


def stores(*names: str) -> list[Spec]:
    """Stores of a directory."""
    return [{"name": name} for name in names]


def lab(**fields: Any) -> Spec:
    """A directory over three stores."""
    return {"stores": stores("aws", "minio", "nas"), **fields}


def rule(**fields: Any) -> Spec:
    """A directory whose only rule has these fields."""
    return lab(placement={"rules": [{"name": "default", **fields}]})


def first(**fields: Any) -> Spec:
    """A directory whose first rule is for some files only."""
    return lab(placement={"rules": [{"name": "some", **fields}, {"name": "default"}]})


def auth(**fields: Any) -> Spec:
    return lab(expose={"auth": fields})


STORES: dict[str, Spec] = {
    "s3": s3(),
    "s3-region": s3(region="us-gov-west-1"),
    "s3-endpoint": s3(endpoint="https://s3.example.org:9000", region="campus"),
    "s3-address": s3(endpoint="http://[2001:db8::7]:9000/s3"),
    "s3-whole": {
        **s3(endpoint="http://minio.storage.svc:9000"),
        "access": "Drain",
        "capacity": "500Gi",
        "limits": {"requestsPerSecond": 100, "bytesPerSecond": "100Mi"},
    },
    "azure": azure(),
    "azure-endpoint": azure(endpoint="https://labdata.blob.core.chinacloudapi.cn", container="a1b"),
    "azure-emulator": azure(endpoint="http://azurite.storage.svc:10000/labdata"),
    "gcs": gcs(),
    "gcs-domain": gcs(bucket="data_1.lab.example.org", endpoint="https://storage.europe-west3.rep.googleapis.com"),
    "sftp": sftp(),
    "sftp-whole": sftp(port=2222, host="2001:db8::7", path="/", user="u123456-sub1@campus.example.org"),
    "webdav": webdav(),
    "webdav-address": webdav("http://[2001:db8::7]:8080/remote.php/dav/files/lab%20data/"),
    "swift": swift(),
    "swift-whole": swift(region="RegionOne", project="My Physics", projectDomain="default", userDomain="people"),
    "swift-own-login": swift(authUrl="http://[2001:db8::7]:8080/auth/v1.0", container="Lab_data.1"),
    "plugin": plugin(),
    "plugin-credentials": plugin(settings={"endpoint": "https://box.example.org", "depth": "3"}, **_SECRET),
    "s3-identity": {"s3": {"bucket": "lab-data"}, **_IDENTITY},
    "azure-identity": azure_identity(),
    "gcs-identity": gcs_identity(),
    "gcs-identity-acting": gcs_identity(serviceAccountEmail=_EMAIL),
    "local": local(),
    "local-read-only": local(access="ReadOnly", capacity=10**9),
    "priced": local(priceSheetRef={"name": "campus"}),
}

_ONE = "`spec` must have exactly one of `azureBlob`, `gcs`, `local`, `plugin`, `s3`, `sftp`, `swift` and `webdav`"
_NEEDS = (
    "`spec.credentials` must be set for `azureBlob`, `gcs`, `s3`, `sftp`, `swift` and `webdav`, may be for `plugin`"
)
_ONE_WAY = "`spec.credentials` must have exactly one of `secretRef` and `workloadIdentity`"
_WHO = "spec.credentials.workloadIdentity"
_OF_S3 = f"`{_WHO}` of `s3` must have `roleArn` and can't have others"
_OF_GCS = f"`{_WHO}` of `gcs` must have `provider`, may have `serviceAccountEmail`, and can't have others"
_OF_AZURE = f"`{_WHO}` of `azureBlob` must have `tenantId` and `clientId` and can't have others"
_LOGIN = "must be the URL of a login"
_CONTAINER = "must be a container's name such as `lab-data`"
_ENDPOINT = "must be a URL such as `https://s3.example.org:9000`"
_BUCKET = "must be a bucket's name such as `lab-data`"

BAD_STORES: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "no-store": Bad({}, "spec", _ONE),
    "two-stores": Bad({**s3(), **local()}, "spec", _ONE),
    "credentials-only": Bad({**_SECRET}, "spec", _ONE),
    "s3-text": Bad({"s3": "lab-data", **_SECRET}, "spec.s3"),
    "s3-no-bucket": Bad({"s3": {}, **_SECRET}, "spec.s3.bucket"),
    "s3-no-credentials": Bad({"s3": {"bucket": "lab-data"}}, "spec.credentials", _NEEDS),
    "local-credentials": Bad({**local(), **_SECRET}, "spec.credentials", _NEEDS),
    "credentials-empty": Bad({**s3(), "credentials": {}}, "spec.credentials", _ONE_WAY),
    "credentials-two": Bad(
        {**s3(), "credentials": {**_SECRET["credentials"], **_IDENTITY["credentials"]}}, "spec.credentials", _ONE_WAY
    ),
    "identity-no-role": Bad({**s3(), "credentials": {"workloadIdentity": {}}}, "spec.credentials", _OF_S3),
    "identity-role-and-more": Bad(
        {**s3(), "credentials": {"workloadIdentity": {"roleArn": _ROLE, "clientId": _CLIENT}}},
        "spec.credentials",
        _OF_S3,
    ),
    "identity-of-what": Bad(
        {**s3(), "credentials": {"workloadIdentity": {"roleArn": "lab-data"}}},
        "spec.credentials.workloadIdentity.roleArn",
        "must be the ARN of a role",
    ),
    "identity-of-sftp": Bad(
        {"sftp": sftp()["sftp"], **_IDENTITY},
        "spec.credentials",
        "`spec.credentials.workloadIdentity` can be set for `azureBlob`, `gcs` and `s3` only",
    ),
    "identity-of-gcs": Bad({"gcs": gcs()["gcs"], **_IDENTITY}, "spec.credentials", _OF_GCS),
    "identity-no-provider": Bad(gcs_identity(None, serviceAccountEmail=_EMAIL), "spec.credentials", _OF_GCS),
    "identity-provider-and-role": Bad(gcs_identity(roleArn=_ROLE), "spec.credentials", _OF_GCS),
    "identity-provider-whole": Bad(
        gcs_identity(f"//iam.googleapis.com/{_PROVIDER}"), f"{_WHO}.provider", "must be a provider such as"
    ),
    "identity-provider-up": Bad(gcs_identity(f"{_PROVIDER}/../x"), f"{_WHO}.provider", "must be a provider such as"),
    "identity-provider-pool": Bad(gcs_identity(_PROVIDER.partition("/providers")[0]), f"{_WHO}.provider"),
    "identity-email": Bad(
        gcs_identity(serviceAccountEmail="me@example.org"), f"{_WHO}.serviceAccountEmail", "a service account of Google"
    ),
    "identity-email-path": Bad(gcs_identity(serviceAccountEmail=f"../{_EMAIL}"), f"{_WHO}.serviceAccountEmail"),
    "identity-no-tenant": Bad(azure_identity(tenantId=None), "spec.credentials", _OF_AZURE),
    "identity-no-client": Bad(azure_identity(clientId=None), "spec.credentials", _OF_AZURE),
    "identity-azure-and-google": Bad(azure_identity(provider=_PROVIDER), "spec.credentials", _OF_AZURE),
    "identity-tenant-name": Bad(
        azure_identity(tenantId="contoso.onmicrosoft.com"), f"{_WHO}.tenantId", "id of a tenant"
    ),
    "identity-client-name": Bad(azure_identity(clientId="lab"), f"{_WHO}.clientId", "must be the client id of"),
    "identity-client-path": Bad(azure_identity(clientId=f"{_CLIENT[:-3]}/.."), f"{_WHO}.clientId"),
    "credentials-across": Bad(
        {**s3(), "credentials": {"secretRef": {"name": "kube-system/s3"}}}, "spec.credentials.secretRef.name"
    ),
    "bucket-capital": Bad(s3(bucket="Lab"), "spec.s3.bucket", _BUCKET),
    "bucket-short": Bad(s3(bucket="ab"), "spec.s3.bucket"),
    "bucket-long": Bad(s3(bucket="a" * 64), "spec.s3.bucket"),
    "bucket-path": Bad(s3(bucket="lab/data"), "spec.s3.bucket", _BUCKET),
    "endpoint-host": Bad(s3(endpoint="s3.example.org"), "spec.s3.endpoint", _ENDPOINT),
    "endpoint-file": Bad(s3(endpoint="file:///etc/passwd"), "spec.s3.endpoint", _ENDPOINT),
    "endpoint-user": Bad(s3(endpoint="https://key:secret@s3.example.org"), "spec.s3.endpoint", _ENDPOINT),
    "endpoint-spaces": Bad(s3(endpoint="https://s3.example.org/a b"), "spec.s3.endpoint", _ENDPOINT),
    "endpoint-empty": Bad(s3(endpoint=""), "spec.s3.endpoint"),
    "region-name": Bad(s3(endpoint="https://s3.example.org", region="North Virginia"), "spec.s3.region"),
    "region-nowhere": Bad(s3(region="campus"), "spec.s3.region", "`spec.s3.region` must be one of AWS"),
    "swift-no-credentials": Bad({"swift": swift()["swift"]}, "spec.credentials", _NEEDS),
    "swift-no-login": Bad({"swift": {"container": "lab"}, **_SECRET}, "spec.swift.authUrl"),
    "swift-login-bare": Bad(swift(authUrl="https://keystone.example.org"), "spec.swift.authUrl", _LOGIN),
    "swift-login-v2": Bad(swift(authUrl="https://keystone.example.org/v2.0"), "spec.swift.authUrl", _LOGIN),
    "swift-login-user": Bad(swift(authUrl="https://u:p@keystone.example.org/v3"), "spec.swift.authUrl", _LOGIN),
    "swift-no-container": Bad({"swift": {"authUrl": "https://k.example.org/v3"}, **_SECRET}, "spec.swift.container"),
    "swift-container-path": Bad(swift(container="lab/data"), "spec.swift.container", "must be a container's name"),
    "swift-container-long": Bad(swift(container="a" * 256), "spec.swift.container"),
    "swift-region": Bad(swift(region="Region One"), "spec.swift.region", "must be a region of Keystone's"),
    "swift-project": Bad(swift(project=" physics"), "spec.swift.project", "must be a name of Keystone"),
    "swift-v1-project": Bad(
        swift(authUrl="https://swift.example.org/auth/v1.0", project="physics"), "spec.swift.authUrl", "can be set only"
    ),
    "plugin-nameless": Bad({"plugin": {"settings": {}}}, "spec.plugin.name"),
    "plugin-name": Bad(plugin() | {"plugin": {"name": "a/b"}}, "spec.plugin.name"),
    "plugin-setting-name": Bad(plugin({"End-Point": "x"}), "spec.plugin.settings", "must have names such as"),
    "plugin-setting-number": Bad(plugin({"depth": 3}), "spec.plugin.settings"),
    "plugin-and-s3": Bad({**plugin(), **s3()}, "spec", _ONE),
    "azure-no-credentials": Bad({"azureBlob": azure()["azureBlob"]}, "spec.credentials", _NEEDS),
    "azure-and-gcs": Bad({**azure(), **gcs()}, "spec", _ONE),
    "azure-no-account": Bad(azure(account=None), "spec.azureBlob.account"),
    "azure-account-host": Bad(azure(account="labdata.blob"), "spec.azureBlob.account", "must be a storage account's"),
    "azure-account-short": Bad(azure(account="ab"), "spec.azureBlob.account"),
    "azure-no-container": Bad(azure(container=None), "spec.azureBlob.container"),
    "azure-container-capital": Bad(azure(container="Lab"), "spec.azureBlob.container", _CONTAINER),
    "azure-container-dashes": Bad(azure(container="lab--data"), "spec.azureBlob.container", _CONTAINER),
    "azure-container-root": Bad(azure(container="$root"), "spec.azureBlob.container", _CONTAINER),
    "azure-container-path": Bad(azure(container="lab/data"), "spec.azureBlob.container", _CONTAINER),
    "azure-container-long": Bad(azure(container="a" * 64), "spec.azureBlob.container"),
    "azure-endpoint-host": Bad(azure(endpoint="labdata.blob.example.org"), "spec.azureBlob.endpoint", "must be a URL"),
    "azure-endpoint-user": Bad(azure(endpoint="https://a:b@blob.example.org"), "spec.azureBlob.endpoint"),
    "gcs-no-credentials": Bad({"gcs": gcs()["gcs"]}, "spec.credentials", _NEEDS),
    "gcs-no-bucket": Bad({"gcs": {}, **_SECRET}, "spec.gcs.bucket"),
    "gcs-bucket-capital": Bad(gcs(bucket="Lab"), "spec.gcs.bucket", _BUCKET),
    "gcs-bucket-url": Bad(gcs(bucket="gs://lab"), "spec.gcs.bucket", _BUCKET),
    "gcs-bucket-dots": Bad(gcs(bucket="lab..data"), "spec.gcs.bucket", _BUCKET),
    "gcs-bucket-up": Bad(gcs(bucket="../b"), "spec.gcs.bucket", _BUCKET),
    "gcs-bucket-short": Bad(gcs(bucket="ab"), "spec.gcs.bucket"),
    "gcs-endpoint": Bad(gcs(endpoint="gs://lab"), "spec.gcs.endpoint", "must be a URL"),
    "sftp-no-credentials": Bad({"sftp": sftp()["sftp"]}, "spec.credentials", _NEEDS),
    "sftp-no-host": Bad(sftp(host=None), "spec.sftp.host"),
    "sftp-host-url": Bad(sftp(host="sftp://nas.example.org"), "spec.sftp.host"),
    "sftp-port": Bad(sftp(port=0), "spec.sftp.port"),
    "sftp-no-user": Bad(sftp(user=None), "spec.sftp.user"),
    "sftp-user-option": Bad(sftp(user="-oProxyCommand=x"), "spec.sftp.user", "must be a login name"),
    "sftp-no-host-key": Bad(sftp(hostKey=None), "spec.sftp.hostKey"),
    "sftp-host-key-line": Bad(sftp(hostKey=f"nas.example.org {_HOST_KEY}"), "spec.sftp.hostKey", "must be a host key"),
    "sftp-fingerprint": Bad(sftp(hostKey="SHA256:47DEQpj8HBSa"), "spec.sftp.hostKey", "must be a host key"),
    "sftp-no-path": Bad(sftp(path=None), "spec.sftp.path"),
    "sftp-path-relative": Bad(sftp(path="lab"), "spec.sftp.path", "must be a folder such as `/srv/lab`"),
    "sftp-path-slash": Bad(sftp(path="/srv/lab/"), "spec.sftp.path", "must be a folder such as `/srv/lab`"),
    "sftp-path-up": Bad(sftp(path="/srv/../etc"), "spec.sftp.path", "must be a folder such as `/srv/lab`"),
    "webdav-no-credentials": Bad({"webdav": webdav()["webdav"]}, "spec.credentials", _NEEDS),
    "webdav-no-endpoint": Bad(webdav(None), "spec.webdav.endpoint"),
    "webdav-scheme": Bad(webdav("davs://dav.example.org/"), "spec.webdav.endpoint", "must be a URL such as"),
    "webdav-user": Bad(webdav("https://me:secret@dav.example.org/"), "spec.webdav.endpoint", "without user, password"),
    "webdav-query": Bad(webdav("https://dav.example.org/?x=1"), "spec.webdav.endpoint", "without user, password"),
    "webdav-fragment": Bad(webdav("https://dav.example.org/#x"), "spec.webdav.endpoint", "without user, password"),
    "webdav-space": Bad(webdav("https://dav.example.org/a b"), "spec.webdav.endpoint", "must be a URL such as"),
    "access": Bad(s3() | {"access": "WriteOnly"}, "spec.access"),
    "access-boolean": Bad(s3() | {"access": True}, "spec.access"),
    "capacity-zero": Bad(s3() | {"capacity": 0}, "spec.capacity", "`capacity` must be more than 0"),
    "capacity-unit": Bad(s3() | {"capacity": "500GB"}, "spec.capacity", "must be a quantity such as `8Gi`"),
    "capacity-negative": Bad(s3() | {"capacity": "-1Gi"}, "spec.capacity"),
    "requests": Bad(s3() | {"limits": {"requestsPerSecond": 0}}, "spec.limits.requestsPerSecond"),
    "bytes": Bad(s3() | {"limits": {"bytesPerSecond": "0"}}, "spec.limits.bytesPerSecond", "must be more than 0"),
    "sheet-nameless": Bad(local(priceSheetRef={}), "spec.priceSheetRef.name"),
    "sheet-across": Bad(local(priceSheetRef={"name": "other/campus"}), "spec.priceSheetRef.name"),
    "local-no-claim": Bad({"local": {}}, "spec.local.persistentVolumeClaimRef"),
    "local-nameless": Bad({"local": {"persistentVolumeClaimRef": {}}}, "spec.local.persistentVolumeClaimRef.name"),
    "local-name": Bad(local("a/b"), "spec.local.persistentVolumeClaimRef.name"),
}

UNKNOWN_STORES: dict[str, tuple[Spec, str]] = {
    "unknown-audience": (gcs_identity(audience="x"), f"{_WHO}.audience"),
    "unknown-store": ({**s3(), "icloud": {}}, "spec.icloud"),
    "unknown-account-key": (azure(accountKey="x"), "spec.azureBlob.accountKey"),
    "unknown-project": (gcs(project="x"), "spec.gcs.project"),
    "unknown-host-path": ({"local": {**local()["local"], "path": "/"}}, "spec.local.path"),
    "unknown-webdav-password": (webdav(password="x"), "spec.webdav.password"),
    "unknown-password": (sftp(password="x"), "spec.sftp.password"),
    "unknown-inline-key": (
        {**s3(), "credentials": {**_SECRET["credentials"], "accessKey": "AKIA"}}, "spec.credentials.accessKey"
    ),
    "unknown-namespace": (
        {**s3(), "credentials": {"secretRef": {"name": "a", "namespace": "kube-system"}}},
        "spec.credentials.secretRef.namespace",
    ),
}  # fmt: skip

DIRECTORIES: dict[str, Spec] = {
    "smallest": {"stores": stores("nas")},
    "two": {"stores": stores("aws", "nas")},
    "prefixes": {
        "stores": [
            {"name": "aws", "prefix": "lab/data/"}, {"name": "nas", "prefix": "/"},
            {"name": "minio", "prefix": "_a.b-c/..d/"},
        ]
    },
    "whole": lab(
        placement={
            "rules": [
                {
                    "name": "raw",
                    "match": {"path": "raw/**", "minSize": "1Gi", "maxSize": "1Ti"},
                    "copies": 2,
                    "minCopies": 2,
                    "spread": "Provider",
                    "prefer": "Fastest",
                },
                {
                    "name": "near",
                    "match": {"contentType": "image/*", "tags": {"project": "apollo"}},
                    "prefer": "Nearest",
                    "near": {"region": "us-east-1"},
                    "stores": {"except": ["nas"]},
                },
                {
                    "name": "cold",
                    "match": {"path": "**/*.csv", "olderThanSeconds": 7776000},
                    "copies": 1,
                    "stores": {"only": ["nas"]},
                },
                {"name": "default", "copies": 3, "spread": "Region"},
            ]
        },
        quota={"size": "1Ti", "files": 1000000},
        versions={"keep": 3, "trashSeconds": 0},
        settleNames="Never",
        verify={"everySeconds": 0},
        adopt="None",
        deletionPolicy="Delete",
        catalog={"sqlite": {"storage": "10Gi", "storageClassName": "fast"}},
        expose={
            "auth": {
                "kubernetes": "Disabled",
                "basic": {"secretRef": {"name": "users"}},
                "anonymous": "ReadOnly",
                "rules": [
                    {"path": "private/**", "users": ["ada@example.org"], "access": "ReadWrite"},
                    {"path": "private/**", "access": "None"},
                    {"groups": ["system:authenticated"], "access": "ReadOnly"},
                ],
            }
        },
    ),
    "catalogue-default": lab(catalog={"sqlite": {}}),
    "catalogue-database": lab(catalog={"postgresql": {"uriSecretRef": {"name": "lab-app"}}}),
    "near-a-cluster": rule(prefer="Nearest", near={"clusterRef": {"name": "lab"}}),
    "plugin": rule(prefer="Plugin", plugin={"name": "by-project"}),
    "cheapest": rule(prefer="Cheapest", weakCopies="Count"),
    "approval": lab(apply={"mode": "RequireApproval"}),
    "budget": lab(maxMonthlyCost={"amount": "40.50", "currency": "EUR"}),
    "budget-nothing": lab(maxMonthlyCost={"amount": 0}),
    "sizes-equal": first(match={"minSize": 1024, "maxSize": "1Ki"}),
}  # fmt: skip

_RULES = "spec.placement.rules"
_PREFIX = "`prefix` must end with '/'"
_PARTS = "no part of `prefix` may be '.', '..' or '.cloudmesh'"
_LAST = "the last of `rules` must be without `match`"
_COPIES = "`copies` must not be more than the stores that the rule may use"
_NAMED = "`stores` of a rule must be named in `spec.stores`"
_NEAR = "`near` must be set when `prefer` is 'Nearest', and only then"


def _prefix(text: str) -> Spec:
    return {"stores": [{"name": "nas", "prefix": text}]}


BAD_DIRECTORIES: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "no-stores": Bad({}, "spec.stores"),
    "stores-empty": Bad({"stores": []}, "spec.stores"),
    "stores-many": Bad({"stores": stores(*(f"s{i}" for i in range(17)))}, "spec.stores"),
    "stores-twice": Bad({"stores": stores("aws", "aws")}, "spec.stores[1]"),
    "stores-nameless": Bad({"stores": [{"prefix": "lab/"}]}, "spec.stores[0].name"),
    "stores-across": Bad({"stores": stores("other/aws")}, "spec.stores[0].name"),
    "stores-text": Bad({"stores": ["aws"]}, "spec.stores[0]"),
    "prefix-open": Bad(_prefix("lab"), "spec.stores[0].prefix", _PREFIX),
    "prefix-slash": Bad(_prefix("/lab/"), "spec.stores[0].prefix", _PREFIX),
    "prefix-twice": Bad(_prefix("lab//"), "spec.stores[0].prefix", _PREFIX),
    "prefix-empty": Bad(_prefix(""), "spec.stores[0].prefix"),
    "prefix-up": Bad(_prefix("lab/../other/"), "spec.stores[0].prefix", _PARTS),
    "prefix-ours": Bad(_prefix(".cloudmesh/lab/"), "spec.stores[0].prefix", _PARTS),
    "prefix-long": Bad(_prefix("a" * 512 + "/"), "spec.stores[0].prefix"),
    "rules-empty": Bad(lab(placement={"rules": []}), _RULES),
    "rules-twice": Bad(
        lab(placement={"rules": [{"name": "a"}, {"name": "a"}]}), "spec.placement.rules[1]"
    ),
    "rules-nameless": Bad(lab(placement={"rules": [{"copies": 1}]}), "spec.placement.rules[0].name"),
    "rules-last": Bad(rule(match={"path": "raw/**"}), _RULES, _LAST),
    "copies-zero": Bad(rule(copies=0), "spec.placement.rules[0].copies"),
    "copies-text": Bad(rule(copies="2"), "spec.placement.rules[0].copies"),
    "copies-many": Bad(rule(copies=4), _RULES, _COPIES),
    "copies-only": Bad(rule(copies=2, stores={"only": ["nas"]}), _RULES, _COPIES),
    "copies-except": Bad(rule(copies=3, stores={"except": ["nas"]}), _RULES, _COPIES),
    "min-copies": Bad(
        rule(copies=1, minCopies=2), "spec.placement.rules[0].minCopies", "`minCopies` must not be more than `copies`"
    ),
    "min-copies-default": Bad(
        rule(minCopies=3), "spec.placement.rules[0].minCopies", "`minCopies` must not be more than `copies`"
    ),
    "min-copies-stores": Bad(
        {"stores": stores("nas"), "placement": {"rules": [{"name": "a", "minCopies": 2}]}},
        _RULES,
        "`minCopies` must not be more than the stores that the rule may use",
    ),
    "spread": Bad(rule(spread="Zone"), "spec.placement.rules[0].spread"),
    "weak-copies": Bad(rule(weakCopies=True), "spec.placement.rules[0].weakCopies"),
    "prefer": Bad(rule(prefer="cheapest"), "spec.placement.rules[0].prefer"),
    "near-missing": Bad(rule(prefer="Nearest"), "spec.placement.rules[0].near", _NEAR),
    "near-alone": Bad(rule(near={"region": "us-east-1"}), "spec.placement.rules[0].near", _NEAR),
    "near-empty": Bad(
        rule(prefer="Nearest", near={}),
        "spec.placement.rules[0].near",
        "`near` must have exactly one of `region` and `clusterRef`",
    ),
    "near-both": Bad(
        rule(prefer="Nearest", near={"region": "a", "clusterRef": {"name": "lab"}}),
        "spec.placement.rules[0].near",
        "`near` must have exactly one of `region` and `clusterRef`",
    ),
    "near-cluster": Bad(
        rule(prefer="Nearest", near={"clusterRef": {}}), "spec.placement.rules[0].near.clusterRef.name"
    ),
    "plugin-missing": Bad(
        rule(prefer="Plugin"), "spec.placement.rules[0].plugin", "`plugin` must be set when `prefer` is 'Plugin'"
    ),
    "plugin-alone": Bad(
        rule(plugin={"name": "a"}), "spec.placement.rules[0].plugin", "`plugin` must be set when `prefer` is 'Plugin'"
    ),
    "plugin-name": Bad(rule(prefer="Plugin", plugin={"name": "a b"}), "spec.placement.rules[0].plugin.name"),
    "choice-empty": Bad(
        rule(stores={}), "spec.placement.rules[0].stores", "must have exactly one of `only` and `except`"
    ),
    "choice-both": Bad(
        rule(stores={"only": ["nas"], "except": ["aws"]}),
        "spec.placement.rules[0].stores",
        "must have exactly one of `only` and `except`",
    ),
    "choice-strange": Bad(rule(copies=1, stores={"only": ["swift"]}), _RULES, _NAMED),
    "choice-strange-except": Bad(rule(stores={"except": ["swift"]}), _RULES, _NAMED),
    "match-path": Bad(first(match={"path": "/raw/**"}), "spec.placement.rules[0].match.path", "`path` must be"),
    "match-path-line": Bad(first(match={"path": "raw\n"}), "spec.placement.rules[0].match.path"),
    "match-sizes": Bad(
        first(match={"minSize": "2Gi", "maxSize": "1Gi"}),
        "spec.placement.rules[0].match.minSize",
        "`minSize` must not be more than `maxSize`",
    ),
    "match-size": Bad(first(match={"minSize": "big"}), "spec.placement.rules[0].match.minSize"),
    "match-age": Bad(first(match={"olderThanSeconds": 0}), "spec.placement.rules[0].match.olderThanSeconds"),
    "match-type": Bad(first(match={"contentType": "csv"}), "spec.placement.rules[0].match.contentType"),
    "match-tag": Bad(
        first(match={"tags": {"a b": "x"}}),
        "spec.placement.rules[0].match.tags",
        "`tags` must have names such as 'project' as keys",
    ),
    "quota-empty": Bad(lab(quota={}), "spec.quota", "`quota` must have at least one of `size` and `files`"),
    "quota-zero": Bad(lab(quota={"size": "0"}), "spec.quota.size", "`size` must be more than 0"),
    "quota-files": Bad(lab(quota={"files": 0}), "spec.quota.files"),
    "apply": Bad(lab(apply="Auto"), "spec.apply"),
    "apply-mode": Bad(lab(apply={"mode": "Manual"}), "spec.apply.mode"),
    "budget-empty": Bad(lab(maxMonthlyCost={}), "spec.maxMonthlyCost.amount"),
    "budget-number": Bad(lab(maxMonthlyCost={"amount": 40.5}), "spec.maxMonthlyCost.amount"),
    "budget-text": Bad(
        lab(maxMonthlyCost={"amount": "40 USD"}), "spec.maxMonthlyCost.amount", "must be an amount such as `12.50`"
    ),
    "budget-currency": Bad(
        lab(maxMonthlyCost={"amount": "40", "currency": "usd"}),
        "spec.maxMonthlyCost.currency",
        "must be a currency of ISO 4217 in three capital letters",
    ),
    "trash": Bad(lab(versions={"trashSeconds": -1}), "spec.versions.trashSeconds"),
    "versions": Bad(lab(versions={"keep": 101}), "spec.versions.keep"),
    "settle-names": Bad(lab(settleNames="Always"), "spec.settleNames"),
    "verify": Bad(lab(verify={"everySeconds": "30d"}), "spec.verify.everySeconds"),
    "adopt": Bad(lab(adopt=True), "spec.adopt"),
    "deletion": Bad(lab(deletionPolicy="Orphan"), "spec.deletionPolicy"),
    "catalog-empty": Bad(
        lab(catalog={}), "spec.catalog", "`spec.catalog` must have exactly one of `sqlite` and `postgresql`"
    ),
    "catalog-both": Bad(
        lab(catalog={"sqlite": {}, "postgresql": {"uriSecretRef": {"name": "db"}}}),
        "spec.catalog",
        "`spec.catalog` must have exactly one of `sqlite` and `postgresql`",
    ),
    "catalog-postgresql": Bad(lab(catalog={"postgresql": {}}), "spec.catalog.postgresql.uriSecretRef"),
    "catalog-storage": Bad(
        lab(catalog={"sqlite": {"storage": 0}}), "spec.catalog.sqlite.storage", "`storage` must be more than 0"
    ),
    "web": Bad(lab(expose={"web": True}), "spec.expose.web"),
    "webdav": Bad(lab(expose={"webdav": "ReadOnly"}), "spec.expose.webdav"),
    "auth-kubernetes": Bad(auth(kubernetes=True), "spec.expose.auth.kubernetes"),
    "auth-anonymous": Bad(auth(anonymous="Everything"), "spec.expose.auth.anonymous"),
    "auth-basic": Bad(auth(basic={}), "spec.expose.auth.basic.secretRef"),
    "auth-access": Bad(auth(rules=[{"path": "a"}]), "spec.expose.auth.rules[0].access"),
    "auth-path": Bad(auth(rules=[{"path": "/a", "access": "None"}]), "spec.expose.auth.rules[0].path", "`path` must"),
    "auth-user": Bad(auth(rules=[{"users": ["a b"], "access": "None"}]), "spec.expose.auth.rules[0].users[0]"),
}  # fmt: skip

UNKNOWN_DIRECTORIES: dict[str, tuple[Spec, str]] = {
    "unknown-policy": (lab(policyRef={"name": "a"}), "spec.policyRef"),
    "unknown-image": (lab(image="evil"), "spec.image"),
    "unknown-namespace": (
        {"stores": [{"name": "aws", "namespace": "kube-system"}]}, "spec.stores[0].namespace"
    ),
}  # fmt: skip

CHANGES: dict[str, tuple[str, Spec, Spec, str]] = {
    "bucket": ("DataStore", s3(), s3(bucket="other"), "`spec.s3.bucket` can't be changed"),
    "container": ("DataStore", azure(), azure(container="other"), "`spec.azureBlob.container` can't be changed"),
    "account": ("DataStore", azure(), azure(account="other"), "`spec.azureBlob.account` can't be changed"),
    "gcs-bucket": ("DataStore", gcs(), gcs(bucket="other"), "`spec.gcs.bucket` can't be changed"),
    "swift-container": ("DataStore", swift(), swift(container="other"), "`spec.swift.container` can't be changed"),
    "plugin-name": ("DataStore", plugin(), {"plugin": {"name": "other"}}, "`spec.plugin.name` can't be changed"),
    "store-kind": ("DataStore", s3(), local(), "`spec` can't be changed to another kind of store"),
    "claim": ("DataStore", local(), local("b"), "`spec.local.persistentVolumeClaimRef` can't be changed"),
    "prefix": ("VirtualDirectory", _prefix("a/"), _prefix("b/"), "`spec.stores[].prefix` can't be changed"),
    "prefix-taken-out": (
        "VirtualDirectory", _prefix("a/"), {"stores": stores("nas")}, "`spec.stores[].prefix` can't be changed"
    ),
    "storage": (
        "VirtualDirectory", lab(), lab(catalog={"sqlite": {"storage": "6Gi"}}),
        "`spec.catalog.sqlite.storage` can't be changed",
    ),
    "catalog": (
        "VirtualDirectory", lab(), lab(catalog={"postgresql": {"uriSecretRef": {"name": "db"}}}),
        "`spec.catalog` can't be changed to another kind",
    ),
}  # fmt: skip
FINE_CHANGES: dict[str, tuple[str, Spec, Spec]] = {
    "store-endpoint": ("DataStore", s3(endpoint="http://a.example.org"), s3(endpoint="http://b.example.org")),
    "drain": ("DataStore", local(), local(access="Drain")),
    "fewer-stores": ("VirtualDirectory", lab(), {"stores": stores("nas", "aws")}),
    "rules": ("VirtualDirectory", lab(), rule(copies=1)),
}
