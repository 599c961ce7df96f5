"""What a pod may reach and with which keys: registry, hub, object store, proxy, certificates. Modifiers as in pods.py.

Secrets are named, never read: their values stand in no object of ours.
"""

from typing import Final

from ltx2_operator.pods import Context, Pod, env, volume

CERTIFICATES: Final = "/etc/ltx2-ca"
# Each of these libraries looks at one variable alone: OpenSSL and httpx, requests, botocore, curl and git.
CERTIFICATE_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Keys of the Secret of an object store, which are the variables of the AWS tools; False: may be missing.
OBJECT_STORE_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": True, "AWS_SECRET_ACCESS_KEY": True,
    "AWS_SESSION_TOKEN": False, "AWS_ENDPOINT_URL": False, "AWS_REGION": False,
}  # fmt: skip


def registry(pod: Pod, context: Context) -> None:
    """Secrets for the registry of the images."""
    if context.settings.image_pull_secrets:
        pod["spec"]["imagePullSecrets"] = [{"name": name} for name in context.settings.image_pull_secrets]


def hub(pod: Pod, context: Context) -> None:
    """The installation's mirror of the hub, or none at all; the hub's token, where its Secret is named."""
    if context.settings.hub_endpoint:
        env(pod, "HF_ENDPOINT", context.settings.hub_endpoint)
    if context.settings.hub_offline:
        env(pod, "HF_HUB_OFFLINE", "1")
    secret = context.training.spec.secrets.hub_token
    if secret is not None:
        env(pod, "HF_TOKEN", {"secretKeyRef": {"name": secret.name, "key": secret.key}})


def object_store(pod: Pod, context: Context) -> None:
    """The credentials of an object store under the names of the AWS tools, which are the Secret's keys."""
    name = context.training.spec.secrets.object_store
    if name is None:
        return
    for key, needed in OBJECT_STORE_KEYS.items():
        reference = {"name": name, "key": key} if needed else {"name": name, "key": key, "optional": True}
        env(pod, key, {"secretKeyRef": reference})


def proxy(pod: Pod, context: Context) -> None:
    """The way out of the cluster, in both cases: some programs read only the one, some only the other.

    The peers of a run on several nodes are never behind it.
    """
    found = context.settings.proxy
    direct = [found.no] if found.no else []
    if found.http or found.https:
        direct += ["localhost", "127.0.0.1", context.service] if context.plan.nodes > 1 else ["localhost", "127.0.0.1"]
    for name, value in {"HTTP_PROXY": found.http, "HTTPS_PROXY": found.https, "NO_PROXY": ",".join(direct)}.items():
        if value:
            env(pod, name, value)
            env(pod, name.lower(), value)


def certificates(pod: Pod, context: Context) -> None:
    """The certificates to trust, from a ConfigMap of the training's namespace, for every library that asks for them."""
    ca = context.settings.ca
    if ca is None:
        return
    source = {"configMap": {"name": ca.config_map, "items": [{"key": ca.key, "path": "ca.crt"}]}}
    volume(pod, "ca", source, CERTIFICATES, read_only=True)
    for name in CERTIFICATE_VARIABLES:
        env(pod, name, f"{CERTIFICATES}/ca.crt")
