"""CloudAccounts, PriceSheets, Budgets and ClusterJobs that users may write, good and bad; see `corpus`."""

from __future__ import annotations

from typing import Any

from tests.unit.api.corpus import Bad, Spec

_REF = {"name": "x"}
_SECRET: Spec = {"credentials": {"secretRef": {"name": "aws"}}}
_ROLE: Spec = {"credentials": {"workloadIdentity": {"roleArn": "arn:aws:iam::123456789012:role/cloudmesh"}}}
_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvYXQgcm93cyBnZW50bHkgZG93biB0aGUgc3RyZWFt"


def aws(**fields: Any) -> Spec:
    """An account of AWS with a Secret."""
    return {"aws": {"region": "us-east-1", **fields}, **_SECRET}


def host(**fields: Any) -> Spec:
    """An account of one host."""
    one = {"name": "node1", "address": "node1.campus.edu", "user": "ada", "hostKey": _HOST_KEY, "vcpu": 8,
           "memory": "32Gi", **fields}  # fmt: skip
    return {"ssh": {"hosts": [{k: v for k, v in one.items() if v is not None}]}, **_SECRET}


def pods(**fields: Any) -> Spec:
    """An account of Pods."""
    return {"kubernetes": fields}


def item(**fields: Any) -> Spec:
    """A sheet of one price."""
    return {"items": [{"hourly": "0.12", **fields}]}


def job(**fields: Any) -> Spec:
    """A job on cluster `lab`."""
    return {"clusterRef": {"name": "lab"}, "command": ["python", "train.py"], **fields}


ACCOUNTS: dict[str, Spec] = {
    "pods": pods(),
    "pods-sizes": pods(
        sizes=[{"name": "tiny", "cpu": "100m", "memory": "128Mi"}, {"name": "whole", "cpu": 2, "memory": "1e9"}],
        nodeSelector={"disk": "ssd"},
        tolerations=[{"operator": "Exists"}],
    ),
    "memory": {"memory": {}},
    "memory-settings": {"memory": {"settings": {"bootSeconds": "3", "capacity": "m1.small=2"}}},
    "aws": {
        **aws(endpoint="https://ec2.example.org:8773/services", zones=["us-east-1a", "us-east-1b"]),
        "images": {"ubuntu-24.04": "ami-0abc"},
        "limits": {"machines": 50, "requestsPerSecond": 10},
        "priceSheetRef": {"name": "campus"},
    },
    "aws-narrow": aws(instanceTypes=["m5.large", "c6g.medium"], subnetIds=["subnet-0123456789abcdef0"]),
    "aws-government": aws(region="us-gov-west-1"),
    "aws-role": {**aws(), **_ROLE},
    "aws-role-path": {
        **aws(),
        "credentials": {"workloadIdentity": {"roleArn": "arn:aws-us-gov:iam::123456789012:role/lab/Cm+1@x"}},
    },
    "ssh": host(),
    "ssh-whole": host(port=2222, arch="arm64", gpu={"model": "A100", "count": 4}, zone="rack-1"),
    "ssh-address": host(address="2001:db8::1"),
    "no-machines": {**pods(), "limits": {"machines": 0}},
    "plugin": {"plugin": {"name": "shelf"}},
    "plugin-settings": {"plugin": {"name": "my.own_cloud-2", "settings": {"endpoint": "https://x.org"}}, **_SECRET},
}

_ONE_CLOUD = "`spec` must have exactly one of `aws`, `kubernetes`, `memory`, `plugin` and `ssh`"
_NEEDS = "`spec.credentials` must be set for `aws` and `ssh`, may be for `plugin`, and can't be for others"
_ONE_PROOF = "`spec.credentials` must have exactly one of `secretRef` and `workloadIdentity`"
_ZONES = "`spec.aws.zones` must be zones of `spec.aws.region`"
_HOST = "spec.ssh.hosts[0]"
_REGION = "must be a region such as `us-east-1`"

