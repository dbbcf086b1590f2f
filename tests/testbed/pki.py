"""Certificates and kubeconfigs of the test bed's own cluster. Keys are P-256, made anew at every start."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = datetime.timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as PEM (PKCS 8, not encrypted)."""
        return _private_pem(self.key)

    def write(self, folder: Path, name: str) -> None:
        """Write `name.crt` and `name.key` (mode 0600) into the folder."""
        (folder / f"{name}.crt").write_bytes(self.certificate_pem)
        key = folder / f"{name}.key"
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject(name: str, group: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def issue(name: str, *, group: str = "", names: Sequence[str] = (), issuer: Pair | None = None) -> Pair:
    """Make a key and a certificate for it.

    Args:
        name: common name; Kubernetes reads it as the user.
        group: organization; Kubernetes reads it as the group.
        names: alternative names, DNS names and IP addresses.
        issuer: the authority that signs; None makes a self-signed authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(name, group))
        .issuer_name(issuer.certificate.subject if issuer else _subject(name, group))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=issuer is None, crl_sign=issuer is None,
                content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if issuer is not None:
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(authority, critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def write_kubeconfig(target: Path, server: str, authority: Pair, user: Pair) -> None:
    """Write a kubeconfig (mode 0600) with one context, called `bed`; JSON, which is YAML too."""

    def encoded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    cluster = {"server": server, "certificate-authority-data": encoded(authority.certificate_pem)}
    credentials = {
        "client-certificate-data": encoded(user.certificate_pem),
        "client-key-data": encoded(user.key_pem),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bed",
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
        "clusters": [{"name": "bed", "cluster": cluster}],
        "users": [{"name": "bed", "user": credentials}],
    }
    target.touch(mode=0o600)
    target.write_text(json.dumps(document, indent=1) + "\n")


def write_all(state: Path, node_address: str, service_address: str, node_name: str) -> None:
    """Make every certificate of the cluster in `state/pki`, kubeconfigs in `state/conf`, and `state/kubeconfig`.

    Args:
        state: the bed's folder.
        node_address: address of the node and of the API server.
        service_address: ClusterIP of the Service `kubernetes`.
        node_name: name of the one node.
    """
    folder, conf = state / "pki", state / "conf"
    authority, front_proxy = issue("testbed-ca"), issue("testbed-front-proxy-ca")
    authority.write(folder, "ca")
    front_proxy.write(folder, "front-proxy-ca")
    service_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names = [*service_names, "kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1"]
    issue("kube-apiserver", names=[*names, node_address, service_address], issuer=authority).write(folder, "apiserver")
    issue("apiserver-kubelet-client", group="system:masters", issuer=authority).write(folder, "kubelet-client")
    issue("front-proxy-client", issuer=front_proxy).write(folder, "front-proxy-client")

    tokens = ec.generate_private_key(ec.SECP256R1())
    (folder / "sa.key").touch(mode=0o600)
    (folder / "sa.key").write_bytes(_private_pem(tokens))
    public = tokens.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "sa.pub").write_bytes(public.public_bytes(serialization.Encoding.PEM, form))

    admin = issue("admin", group="system:masters", issuer=authority)
    admin.write(folder, "admin")
    users = {
        "admin": admin,
        "controller-manager": issue("system:kube-controller-manager", issuer=authority),
        "scheduler": issue("system:kube-scheduler", issuer=authority),
        "proxy": issue("system:kube-proxy", issuer=authority),
        "kubelet": issue(f"system:node:{node_name}", group="system:nodes", issuer=authority),
    }
    for name, user in users.items():
        write_kubeconfig(conf / f"{name}.kubeconfig", "https://127.0.0.1:6443", authority, user)
    write_kubeconfig(state / "kubeconfig", f"https://{node_address}:6443", authority, admin)
