"""VirtualClusters, VirtualMachines and PlacementPolicies that users may write, good and bad; see `corpus`."""

from __future__ import annotations

from typing import Any

from tests.unit.api.corpus import Bad, Spec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvYXQgcm93cyBnZW50bHkgZG93biB0aGUgc3RyZWFt ada@campus"
_REF = {"name": "x"}


def pool(**fields: Any) -> Spec:
    """A cluster with one pool."""
    return {"pools": [{"name": "workers", **fields}]}


def machine(**fields: Any) -> Spec:
    """A cluster whose only alternative has that machine."""
    return pool(alternatives=[{"name": "any", "machine": fields}])


def rules(**fields: Any) -> Spec:
    """A cluster with placement rules of its own."""
    return {"placement": {"rules": fields}}


def vm(**fields: Any) -> Spec:
    """A machine of one's own."""
    return {"accountRef": {"name": "aws"}, "offer": {"type": "m5.xlarge"}, **fields}


def mount(path: str = "/data", **fields: Any) -> Spec:
    """A cluster with one mount."""
    return {"mounts": [{"path": path, "directoryRef": {"name": "files"}, **fields}]}


def mounts(*paths: str) -> Spec:
    """A cluster with mounts."""
    return {"mounts": [m for path in paths for m in mount(path)["mounts"]]}


CLUSTERS: dict[str, Spec] = {
    "empty": {},
    "mount": mount(),
    "mount-all-said": mount(
        "/home/ada/work.d", subPath="raw/größe x/2024", access="ReadOnly", address="https://files.example.org:8443/a/"
    ),
    "mount-by-address": mount(address="http://[fd00::1]:80"),
    "mounts-side-by-side": mounts("/data", "/data2", "/mnt/data", "/mnt/data-2", "/library", "/usrdata", "/root/data"),
    "no-mounts": {"mounts": []},
    "replicas": {"replicas": 8},
    "none-running": {"replicas": 0},
    "own-replicas": pool(replicas=3),
    "two-pools": {"replicas": 2, "pools": [{"name": "head", "replicas": 1}, {"name": "workers"}]},
    "as-drawn": {
        "replicas": 8,
        "lifecycle": {
            "state": "Running",
            "idle": {"afterSeconds": 3600, "action": "Suspend"},
            "maxLifetimeSeconds": 1209600,
        },
        "deletionPolicy": "Delete",
        "accounts": [{"name": "pods"}, {"name": "chameleon"}, {"name": "aws"}, {"name": "hpc"}],
        "placement": {"policyRef": {"name": "cheapest"}},
        "network": {"mode": "SameNetwork"},
        "maxHourlyCost": {"amount": "12.50", "currency": "USD"},
        "apply": {"mode": "Auto"},
        "access": {
            "sshPublicKeys": [KEY],
            "sourceRanges": ["10.0.0.0/8", "fd00::/8"],
            "outputs": ["SSHConfigSecret", "InventoryConfigMap"],
        },
        "bootstrap": {"slurm": {}},
        "pools": [
            {
                "name": "workers",
                "purchase": {"baseOnDemand": 2, "aboveBase": "SpotWithFallback"},
                "where": {"regions": [], "zones": [], "spread": "None"},
                "alternatives": [
                    {"name": "small", "machine": {"vcpu": {"min": 4}, "memory": {"min": "16Gi"}, "arch": ["amd64"]}},
                    {"name": "big", "countsAs": 4, "machine": {"type": "m5.4xlarge", "disk": {"size": "100Gi"}}},
                    {
                        "name": "gpu",
                        "machine": {
                            "gpu": {"model": "A100", "count": 1},
                            "vcpu": {"min": 8},
                            "memory": {"min": "64Gi"},
                        },
                    },
                ],
                "image": {"name": "ubuntu-24.04"},
                "adopt": [{"accountRef": {"name": "aws"}, "providerID": "i-0abc"}],
                "health": {
                    "startupTimeoutSeconds": 600,
                    "unhealthyAfterSeconds": 120,
                    "remediation": "Replace",
                    "maxUnhealthy": "40%",
                },
                "strategy": {"maxSurge": 1, "maxUnavailable": 0},
            }
        ],
    },
    "selector": {"accountSelector": {"matchLabels": {"team": "physics", "example.org/site": ""}}},
    "selector-of-all": {"accountSelector": {}},
    "bootstrap-ssh": {"bootstrap": {"ssh": {}}},
    "bootstrap-script": {"bootstrap": {"script": {"configMapRef": {"name": "setup"}}}},
    "bootstrap-script-key": {"bootstrap": {"script": {"configMapRef": {"name": "setup", "key": "run_me.sh"}}}},
    "public": {"network": {"mode": "PublicAddress"}, "bootstrap": {"ssh": {}}},
    "cost-number": {"maxHourlyCost": {"amount": 3}},
    "cost-nanos": {"maxHourlyCost": {"amount": "0.000000001", "currency": "EUR"}},
    "approval": {"apply": {"mode": "RequireApproval"}},
    "suspended": {"lifecycle": {"state": "Suspended"}},
    "weighted": rules(mode="Weighted", scores=[{"name": "Price", "weight": 10}, {"name": "Speed"}]),
    "weighted-data": rules(
        mode="Weighted",
        scores=[{"name": "DataNear"}],
        dataNear={"regions": ["us-east-1"]},
    ),
    "data-near": rules(mode="DataNear", dataNear={"regions": ["us-east-1", "eu-west-1"]}),
    "data-near-directory": rules(mode="DataNear", dataNear={"directoryRef": {"name": "lab"}}),
    "random": rules(mode="Random", seed=7),
    "plugin": rules(mode="Plugin", plugin={"name": "green-power"}),
    "filters": rules(
        filters=[
            {"name": "NotRegion", "parameters": {"in": "us-*, eu-west-?"}},
            {"name": "Purchase", "parameters": {"in": "OnDemand, Spot"}},
            {"name": "MaxPrice", "parameters": {"hourly": "0.50", "currency": "EUR"}},
            {"name": "MinVcpu", "parameters": {"count": "4"}},
            {"name": "MaxMemory", "parameters": {"mib": "65536"}},
            {"name": "MaxStart", "parameters": {"seconds": "120"}},
            {"name": "Confidence", "parameters": {"atLeast": "fetched"}},
        ]
    ),
    "range": machine(vcpu={"min": "500m", "max": 2}, memory={"max": "1Gi"}),
    "range-equal": machine(vcpu={"min": "2", "max": "2000m"}),
    "spread-in-account": pool(where={"spread": "Zone", "colocate": "Account"}),
    "places": pool(where={"regions": ["us-east-1", "RegionOne"], "zones": ["us-east-1a", "nova"]}),
    "unhealthy-number": pool(health={"maxUnhealthy": 2, "remediation": "None"}),
    "unhealthy-all": pool(health={"maxUnhealthy": "100%"}),
    "unavailable": pool(strategy={"maxSurge": 0, "maxUnavailable": 1}),
    "adopt-without-accounts": pool(adopt=[{"accountRef": {"name": "any"}, "providerID": "qemu:///uuid-1"}]),
    "nulls-are-absent": {"replicas": None, "bootstrap": None, "pools": [{"name": "a", "image": None, "health": None}]},
    "orphan": {"deletionPolicy": "Orphan"},
    "most-pools": {"pools": [{"name": f"p{i}", "replicas": 1} for i in range(32)]},
}