BAD_ACCOUNTS: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "no-cloud": Bad({}, "spec", _ONE_CLOUD),
    "two-clouds": Bad({"kubernetes": {}, "memory": {}}, "spec", _ONE_CLOUD),
    "three-clouds": Bad({**aws(), "kubernetes": {}, "memory": {}}, "spec", _ONE_CLOUD),
    "cloud-text": Bad({"kubernetes": "yes"}, "spec.kubernetes"),
    "pods-credentials": Bad({**pods(), **_SECRET}, "spec.credentials", _NEEDS),
    "memory-credentials": Bad({"memory": {}, **_SECRET}, "spec.credentials", _NEEDS),
    "aws-no-credentials": Bad({"aws": {"region": "us-east-1"}}, "spec.credentials", _NEEDS),
    "ssh-no-credentials": Bad({"ssh": host()["ssh"]}, "spec.credentials", _NEEDS),
    "credentials-empty": Bad({**aws(), "credentials": {}}, "spec.credentials", _ONE_PROOF),
    "credentials-two": Bad(
        {**aws(), "credentials": {**_SECRET["credentials"], **_ROLE["credentials"]}}, "spec.credentials", _ONE_PROOF
    ),
    "role-nothing": Bad(
        {**aws(), "credentials": {"workloadIdentity": {}}}, "spec.credentials.workloadIdentity.roleArn"
    ),
    "role-name": Bad(
        {**aws(), "credentials": {"workloadIdentity": {"roleArn": "cloudmesh"}}},
        "spec.credentials.workloadIdentity.roleArn",
        "must be the ARN of a role",
    ),
    "role-user": Bad(
        {**aws(), "credentials": {"workloadIdentity": {"roleArn": "arn:aws:iam::123456789012:user/me"}}},
        "spec.credentials.workloadIdentity.roleArn",
    ),
    "ssh-role": Bad(
        {**host(), **_ROLE}, "spec.credentials", "`spec.credentials.workloadIdentity` can be set for `aws`"
    ),
    "plugin-role": Bad(
        {"plugin": {"name": "a"}, **_ROLE},
        "spec.credentials",
        "`spec.credentials.workloadIdentity` can be set for `aws`",
    ),
    "pods-role": Bad({**pods(), **_ROLE}, "spec.credentials", _NEEDS),
    "credentials-text": Bad({**aws(), "credentials": "aws"}, "spec.credentials"),
    "credentials-nameless": Bad({**aws(), "credentials": {"secretRef": {}}}, "spec.credentials.secretRef.name"),
    "credentials-other-namespace": Bad(
        {**aws(), "credentials": {"secretRef": {"name": "kube-system/aws"}}}, "spec.credentials.secretRef.name"
    ),
    "aws-no-region": Bad({"aws": {}, **_SECRET}, "spec.aws.region"),
    "aws-region": Bad(aws(region="Virginia"), "spec.aws.region", _REGION),
    "aws-region-nowhere": Bad(aws(region="mars-1"), "spec.aws.region", _REGION),
    "aws-region-zone": Bad(aws(region="us-east-1a"), "spec.aws.region"),
    "aws-endpoint": Bad(aws(endpoint="ec2.example.org"), "spec.aws.endpoint"),
    "aws-endpoint-file": Bad(aws(endpoint="file:///etc/passwd"), "spec.aws.endpoint"),
    "aws-endpoint-user": Bad(aws(endpoint="https://key:secret@ec2.example.org"), "spec.aws.endpoint"),
    "aws-zone-elsewhere": Bad(aws(zones=["us-east-1a", "us-west-2a"]), "spec.aws.zones", _ZONES),
    "aws-zone-twice": Bad(aws(zones=["us-east-1a", "us-east-1a"]), "spec.aws.zones[1]"),
    "aws-types-many": Bad(aws(instanceTypes=[f"m{i}" for i in range(257)]), "spec.aws.instanceTypes"),
    "aws-subnet": Bad(aws(subnetIds=["vpc-0123"]), "spec.aws.subnetIds[0]"),
    "sizes-empty": Bad(pods(sizes=[]), "spec.kubernetes.sizes"),
    "sizes-no-cpu": Bad(pods(sizes=[{"name": "a", "memory": "1Gi"}]), "spec.kubernetes.sizes[0].cpu"),
    "sizes-no-memory": Bad(pods(sizes=[{"name": "a", "cpu": 1}]), "spec.kubernetes.sizes[0].memory"),
    "sizes-zero": Bad(
        pods(sizes=[{"name": "a", "cpu": 0, "memory": "1Gi"}]),
        "spec.kubernetes.sizes[0].cpu",
        "`cpu` must be more than 0",
    ),
    "sizes-memory-zero": Bad(
        pods(sizes=[{"name": "a", "cpu": 1, "memory": "0.0Gi"}]),
        "spec.kubernetes.sizes[0].memory",
        "`memory` must be more than 0",
    ),
    "sizes-twice": Bad(
        pods(sizes=[{"name": "a", "cpu": 1, "memory": 1}, {"name": "a", "cpu": 2, "memory": 1}]),
        "spec.kubernetes.sizes[1]",
    ),
    "sizes-name": Bad(pods(sizes=[{"name": "A", "cpu": 1, "memory": 1}]), "spec.kubernetes.sizes[0].name"),
    "pods-selector": Bad(pods(nodeSelector={"a b": ""}), "spec.kubernetes.nodeSelector", "`nodeSelector` must have"),
    "pods-toleration": Bad(
        pods(tolerations=[{"operator": "Exists", "value": "x"}]),
        "spec.kubernetes.tolerations[0].value",
        "`value` must not be set when `operator` is 'Exists'",
    ),
    "settings-key": Bad(
        {"memory": {"settings": {"Boot": "1"}}},
        "spec.memory.settings",
        "`settings` must have names such as 'bootSeconds' as keys",
    ),
    "plugin-nameless": Bad({"plugin": {}}, "spec.plugin.name"),
    "plugin-name": Bad({"plugin": {"name": "a b"}}, "spec.plugin.name"),
    "plugin-and-another": Bad({"plugin": {"name": "shelf"}, "memory": {}}, "spec", _ONE_CLOUD),
    "plugin-settings-key": Bad(
        {"plugin": {"name": "shelf", "settings": {"": "1"}}},
        "spec.plugin.settings",
        "`settings` must have names such as 'bootSeconds' as keys",
    ),
    "plugin-settings-nested": Bad({"plugin": {"name": "shelf", "settings": {"a": {}}}}, "spec.plugin.settings.a"),
    "settings-number": Bad({"memory": {"settings": {"bootSeconds": 1}}}, "spec.memory.settings.bootSeconds"),
    "settings-many": Bad({"memory": {"settings": {f"a{i}": "" for i in range(33)}}}, "spec.memory.settings"),
    "ssh-empty": Bad({"ssh": {}, **_SECRET}, "spec.ssh.hosts"),
    "ssh-no-hosts": Bad({"ssh": {"hosts": []}, **_SECRET}, "spec.ssh.hosts"),
    "ssh-no-key": Bad(host(hostKey=None), f"{_HOST}.hostKey"),
    "ssh-key-comment": Bad(host(hostKey=f"{_HOST_KEY} root@node1"), f"{_HOST}.hostKey"),
    "ssh-key-known-hosts": Bad(
        host(hostKey=f"node1 {_HOST_KEY}"), f"{_HOST}.hostKey", "must be a host key such as `ssh-ed25519 AAAA...`"
    ),
    "ssh-no-user": Bad(host(user=None), f"{_HOST}.user"),
    "ssh-user-option": Bad(host(user="-oProxyCommand=x"), f"{_HOST}.user"),
    "ssh-address-url": Bad(host(address="ssh://node1"), f"{_HOST}.address"),
    "ssh-address-option": Bad(host(address="-oProxyCommand=x"), f"{_HOST}.address"),
    "ssh-address-user": Bad(host(address="ada@node1"), f"{_HOST}.address"),
    "ssh-port": Bad(host(port=0), f"{_HOST}.port"),
    "ssh-port-high": Bad(host(port=65536), f"{_HOST}.port"),
    "ssh-arch": Bad(host(arch="riscv64"), f"{_HOST}.arch"),
    "ssh-no-vcpu": Bad(host(vcpu=None), f"{_HOST}.vcpu"),
    "ssh-vcpu-zero": Bad(host(vcpu=0), f"{_HOST}.vcpu", "`vcpu` must be more than 0"),
    "ssh-host-twice": Bad({**host(), "ssh": {"hosts": host()["ssh"]["hosts"] * 2}}, "spec.ssh.hosts[1]"),
    "image-key": Bad(
        {**pods(), "images": {"a b": "x"}}, "spec.images", "`images` must have names such as 'ubuntu-24.04' as keys"
    ),
    "image-empty": Bad({**pods(), "images": {"a": ""}}, "spec.images.a"),
    "image-spaces": Bad({**pods(), "images": {"a": "ami 0"}}, "spec.images.a"),
    "limit-negative": Bad({**pods(), "limits": {"machines": -1}}, "spec.limits.machines"),
    "limit-requests": Bad({**pods(), "limits": {"requestsPerSecond": 0}}, "spec.limits.requestsPerSecond"),
    "sheet-nameless": Bad({**pods(), "priceSheetRef": {}}, "spec.priceSheetRef.name"),
}

