"""A certificate authority of the cluster's own, and who may call its API server under which name."""

import base64
import json
import secrets
import subprocess
from pathlib import Path

# Each part under its real name, so that the audit log tells them apart and RBAC holds for them as on any cluster.
PARTS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    # What plays a cloud's parts of a cluster: volumes, and the labels and capacities of devices.
    "platform": ("platform", "system:masters"),
    "dns": ("system:dns", "system:masters"),
}
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]


def make_authority(folder: Path, names: list[str], addresses: list[str]) -> None:
    """Write ca.*, api.* (a server of these names) and sa.* (which signs the tokens of service accounts)."""
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(folder, "req", "-x509", *_KEY, "-subj", "/CN=cluster-ca", "-keyout", "ca.key", "-out", "ca.crt")
    alternatives = ",".join([*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)])
    leaf = ["-addext", f"subjectAltName={alternatives}", "-addext", "extendedKeyUsage=serverAuth"]
    leaf += ["-addext", "basicConstraints=critical,CA:FALSE", "-CA", "ca.crt", "-CAkey", "ca.key"]
    _openssl(
        folder, "req", "-x509", *_KEY, "-subj", "/CN=kube-apiserver", *leaf, "-keyout", "api.key", "-out", "api.crt"
    )
    _openssl(folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", "sa.key")
    _openssl(folder, "pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def make_users(folder: Path, nodes: list[str]) -> dict[str, str]:
    """Write tokens.csv for the parts and the kubelets of these nodes; returns each one's token."""
    users = dict(PARTS)
    users.update({node: (f"system:node:{node}", "system:nodes") for node in nodes})
    tokens = {part: secrets.token_hex(16) for part in users}
    lines = [f'{tokens[part]},{name},{name},"{group}"\n' for part, (name, group) in users.items()]
    table = folder / "tokens.csv"
    table.touch(mode=0o600)
    table.write_text("".join(lines))
    return tokens


def write_kubeconfig(path: Path, authority: Path, server: str, user: str, token: str) -> Path:
    """Write a kubeconfig (JSON is YAML) for one user."""
    ca = base64.b64encode(authority.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "ltx2", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "ltx2", "context": {"cluster": "ltx2", "user": user}}],
        "current-context": "ltx2",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
    return path


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {' '.join(arguments)}: {done.stderr}")