_ONE_PLACEMENT = "`spec.placement` must have exactly one of `policyRef` and `rules`"
_ONE_BOOTSTRAP = "`spec.bootstrap` must have exactly one of `ssh`, `slurm` and `script`"
_NARROWER = "`spread` must be narrower than `colocate`, or one of them 'None'"
_TYPE_ALONE = "`machine.type` must not be used together with `vcpu`, `memory` or `gpu`"
_WEIGHTED = "`scores` must be set with `mode` 'Weighted', and only then"
_PLUGIN = "`plugin` must be set with `mode` 'Plugin', and only then"
_TAKES = "`parameters` must have what the filter takes"
_HOLDS = "`parameters` must hold whole numbers as `count`, `mib` and `seconds`"
_POOL = "spec.pools[0]"
_MACHINE = f"{_POOL}.alternatives[0].machine"
_QUANTITY = "must be a quantity such as `8Gi`, `500m` or `2`"
_CIDR = "an entry of `sourceRanges` must be a network"
_ADOPT = "`adopt[].accountRef` of `spec.pools` must be one of `spec.accounts`"

BAD_CLUSTERS: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "list-for-spec": Bad([], "spec"),
    "replicas-negative": Bad({"replicas": -1}, "spec.replicas"),
    "replicas-many": Bad({"replicas": 5001}, "spec.replicas"),
    "replicas-text": Bad({"replicas": "3"}, "spec.replicas"),
    "replicas-unused": Bad(
        {"replicas": 2, **pool(replicas=3)},
        "spec.replicas",
        "`spec.replicas` must be left out when each pool has its own `replicas`",
    ),
    "two-pools-without": Bad(
        {"pools": [{"name": "a"}, {"name": "b"}]},
        "spec.pools",
        "`spec.pools` must have at most one pool without `replicas`",
    ),
    "no-pools": Bad({"pools": []}, "spec.pools"),
    "many-pools": Bad({"pools": [{"name": f"p{i}", "replicas": 1} for i in range(33)]}, "spec.pools"),
    "pool-twice": Bad({"pools": [{"name": "a"}, {"name": "a", "replicas": 1}]}, "spec.pools[1]"),
    "pool-nameless": Bad({"pools": [{"replicas": 1}]}, "spec.pools[0].name"),
    "pool-name-upper": Bad({"pools": [{"name": "Workers"}]}, "spec.pools[0].name"),
    "pool-name-dash": Bad({"pools": [{"name": "workers-"}]}, "spec.pools[0].name"),
    "pool-name-digit": Bad({"pools": [{"name": "1st"}]}, "spec.pools[0].name"),
    "pool-name-long": Bad({"pools": [{"name": "p" * 33}]}, "spec.pools[0].name"),
    "pool-replicas-many": Bad(pool(replicas=5001), f"{_POOL}.replicas"),
    "state-word": Bad({"lifecycle": {"state": "Stopped"}}, "spec.lifecycle.state"),
    "idle-no-time": Bad({"lifecycle": {"idle": {}}}, "spec.lifecycle.idle.afterSeconds"),
    "idle-short": Bad({"lifecycle": {"idle": {"afterSeconds": 59}}}, "spec.lifecycle.idle.afterSeconds"),
    "idle-delete": Bad({"lifecycle": {"idle": {"afterSeconds": 60, "action": "Delete"}}}, "spec.lifecycle.idle.action"),
    "idle-after-lifetime": Bad(
        {"lifecycle": {"idle": {"afterSeconds": 600}, "maxLifetimeSeconds": 600}},
        "spec.lifecycle.idle.afterSeconds",
        "`idle.afterSeconds` must be less than `maxLifetimeSeconds`",
    ),
    "lifetime-short": Bad({"lifecycle": {"maxLifetimeSeconds": 1}}, "spec.lifecycle.maxLifetimeSeconds"),
    "lifetime-text": Bad({"lifecycle": {"maxLifetimeSeconds": "1h"}}, "spec.lifecycle.maxLifetimeSeconds"),
    "deletion-word": Bad({"deletionPolicy": "Retain"}, "spec.deletionPolicy"),
    "accounts-empty": Bad({"accounts": []}, "spec.accounts"),
    "accounts-words": Bad({"accounts": ["aws"]}, "spec.accounts[0]"),
    "accounts-nameless": Bad({"accounts": [{}]}, "spec.accounts[0].name"),
    "accounts-twice": Bad({"accounts": [{"name": "a"}, {"name": "a"}]}, "spec.accounts[1]"),
    "accounts-other-namespace": Bad({"accounts": [{"name": "other/aws"}]}, "spec.accounts[0].name"),
    "accounts-many": Bad({"accounts": [{"name": f"a{i}"} for i in range(33)]}, "spec.accounts"),
    "accounts-and-selector": Bad(
        {"accounts": [{"name": "a"}], "accountSelector": {}},
        "spec",
        "`spec.accounts` and `spec.accountSelector` must not be used together",
    ),
    "selector-key": Bad(
        {"accountSelector": {"matchLabels": {"a b": "x"}}},
        "spec.accountSelector.matchLabels",
        "`matchLabels` must have label names as keys",
    ),
    "selector-value": Bad({"accountSelector": {"matchLabels": {"a": "x y"}}}, "spec.accountSelector.matchLabels"),
    "placement-neither": Bad({"placement": {}}, "spec.placement", _ONE_PLACEMENT),
    "placement-both": Bad(
        {"placement": {"policyRef": _REF, "rules": {"mode": "Cheapest"}}}, "spec.placement", _ONE_PLACEMENT
    ),
    "placement-nameless": Bad({"placement": {"policyRef": {}}}, "spec.placement.policyRef.name"),
    "rules-mode": Bad(rules(mode="Cheap"), "spec.placement.rules.mode"),
    "rules-weighted-without": Bad(rules(mode="Weighted"), "spec.placement.rules.scores", _WEIGHTED),
    "rules-weighted-empty": Bad(rules(mode="Weighted", scores=[]), "spec.placement.rules.scores", _WEIGHTED),
    "rules-scores-alone": Bad(rules(scores=[{"name": "Price"}]), "spec.placement.rules.scores", _WEIGHTED),
    "rules-plugin-without": Bad(rules(mode="Plugin"), "spec.placement.rules.plugin", _PLUGIN),
    "rules-plugin-alone": Bad(rules(plugin={"name": "x"}), "spec.placement.rules.plugin", _PLUGIN),
    "rules-seed-alone": Bad(
        rules(seed=1), "spec.placement.rules.seed", "`seed` must be used only with `mode` 'Random'"
    ),
    "rules-seed-negative": Bad(rules(mode="Random", seed=-1), "spec.placement.rules.seed"),
    "network-empty": Bad({"network": {}}, "spec.network.mode"),
    "network-overlay": Bad({"network": {"mode": "Overlay"}}, "spec.network.mode"),
    "mount-without-directory": Bad({"mounts": [{"path": "/data"}]}, "spec.mounts[0].directoryRef"),
    "mount-without-path": Bad({"mounts": [{"directoryRef": {"name": "files"}}]}, "spec.mounts[0].path"),
    **{
        f"mount-path-{name}": Bad(mount(path), "spec.mounts[0].path", message)
        for name, path, message in (
            ("relative", "data", "`path` must be absolute"),
            ("root", "//", "`path` must be absolute"),
            ("ends", "/data/", "`path` must be absolute"),
            ("twice", "/data//x", "`path` must be absolute"),
            ("space", "/my data", "`path` must be absolute"),
            ("quote", "/a'b", "`path` must be absolute"),
            ("line", "/data\n/etc", "`path` must be absolute"),
            ("up", "/data/../etc", "no part of `path` may be '.' or '..'"),
            ("up-last", "/data/..", "no part of `path` may be '.' or '..'"),
            ("here", "/./etc", "no part of `path` may be '.' or '..'"),
            ("etc", "/etc", "must not be a folder of the system's"),
            ("usr-local", "/usr/local/data", "must not be a folder of the system's"),
            ("proc", "/proc/1", "must not be a folder of the system's"),
            ("lib64", "/lib64", "must not be a folder of the system's"),
            ("var", "/var/data", "must not be a folder of the system's"),
            ("home", "/home", "must not be a folder of the system's"),
            ("root-home", "/root", "must not be a folder of the system's"),
        )
    },
    "mount-path-short": Bad(mount("/"), "spec.mounts[0].path"),
    "mount-path-long": Bad(mount("/" + "a" * 255), "spec.mounts[0].path"),
    "mounts-nested": Bad(
        mounts("/data", "/data/raw"), "spec.mounts", "no `path` of `spec.mounts` may lie in another one"
    ),
    "mounts-nested-deep": Bad(mounts("/data/a/b/c", "/x", "/data/a"), "spec.mounts", "may lie in another one"),
    "mounts-twice": Bad(mounts("/data", "/data"), "spec.mounts"),
    "mounts-many": Bad(mounts(*(f"/m{n}" for n in range(9))), "spec.mounts"),
    **{
        f"mount-folder-{name}": Bad(mount(subPath=path), "spec.mounts[0].subPath", message)
        for name, path, message in (
            ("absolute", "/raw", "`subPath` must be a folder such as"),
            ("ends", "raw/", "`subPath` must be a folder such as"),
            ("up", "raw/../x", "no part of `subPath` may be '.' or '..'"),
            ("ours", ".cloudmesh/x", "nor its first one '.cloudmesh'"),
        )
    },
    "mount-folder-empty": Bad(mount(subPath=""), "spec.mounts[0].subPath"),
    "mount-access": Bad(mount(access="WriteOnly"), "spec.mounts[0].access"),
    **{
        f"mount-address-{name}": Bad(mount(address=address), "spec.mounts[0].address", "`address` must be an address")
        for name, address in (
            ("scheme", "ftp://files.example.org"),
            ("user", "https://a:b@files.example.org"),
            ("query", "https://files.example.org/?a=b"),
            ("space", "https://files.example.org /x"),
            ("host", "https://-files"),
        )
    },
    "network-slurm": Bad(
        {"network": {"mode": "PublicAddress"}, "bootstrap": {"slurm": {}}},
        "spec.network.mode",
        "`spec.network.mode` must be 'SameNetwork' with `spec.bootstrap.slurm`",
    ),
    "cost-missing": Bad({"maxHourlyCost": {"currency": "USD"}}, "spec.maxHourlyCost.amount"),
    "cost-fraction": Bad({"maxHourlyCost": {"amount": 1.5}}, "spec.maxHourlyCost.amount"),
    "cost-negative": Bad({"maxHourlyCost": {"amount": -1}}, "spec.maxHourlyCost.amount"),
    "cost-negative-text": Bad({"maxHourlyCost": {"amount": "-1"}}, "spec.maxHourlyCost.amount"),
    "cost-unit": Bad(
        {"maxHourlyCost": {"amount": "5 USD"}}, "spec.maxHourlyCost.amount", "must be an amount such as `12.50`"
    ),
    "cost-places": Bad({"maxHourlyCost": {"amount": "0.0000000001"}}, "spec.maxHourlyCost.amount"),
    "cost-suffix": Bad({"maxHourlyCost": {"amount": "5k"}}, "spec.maxHourlyCost.amount"),
    "cost-true": Bad({"maxHourlyCost": {"amount": True}}, "spec.maxHourlyCost.amount"),
    "cost-huge": Bad({"maxHourlyCost": {"amount": 10**12}}, "spec.maxHourlyCost.amount"),
    "cost-currency-lower": Bad(
        {"maxHourlyCost": {"amount": 1, "currency": "usd"}},
        "spec.maxHourlyCost.currency",
        "capital letters, such as `USD`",
    ),
    "cost-currency-sign": Bad({"maxHourlyCost": {"amount": 1, "currency": "$"}}, "spec.maxHourlyCost.currency"),
    "apply-word": Bad({"apply": {"mode": "Manual"}}, "spec.apply.mode"),
    "key-private": Bad(
        {"access": {"sshPublicKeys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}},
        "spec.access.sshPublicKeys[0]",
        "must be a public key such as `ssh-ed25519 AAAA... ada`, as in a file that ends in `.pub`",
    ),
    "key-word": Bad({"access": {"sshPublicKeys": ["hello"]}}, "spec.access.sshPublicKeys[0]", "must be a public key"),
    "key-options": Bad({"access": {"sshPublicKeys": [f'command="sh" {KEY}']}}, "spec.access.sshPublicKeys[0]"),
    "key-two-lines": Bad({"access": {"sshPublicKeys": [f"{KEY}\n{KEY}"]}}, "spec.access.sshPublicKeys[0]"),
    "key-dsa": Bad({"access": {"sshPublicKeys": ["ssh-dss AAAAB3NzaC1kc3M="]}}, "spec.access.sshPublicKeys[0]"),
    "range-address": Bad({"access": {"sourceRanges": ["10.0.0.1"]}}, "spec.access.sourceRanges[0]"),
    "range-octet": Bad({"access": {"sourceRanges": ["300.0.0.0/8"]}}, "spec.access.sourceRanges[0]", _CIDR),
    "range-prefix": Bad({"access": {"sourceRanges": ["10.0.0.0/33"]}}, "spec.access.sourceRanges[0]", _CIDR),
    "range-host": Bad({"access": {"sourceRanges": ["campus.example.org/8"]}}, "spec.access.sourceRanges[0]"),
    "range-v6": Bad({"access": {"sourceRanges": ["fd00:::/8"]}}, "spec.access.sourceRanges[0]", _CIDR),
    "output-word": Bad({"access": {"outputs": ["Kubeconfig"]}}, "spec.access.outputs[0]"),
    "output-twice": Bad({"access": {"outputs": ["SSHConfigSecret", "SSHConfigSecret"]}}, "spec.access.outputs[1]"),
    "bootstrap-neither": Bad({"bootstrap": {}}, "spec.bootstrap", _ONE_BOOTSTRAP),
    "bootstrap-both": Bad({"bootstrap": {"ssh": {}, "slurm": {}}}, "spec.bootstrap", _ONE_BOOTSTRAP),
    "bootstrap-script-empty": Bad({"bootstrap": {"script": {}}}, "spec.bootstrap.script.configMapRef"),
    "bootstrap-script-key": Bad(
        {"bootstrap": {"script": {"configMapRef": {"name": "a", "key": "../x"}}}},
        "spec.bootstrap.script.configMapRef.key",
    ),
    "purchase-word": Bad(pool(purchase={"aboveBase": "spot"}), f"{_POOL}.purchase.aboveBase"),
    "purchase-negative": Bad(pool(purchase={"baseOnDemand": -1}), f"{_POOL}.purchase.baseOnDemand"),
    "where-same": Bad(pool(where={"spread": "Zone", "colocate": "Zone"}), f"{_POOL}.where.spread", _NARROWER),
    "where-account": Bad(pool(where={"spread": "Account", "colocate": "Account"}), f"{_POOL}.where.spread", _NARROWER),
    "where-wider": Bad(pool(where={"spread": "Account", "colocate": "Zone"}), f"{_POOL}.where.spread", _NARROWER),
    "where-word": Bad(pool(where={"spread": "Region"}), f"{_POOL}.where.spread"),
    "where-region": Bad(pool(where={"regions": ["us east"]}), f"{_POOL}.where.regions[0]"),
    "where-zone-twice": Bad(pool(where={"zones": ["a", "a"]}), f"{_POOL}.where.zones[1]"),
    "alternatives-empty": Bad(pool(alternatives=[]), f"{_POOL}.alternatives"),
    "alternatives-nameless": Bad(pool(alternatives=[{"machine": {}}]), f"{_POOL}.alternatives[0].name"),
    "alternatives-twice": Bad(pool(alternatives=[{"name": "a"}, {"name": "a"}]), f"{_POOL}.alternatives[1]"),
    "alternatives-many": Bad(pool(alternatives=[{"name": f"a{i}"} for i in range(17)]), f"{_POOL}.alternatives"),
    "counts-as-none": Bad(pool(alternatives=[{"name": "a", "countsAs": 0}]), f"{_POOL}.alternatives[0].countsAs"),
    "machine-type-and-vcpu": Bad(machine(type="m5.large", vcpu={"min": 1}), f"{_MACHINE}.type", _TYPE_ALONE),
    "machine-type-and-memory": Bad(machine(type="m5.large", memory={"min": 1}), f"{_MACHINE}.type", _TYPE_ALONE),
    "machine-type-and-gpu": Bad(machine(type="p4d", gpu={"count": 1}), f"{_MACHINE}.type", _TYPE_ALONE),
    "machine-type-slash": Bad(machine(type="../m5"), f"{_MACHINE}.type"),
    "machine-range-empty": Bad(machine(vcpu={}), f"{_MACHINE}.vcpu", "at least one of `min` and `max` must be set"),
    "machine-range-turned": Bad(
        machine(vcpu={"min": 4, "max": 2}), f"{_MACHINE}.vcpu.min", "`min` must not be more than `max`"
    ),
    "machine-memory-turned": Bad(
        machine(memory={"min": "1Gi", "max": "1G"}), f"{_MACHINE}.memory.min", "`min` must not be more than `max`"
    ),
    "machine-max-none": Bad(machine(vcpu={"max": 0}), f"{_MACHINE}.vcpu.max", "`max` must be more than 0"),
    "machine-vcpu-number": Bad(machine(vcpu=4), f"{_MACHINE}.vcpu"),
    "machine-vcpu-negative": Bad(machine(vcpu={"min": -1}), f"{_MACHINE}.vcpu.min"),
    "machine-memory-unit": Bad(machine(memory={"min": "16GB"}), f"{_MACHINE}.memory.min", _QUANTITY),
    "machine-memory-most": Bad(machine(memory={"max": "8GB"}), f"{_MACHINE}.memory.max", _QUANTITY),
    "machine-memory-between": Bad(machine(memory={"min": 1, "max": "8GB"}), f"{_MACHINE}.memory.max", _QUANTITY),
    "machine-disk-unit": Bad(machine(disk={"size": "8GB"}), f"{_MACHINE}.disk.size", _QUANTITY),
    "machine-arch": Bad(machine(arch=["x86_64"]), f"{_MACHINE}.arch[0]"),
    "machine-arch-twice": Bad(machine(arch=["arm64", "arm64"]), f"{_MACHINE}.arch[1]"),
    "machine-gpu-none": Bad(machine(gpu={"count": 0}), f"{_MACHINE}.gpu.count"),
    "machine-gpu-model": Bad(machine(gpu={"model": "A100 80GB"}), f"{_MACHINE}.gpu.model"),
    "machine-disk-empty": Bad(machine(disk={}), f"{_MACHINE}.disk.size"),
    "machine-disk-none": Bad(machine(disk={"size": "0Gi"}), f"{_MACHINE}.disk.size", "`size` must be more than 0"),
    "image-empty": Bad(pool(image={}), f"{_POOL}.image.name"),
    "image-url": Bad(pool(image={"name": "https://x.org/i.qcow2"}), f"{_POOL}.image.name"),
    "adopt-no-id": Bad(pool(adopt=[{"accountRef": _REF}]), f"{_POOL}.adopt[0].providerID"),
    "adopt-no-account": Bad(pool(adopt=[{"providerID": "i-0"}]), f"{_POOL}.adopt[0].accountRef"),
    "adopt-spaces": Bad(pool(adopt=[{"accountRef": _REF, "providerID": "i 0"}]), f"{_POOL}.adopt[0].providerID"),
    "adopt-elsewhere": Bad(
        {"accounts": [{"name": "pods"}], **pool(adopt=[{"accountRef": {"name": "aws"}, "providerID": "i-0"}])},
        "spec.pools",
        _ADOPT,
    ),
    "health-short": Bad(pool(health={"startupTimeoutSeconds": 1}), f"{_POOL}.health.startupTimeoutSeconds"),
    "health-word": Bad(pool(health={"remediation": "Restart"}), f"{_POOL}.health.remediation"),
    "health-percent": Bad(pool(health={"maxUnhealthy": "101%"}), f"{_POOL}.health.maxUnhealthy"),
    "health-fraction": Bad(pool(health={"maxUnhealthy": "0.4"}), f"{_POOL}.health.maxUnhealthy"),
    "health-negative": Bad(pool(health={"maxUnhealthy": -1}), f"{_POOL}.health.maxUnhealthy"),
    "strategy-stuck": Bad(
        pool(strategy={"maxSurge": 0}),
        f"{_POOL}.strategy",
        "at least one of `maxSurge` and `maxUnavailable` must be more than 0",
    ),
    "strategy-percent": Bad(pool(strategy={"maxSurge": "25%"}), f"{_POOL}.strategy.maxSurge"),
}

UNKNOWN_CLUSTERS: dict[str, tuple[Spec, str]] = {
    "unknown-top": ({"count": 3}, "spec.count"),
    "unknown-in-pool": (pool(size=3), "spec.pools[0].size"),
    "unknown-bootstrap": ({"bootstrap": {"k3s": {}}}, "spec.bootstrap.k3s"),
    "unknown-in-empty": ({"bootstrap": {"ssh": {"port": 22}}}, "spec.bootstrap.ssh.port"),
    "unknown-user-data": (pool(userData="#!/bin/sh"), "spec.pools[0].userData"),
}

MACHINES: dict[str, Spec] = {
    "smallest": vm(),
    "of-a-pool": vm(
        clusterRef={"name": "lab"}, pool="workers", ordinal=3, alternative="small", countsAs=2, attempt=2,
        offer={"type": "m5.xlarge", "region": "us-east-1", "zone": "us-east-1a", "purchase": "Spot"},
        image={"name": "ubuntu-24.04"}, powerState="Running", disk={"size": "100Gi"},
        network={"mode": "SameNetwork"},
    ),
    "stopped": vm(powerState="Stopped"),
    "adopted": vm(adopt={"providerID": "i-0abc"}),
    "access": vm(access={"sshPublicKeys": [KEY], "sourceRanges": ["192.168.0.0/16"]}),
    "public": vm(network={"mode": "PublicAddress"}),
}  # fmt: skip

BAD_MACHINES: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "empty": Bad({}, "spec.accountRef"),
    "no-account": Bad({"offer": {"type": "a"}}, "spec.accountRef"),
    "no-offer": Bad({"accountRef": _REF}, "spec.offer"),
    "no-type": Bad(vm(offer={"region": "us-east-1"}), "spec.offer.type"),
    "type-empty": Bad(vm(offer={"type": ""}), "spec.offer.type"),
    "purchase": Bad(vm(offer={"type": "a", "purchase": "Reserved"}), "spec.offer.purchase"),
    "zone": Bad(vm(offer={"type": "a", "zone": "a/b"}), "spec.offer.zone"),
    "pool-alone": Bad(vm(pool="workers"), "spec", "`spec.clusterRef` and `spec.pool` must be used together"),
    "cluster-alone": Bad(vm(clusterRef=_REF), "spec", "`spec.clusterRef` and `spec.pool` must be used together"),
    "ordinal-negative": Bad(vm(ordinal=-1), "spec.ordinal"),
    "ordinal-many": Bad(vm(ordinal=10000), "spec.ordinal"),
    "attempt-none": Bad(vm(attempt=0), "spec.attempt"),
    "counts-as": Bad(vm(countsAs=0), "spec.countsAs"),
    "power": Bad(vm(powerState="Off"), "spec.powerState"),
    "disk": Bad(vm(disk={"size": "big"}), "spec.disk.size"),
    "disk-none": Bad(vm(disk={"size": 0}), "spec.disk.size", "`size` must be more than 0"),
    "adopt-empty": Bad(vm(adopt={}), "spec.adopt.providerID"),
    "adopt-long": Bad(vm(adopt={"providerID": "i" * 513}), "spec.adopt.providerID"),
    "access-key": Bad(vm(access={"sshPublicKeys": ["ssh-ed25519"]}), "spec.access.sshPublicKeys[0]"),
    "access-range": Bad(vm(access={"sourceRanges": ["1.2.3.4/40"]}), "spec.access.sourceRanges[0]", _CIDR),
    "network": Bad(vm(network={"mode": "Bridge"}), "spec.network.mode"),
    "network-empty": Bad(vm(network={}), "spec.network.mode"),
    "image-name": Bad(vm(image={"name": "-x"}), "spec.image.name"),
    "alternative": Bad(vm(alternative="Big"), "spec.alternative"),
}