UNKNOWN_ACCOUNTS: dict[str, tuple[Spec, str]] = {
    "unknown-cloud": ({**pods(), "azure": {}}, "spec.azure"),
    "unknown-inline-secret": (
        {**aws(), "credentials": {"secretRef": _REF, "accessKeyID": "AKIA"}},
        "spec.credentials.accessKeyID",
    ),
    "unknown-reference": (
        {**aws(), "credentials": {"secretRef": {"name": "a", "namespace": "kube-system"}}},
        "spec.credentials.secretRef.namespace",
    ),
    "unknown-host-path": (pods(hostPath="/"), "spec.kubernetes.hostPath"),
    "unknown-key-path": (host(keyFile="/keys/id_rsa"), "spec.ssh.hosts[0].keyFile"),
}

SHEETS: dict[str, Spec] = {
    "smallest": item(),
    "free": item(hourly=0),
    "leap-day": item(validFrom="2028-02-29T23:59:59Z", validTo="2099-12-31T00:00:00Z"),
    "patterns": item(match={"account": "aws-*", "type": "m?.*", "region": "*", "zone": "us-east-1?"}),
    "whole": {
        "currency": "EUR",
        "items": [
            {
                "match": {
                    "account": "campus", "type": "node1", "region": "ch", "zone": "rack-1", "purchase": "OnDemand"
                },
                "hourly": "0.12",
                "validFrom": "2026-01-01T00:00:00Z",
                "validTo": "2027-01-01T00:00:00Z",
            },
            {"hourly": 1, "storagePerGibMonth": "0.08"},
            {"match": {"account": "aws"}, "storagePerGibMonth": "0.08"},
        ],
    },
    "files": {
        "stores": [
            {
                "match": {"store": "nas*", "kind": "local", "region": "campus"},
                "storagePerGibMonth": "0.004",
                "writesPerThousand": "0.005",
                "readsPerThousand": "0.0004",
                "egressPerGib": "0.09",
                "validFrom": "2026-01-01T00:00:00Z",
                "validTo": "2027-01-01T00:00:00Z",
            },
            {"storagePerGibMonth": 0},
        ],
    },
}  # fmt: skip