UNKNOWN_MACHINES: dict[str, tuple[Spec, str]] = {
    "unknown-flavor": (vm(flavor="m1.small"), "spec.flavor"),
    "unknown-in-offer": (vm(offer={"type": "a", "price": "0"}), "spec.offer.price"),
}

POLICIES: dict[str, Spec] = {
    "empty": {},
    **{mode.lower(): {"mode": mode} for mode in ("Cheapest", "Fastest", "Spread", "Sequential", "Smart", "Frugal")},
    "random": {"mode": "Random"},
    "plugin": {"mode": "Plugin", "plugin": {"name": "x_y.z-1"}},
    "weighted": {
        "mode": "Weighted",
        "filters": [{"name": "Region", "parameters": {"in": "us-*"}}],
        "scores": [{"name": "Price", "weight": 10}, {"name": "DataNear", "weight": 3}],
        "dataNear": {"regions": ["us-east-1"]},
    },
}

BAD_POLICIES: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "mode": Bad({"mode": "cheapest"}, "spec.mode"),
    "weighted": Bad({"mode": "Weighted"}, "spec.scores", _WEIGHTED),
    "scores": Bad({"scores": [{"name": "Price"}]}, "spec.scores", _WEIGHTED),
    "plugin": Bad({"mode": "Plugin"}, "spec.plugin", _PLUGIN),
    "plugin-nameless": Bad({"mode": "Plugin", "plugin": {}}, "spec.plugin.name"),
    "plugin-path": Bad({"mode": "Plugin", "plugin": {"name": "os:system"}}, "spec.plugin.name"),
    "data-near-twice": Bad(
        {"mode": "DataNear", "dataNear": {"regions": ["a"], "directoryRef": {"name": "lab"}}},
        "spec.dataNear",
        "`dataNear` must have exactly one of `regions` and `directoryRef`",
    ),
    "data-near": Bad({"mode": "DataNear"}, "spec.dataNear", "`dataNear` must be set with `mode` 'DataNear'"),
    "data-near-alone": Bad(
        {"dataNear": {"regions": ["a"]}},
        "spec.dataNear",
        "`dataNear` must be used only with `mode` 'DataNear' or a score of that name",
    ),
    "data-near-score": Bad(
        {"mode": "Weighted", "scores": [{"name": "DataNear"}]},
        "spec.dataNear",
        "`dataNear` must be set with a score 'DataNear'",
    ),
    "data-near-nowhere": Bad({"mode": "DataNear", "dataNear": {"regions": []}}, "spec.dataNear.regions"),
    "filter-nameless": Bad({"filters": [{}]}, "spec.filters[0].name"),
    "filter-lower": Bad({"filters": [{"name": "arch"}]}, "spec.filters[0].name"),
    "filter-strange": Bad({"filters": [{"name": "Colour", "parameters": {"in": "red"}}]}, "spec.filters[0].name"),
    "filters-many": Bad({"filters": [{"name": "Arch", "parameters": {"in": "amd64"}}] * 17}, "spec.filters"),
    "parameter-missing": Bad({"filters": [{"name": "Arch"}]}, "spec.filters[0].parameters", _TAKES),
    "parameter-strange": Bad(
        {"filters": [{"name": "Arch", "parameters": {"allowed": "amd64"}}]}, "spec.filters[0].parameters", _TAKES
    ),
    "parameter-of-another": Bad(
        {"filters": [{"name": "MaxPrice", "parameters": {"in": "1"}}]}, "spec.filters[0].parameters", _TAKES
    ),
    "parameter-currency": Bad(
        {"filters": [{"name": "Zone", "parameters": {"in": "a", "currency": "USD"}}]},
        "spec.filters[0].parameters",
        _TAKES,
    ),
    "parameter-number": Bad({"filters": [{"name": "Arch", "parameters": {"in": 1}}]}, "spec.filters[0].parameters.in"),
    "parameter-nothing": Bad(
        {"filters": [{"name": "Arch", "parameters": {"in": " , "}}]}, "spec.filters[0].parameters", _HOLDS
    ),
    "parameter-purchase": Bad(
        {"filters": [{"name": "Purchase", "parameters": {"in": "Spot,Reserved"}}]},
        "spec.filters[0].parameters",
        _HOLDS,
    ),
    "parameter-price": Bad(
        {"filters": [{"name": "MaxPrice", "parameters": {"hourly": "cheap"}}]}, "spec.filters[0].parameters", _HOLDS
    ),
    "parameter-count": Bad(
        {"filters": [{"name": "MinVcpu", "parameters": {"count": "1.5"}}]}, "spec.filters[0].parameters", _HOLDS
    ),
    "parameter-trust": Bad(
        {"filters": [{"name": "Confidence", "parameters": {"atLeast": "some"}}]}, "spec.filters[0].parameters", _HOLDS
    ),
    "score-strange": Bad({"mode": "Weighted", "scores": [{"name": "Beauty"}]}, "spec.scores[0].name"),
    "score-twice": Bad({"mode": "Weighted", "scores": [{"name": "Price"}, {"name": "Price"}]}, "spec.scores[1]"),
    "score-weight": Bad({"mode": "Weighted", "scores": [{"name": "Price", "weight": 0}]}, "spec.scores[0].weight"),
    "score-fraction": Bad({"mode": "Weighted", "scores": [{"name": "Price", "weight": 0.5}]}, "spec.scores[0].weight"),
}