BAD_SHEETS: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "no-items": Bad({}, "spec", "`spec` must have at least one of `items`, prices of machines, and `stores`"),
    "stores-empty": Bad({"stores": []}, "spec.stores"),
    "stores-many": Bad({"stores": [{"storagePerGibMonth": 1}] * 257}, "spec.stores"),
    "stores-no-storage": Bad({"stores": [{"egressPerGib": "0.09"}]}, "spec.stores[0].storagePerGibMonth"),
    "stores-number": Bad({"stores": [{"storagePerGibMonth": 0.004}]}, "spec.stores[0].storagePerGibMonth"),
    "stores-egress": Bad({"stores": [{"storagePerGibMonth": 1, "egressPerGib": "-1"}]}, "spec.stores[0].egressPerGib"),
    "stores-writes": Bad(
        {"stores": [{"storagePerGibMonth": 1, "writesPerThousand": "cheap"}]}, "spec.stores[0].writesPerThousand"
    ),
    "stores-reads": Bad(
        {"stores": [{"storagePerGibMonth": 1, "readsPerThousand": ""}]}, "spec.stores[0].readsPerThousand"
    ),
    "stores-match": Bad(
        {"stores": [{"storagePerGibMonth": 1, "match": {"store": "a,b"}}]}, "spec.stores[0].match.store"
    ),
    "stores-match-kind": Bad(
        {"stores": [{"storagePerGibMonth": 1, "match": {"kind": ""}}]}, "spec.stores[0].match.kind"
    ),
    "stores-match-region": Bad(
        {"stores": [{"storagePerGibMonth": 1, "match": {"region": "a,b"}}]}, "spec.stores[0].match.region"
    ),
    "stores-valid": Bad(
        {
            "stores": [
                {
                    "storagePerGibMonth": 1,
                    "validFrom": "2027-01-01T00:00:00Z",
                    "validTo": "2026-01-01T00:00:00Z",
                }
            ]
        },
        "spec.stores[0].validFrom",
        "`validFrom` must be before `validTo`",
    ),
    "items-empty": Bad({"items": []}, "spec.items"),
    "items-many": Bad({"items": [{"hourly": 1}] * 1001}, "spec.items"),
    "currency": Bad({**item(), "currency": "EURO"}, "spec.currency"),
    "currency-unknown": Bad({**item(), "currency": "XQZ"}, "spec.currency", "a currency of ISO 4217"),
    "currency-lower": Bad({**item(), "currency": "eur"}, "spec.currency", "capital letters, such as `USD`"),
    "no-price": Bad(
        {"items": [{"match": {"type": "a"}}]},
        "spec.items[0].hourly",
        "`hourly`, `storagePerGibMonth` or both must be given",
    ),
    "storage-number": Bad(item(storagePerGibMonth=0.08), "spec.items[0].storagePerGibMonth"),
    "storage-negative": Bad(item(storagePerGibMonth="-1"), "spec.items[0].storagePerGibMonth"),
    "hourly-number": Bad(item(hourly=0.12), "spec.items[0].hourly"),
    "hourly-negative": Bad(item(hourly="-0.12"), "spec.items[0].hourly"),
    "hourly-comma": Bad(item(hourly="0,12"), "spec.items[0].hourly"),
    "hourly-sign": Bad(item(hourly="$0.12"), "spec.items[0].hourly"),
    "hourly-exponent": Bad(item(hourly="1e-3"), "spec.items[0].hourly"),
    "from-date": Bad(item(validFrom="2026-01-01"), "spec.items[0].validFrom"),
    "from-zone": Bad(item(validFrom="2026-01-01T00:00:00+01:00"), "spec.items[0].validFrom"),
    "from-month": Bad(item(validFrom="2026-13-01T00:00:00Z"), "spec.items[0].validFrom"),
    "from-february": Bad(item(validFrom="2026-02-29T00:00:00Z"), "spec.items[0].validFrom"),
    "from-june": Bad(item(validFrom="2026-06-31T00:00:00Z"), "spec.items[0].validFrom"),
    "from-hour": Bad(item(validTo="2026-06-30T24:00:00Z"), "spec.items[0].validTo"),
    "from-old": Bad(item(validFrom="0000-01-01T00:00:00Z"), "spec.items[0].validFrom"),
    "turned": Bad(
        item(validFrom="2027-01-01T00:00:00Z", validTo="2026-01-01T00:00:00Z"),
        "spec.items[0].validFrom",
        "`validFrom` must be before `validTo`",
    ),
    "moment": Bad(
        item(validFrom="2026-01-01T00:00:00Z", validTo="2026-01-01T00:00:00Z"),
        "spec.items[0].validFrom",
        "`validFrom` must be before `validTo`",
    ),
    "match-account": Bad(item(match={"account": "a,b"}), "spec.items[0].match.account"),
    "match-purchase": Bad(item(match={"purchase": "reserved"}), "spec.items[0].match.purchase"),
    "match-type-empty": Bad(item(match={"type": ""}), "spec.items[0].match.type"),
}

UNKNOWN_SHEETS: dict[str, tuple[Spec, str]] = {
    "unknown-monthly": (item(monthly="1"), "spec.items[0].monthly"),
}

BUDGETS: dict[str, Spec] = {
    "smallest": {"amount": 500},
    "whole": {
        "currency": "USD",
        "amount": "500.00",
        "period": "Month",
        "selector": {"matchLabels": {"team": "physics"}},
        "hard": "Warn",
        "alertsAtPercent": [50, 90, 120],
    },
    "all": {"amount": "0.01", "selector": {}},
}

BAD_BUDGETS: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "no-amount": Bad({}, "spec.amount"),
    "amount-zero": Bad({"amount": 0}, "spec.amount", "`amount` must be more than 0"),
    "amount-zero-text": Bad({"amount": "0.00"}, "spec.amount", "`amount` must be more than 0"),
    "amount-fraction": Bad({"amount": 0.5}, "spec.amount"),
    "amount-word": Bad({"amount": "unlimited"}, "spec.amount", "must be an amount such as `12.50`"),
    "amount-suffix": Bad({"amount": "1k"}, "spec.amount"),
    "period": Bad({"amount": 1, "period": "Week"}, "spec.period"),
    "hard": Bad({"amount": 1, "hard": "true"}, "spec.hard"),
    "hard-true": Bad({"amount": 1, "hard": True}, "spec.hard"),
    "currency": Bad({"amount": 1, "currency": ""}, "spec.currency"),
    "selector-list": Bad({"amount": 1, "selector": []}, "spec.selector"),
    "selector-key": Bad(
        {"amount": 1, "selector": {"matchLabels": {"/": "x"}}},
        "spec.selector.matchLabels",
        "`matchLabels` must have label names as keys",
    ),
    "alerts-zero": Bad({"amount": 1, "alertsAtPercent": [0]}, "spec.alertsAtPercent[0]"),
    "alerts-text": Bad({"amount": 1, "alertsAtPercent": ["50%"]}, "spec.alertsAtPercent[0]"),
    "alerts-twice": Bad({"amount": 1, "alertsAtPercent": [50, 50]}, "spec.alertsAtPercent[1]"),
    "alerts-many": Bad({"amount": 1, "alertsAtPercent": list(range(1, 18))}, "spec.alertsAtPercent"),
}