UNKNOWN_POLICIES: dict[str, tuple[Spec, str]] = {"unknown-weights": ({"weights": {"Price": 1}}, "spec.weights")}

# Before, after, the field that is named, and the message: what an update may not do.
CHANGES: dict[str, tuple[str, Spec, Spec, str]] = {
    "offer": ("VirtualMachine", vm(), vm(offer={"type": "m5.large"}), "`spec.offer` can't be changed"),
    "account": ("VirtualMachine", vm(), vm(accountRef={"name": "b"}), "`spec.accountRef` can't be changed"),
    "attempt": ("VirtualMachine", vm(), vm(attempt=2), "`spec.attempt` can't be changed"),
    "ordinal": ("VirtualMachine", vm(), vm(ordinal=2), "`spec.ordinal` can't be changed"),
    "counts-as": ("VirtualMachine", vm(), vm(countsAs=2), "`spec.countsAs` can't be changed"),
    "image-added": ("VirtualMachine", vm(), vm(image={"name": "a"}), "`spec.image` can't be changed"),
    "image-removed": ("VirtualMachine", vm(image={"name": "a"}), vm(), "`spec.image` can't be changed"),
    "image": ("VirtualMachine", vm(image={"name": "a"}), vm(image={"name": "b"}), "`spec.image` can't be changed"),
    "disk": ("VirtualMachine", vm(disk={"size": 1}), vm(disk={"size": 2}), "`spec.disk` can't be changed"),
    "adopt": ("VirtualMachine", vm(), vm(adopt={"providerID": "i-0"}), "`spec.adopt` can't be changed"),
    "access": ("VirtualMachine", vm(), vm(access={"sourceRanges": ["10.0.0.0/8"]}), "`spec.access` can't be changed"),
    "network": ("VirtualMachine", vm(), vm(network={"mode": "PublicAddress"}), "`spec.network` can't be changed"),
    "alternative": ("VirtualMachine", vm(), vm(alternative="b"), "`spec.alternative` can't be changed"),
    "pool": (
        "VirtualMachine",
        vm(clusterRef={"name": "a"}, pool="p"),
        vm(clusterRef={"name": "a"}, pool="q"),
        "`spec.pool` can't be changed",
    ),
    "cluster": (
        "VirtualMachine",
        vm(clusterRef={"name": "a"}, pool="p"),
        vm(clusterRef={"name": "b"}, pool="p"),
        "`spec.clusterRef` can't be changed",
    ),
}
FINE_CHANGES: dict[str, tuple[str, Spec, Spec]] = {
    "power": ("VirtualMachine", vm(), vm(powerState="Stopped")),
    "replicas": ("VirtualCluster", {"replicas": 1}, {"replicas": 5}),
    "pools": ("VirtualCluster", pool(replicas=1), pool(replicas=2, image={"name": "a"})),
}