UNKNOWN_BUDGETS: dict[str, tuple[Spec, str]] = {
    "unknown-expressions": ({"amount": 1, "selector": {"matchExpressions": []}}, "spec.selector.matchExpressions"),
}

JOBS: dict[str, Spec] = {
    "smallest": job(),
    "sweep": job(arguments=["lr=[0.1,0.2]", "run-[001-100]", "plain", "two-[1,2]-[a,b]"]),
    "whole": job(
        parallelism=4,
        slurm={"partition": "main", "time": "01:30:00", "nodes": 2, "tasks": 4},
        retry={"limit": 2, "onPreemption": "Fail"},
        timeoutSeconds=3600,
        files={"workdir": {"configMapRef": {"name": "code"}}},
        env=[{"name": "PYTHONPATH", "value": "lib"}, {"name": "_X", "value": ""}],
        outputs={"paths": ["model.pt", "logs/*.txt", ".hidden/a"]},
    ),
    "directories": job(
        files={"workdir": {"configMapRef": {"name": "code"}}, "directory": {"name": "lab", "path": "raw data/ü"}},
        outputs={"paths": ["*"], "directoryRef": {"name": "lab"}, "path": "results"},
    ),
    "whole-directory": job(files={"directory": {"name": "lab"}}),
    "minutes": job(slurm={"time": "90"}),
    "days": job(slurm={"time": "1-12"}),
    "words": job(command=["sh", "-c", "echo 'two\nlines' é"]),
}

_STAY = "an entry of `paths` must stay in the run's folder"

BAD_JOBS: dict[str, Bad] = {
    "no-spec": Bad(None, "spec"),
    "no-cluster": Bad({"command": ["true"]}, "spec.clusterRef"),
    "no-command": Bad({"clusterRef": _REF}, "spec.command"),
    "command-empty": Bad(job(command=[]), "spec.command"),
    "command-text": Bad(job(command="python train.py"), "spec.command"),
    "command-word-empty": Bad(job(command=["python", ""]), "spec.command[1]"),
    "command-number": Bad(job(command=["sleep", 5]), "spec.command[1]"),
    "command-long": Bad(job(command=["x" * 4097]), "spec.command[0]"),
    "argument-open": Bad(job(arguments=["lr=[0.1,0.2"]), "spec.arguments[0]"),
    "argument-closed": Bad(job(arguments=["lr=0.1]"]), "spec.arguments[0]"),
    "argument-nothing": Bad(job(arguments=["lr=[]"]), "spec.arguments[0]"),
    "argument-nested": Bad(job(arguments=["a=[[1,2]]"]), "spec.arguments[0]"),
    "argument-empty-value": Bad(job(arguments=["a=[1,,2]"]), "spec.arguments[0]"),
    "argument-newline": Bad(job(arguments=["a\nb"]), "spec.arguments[0]"),
    "argument-empty": Bad(job(arguments=[""]), "spec.arguments[0]"),
    "arguments-many": Bad(job(arguments=["a"] * 33), "spec.arguments"),
    "parallelism-zero": Bad(job(parallelism=0), "spec.parallelism"),
    "parallelism-many": Bad(job(parallelism=1001), "spec.parallelism"),
    "slurm-partition": Bad(job(slurm={"partition": "main --wrap=x"}), "spec.slurm.partition"),
    "slurm-time": Bad(job(slurm={"time": "2h"}), "spec.slurm.time"),
    "slurm-time-seconds": Bad(job(slurm={"time": "01:99"}), "spec.slurm.time"),
    "slurm-nodes": Bad(job(slurm={"nodes": 0}), "spec.slurm.nodes"),
    "slurm-tasks": Bad(
        job(slurm={"nodes": 3, "tasks": 2}), "spec.slurm.tasks", "`tasks` must not be less than `nodes`"
    ),
    "retry-many": Bad(job(retry={"limit": 11}), "spec.retry.limit"),
    "retry-word": Bad(job(retry={"onPreemption": "Restart"}), "spec.retry.onPreemption"),
    "timeout-zero": Bad(job(timeoutSeconds=0), "spec.timeoutSeconds"),
    "timeout-text": Bad(job(timeoutSeconds="1h"), "spec.timeoutSeconds"),
    "files-no-map": Bad(job(files={"workdir": {}}), "spec.files.workdir.configMapRef"),
    "files-map-name": Bad(
        job(files={"workdir": {"configMapRef": {"name": "../code"}}}), "spec.files.workdir.configMapRef.name"
    ),
    "env-nameless": Bad(job(env=[{"value": "x"}]), "spec.env[0].name"),
    "env-no-value": Bad(job(env=[{"name": "A"}]), "spec.env[0].value"),
    "env-name": Bad(job(env=[{"name": "A-B", "value": ""}]), "spec.env[0].name"),
    "env-twice": Bad(job(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "spec.env[1]"),
    "env-slurm": Bad(
        job(env=[{"name": "SLURM_CONF", "value": "/x"}]),
        "spec.env[0].name",
        "`name` must not begin with 'CLOUDMESH_' or 'SLURM_'",
    ),
    "env-own": Bad(
        job(env=[{"name": "CLOUDMESH_RUN", "value": "1"}]),
        "spec.env[0].name",
        "`name` must not begin with 'CLOUDMESH_' or 'SLURM_'",
    ),
    "outputs-empty": Bad(job(outputs={}), "spec.outputs.paths"),
    "outputs-none": Bad(job(outputs={"paths": []}), "spec.outputs.paths"),
    "outputs-absolute": Bad(
        job(outputs={"paths": ["/etc/passwd"]}),
        "spec.outputs.paths[0]",
        "an entry of `paths` must be a path in the run's folder, such as `results/*.csv`",
    ),
    "outputs-up": Bad(job(outputs={"paths": ["ok", "../x"]}), "spec.outputs.paths[1]", _STAY),
    "outputs-inside-up": Bad(job(outputs={"paths": ["a/../../x"]}), "spec.outputs.paths[0]", _STAY),
    "outputs-dot": Bad(job(outputs={"paths": ["."]}), "spec.outputs.paths[0]", _STAY),
    "outputs-spaces": Bad(job(outputs={"paths": ["a b"]}), "spec.outputs.paths[0]"),
    "files-none": Bad(job(files={}), "spec.files", "`files` must have at least one of `workdir` and `directory`"),
    "files-up": Bad(
        job(files={"directory": {"name": "lab", "path": "a/../b"}}),
        "spec.files.directory.path",
        "no part of `path` may be '.' or '..', nor its first one '.cloudmesh'",
    ),
    "files-slash": Bad(
        job(files={"directory": {"name": "lab", "path": "/a"}}),
        "spec.files.directory.path",
        "`path` must be a folder such as `raw/2024`, without a '/' at its beginning or end",
    ),
    "outputs-hidden": Bad(
        job(outputs={"paths": ["a"], "directoryRef": _REF, "path": ".cloudmesh/x"}),
        "spec.outputs.path",
        "no part of `path` may be '.' or '..', nor its first one '.cloudmesh'",
    ),
    "outputs-path-alone": Bad(
        job(outputs={"paths": ["a"], "path": "x"}), "spec.outputs.path", "`path` must be set only with `directoryRef`"
    ),
    "outputs-twice": Bad(job(outputs={"paths": ["a", "a"]}), "spec.outputs.paths[1]"),
}

UNKNOWN_JOBS: dict[str, tuple[Spec, str]] = {
    "unknown-image": (job(image="ubuntu"), "spec.image"),
    "unknown-directory": (job(outputs={"paths": ["a"], "directory": _REF}), "spec.outputs.directory"),
}

CHANGES: dict[str, tuple[str, Spec, Spec, str]] = {
    "cloud": ("CloudAccount", pods(), {"memory": {}}, "`spec` can't be changed to another cloud"),
    "region": ("CloudAccount", aws(), aws(region="us-east-2"), "`spec.aws.region` can't be changed"),
    "plugin": (
        "CloudAccount", {"plugin": {"name": "a"}}, {"plugin": {"name": "b"}}, "`spec.plugin.name` can't be changed"
    ),
    "plugin-cloud": (
        "CloudAccount", {"plugin": {"name": "a"}}, {"memory": {}}, "`spec` can't be changed to another cloud"
    ),
    "endpoint": ("CloudAccount", aws(), aws(endpoint="https://x.org"), "`spec.aws.endpoint` can't be changed"),
    "currency": ("Budget", {"amount": 1}, {"amount": 1, "currency": "EUR"}, "`spec.currency` can't be changed"),
    "command": ("ClusterJob", job(), job(command=["false"]), "`spec.command` can't be changed"),
    "job-cluster": ("ClusterJob", job(), job(clusterRef={"name": "b"}), "`spec.clusterRef` can't be changed"),
    "arguments": ("ClusterJob", job(), job(arguments=["a"]), "`spec.arguments` can't be changed"),
    "retry": ("ClusterJob", job(), job(retry={"limit": 1}), "`spec.retry` can't be changed"),
    "timeout": ("ClusterJob", job(timeoutSeconds=1), job(timeoutSeconds=2), "`spec.timeoutSeconds` can't be changed"),
    "env": ("ClusterJob", job(), job(env=[{"name": "A", "value": ""}]), "`spec.env` can't be changed"),
    "files": (
        "ClusterJob", job(), job(files={"workdir": {"configMapRef": _REF}}), "`spec.files` can't be changed"
    ),
    "outputs": ("ClusterJob", job(), job(outputs={"paths": ["a"]}), "`spec.outputs` can't be changed"),
    "slurm": ("ClusterJob", job(), job(slurm={"time": "5"}), "`spec.slurm` can't be changed"),
}  # fmt: skip
FINE_CHANGES: dict[str, tuple[str, Spec, Spec]] = {
    "amount": ("Budget", {"amount": 1}, {"amount": 2}),
    "parallelism": ("ClusterJob", job(), job(parallelism=2)),
    "plugin-settings": (
        "CloudAccount",
        {"plugin": {"name": "a"}},
        {"plugin": {"name": "a", "settings": {"size": "9"}}},
    ),
    "plugin-credentials": ("CloudAccount", {"plugin": {"name": "a"}}, {"plugin": {"name": "a"}, **_SECRET}),
    "credentials": ("CloudAccount", aws(), {**aws(), "credentials": {"secretRef": {"name": "other"}}}),
    "credentials-role": ("CloudAccount", aws(), {**aws(), **_ROLE}),
}
