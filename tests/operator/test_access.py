"""What a pod may reach, and with which keys: each modifier alone."""

from ltx2_operator import access
from ltx2_operator.settings import CertificateAuthority, Proxy, Settings
from pod_parts import applied, container, env, mounts
from trainings import context, plan

EMPTY = {"spec": {"containers": [{"name": "job"}]}}


def test_hub() -> None:
    assert env(applied(access.hub, context())) == {}
    for given, key in (({"name": "hub"}, "token"), ({"name": "hub", "key": "HF"}, "HF")):
        pod = applied(access.hub, context(secrets={"hubToken": given}))
        assert env(pod) == {"HF_TOKEN": {"secretKeyRef": {"name": "hub", "key": key}}}


def test_hub_of_the_installation() -> None:
    pod = applied(access.hub, context(settings=Settings(hub_endpoint="https://hub.lan")))
    assert env(pod) == {"HF_ENDPOINT": "https://hub.lan"}
    assert env(applied(access.hub, context(settings=Settings(hub_offline=True)))) == {"HF_HUB_OFFLINE": "1"}


def test_registry() -> None:
    assert applied(access.registry, context()) == EMPTY
    pod = applied(access.registry, context(settings=Settings(image_pull_secrets=("a", "b"))))
    assert pod["spec"]["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_object_store() -> None:
    """Two keys must be there, or the pod does not start; the others may be missing."""
    assert applied(access.object_store, context()) == EMPTY
    for name in ("store", "other"):
        found = env(applied(access.object_store, context(secrets={"objectStore": name})))
        assert {key: value["secretKeyRef"].pop("optional", False) for key, value in found.items()} == {
            "AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False,
            "AWS_SESSION_TOKEN": True, "AWS_ENDPOINT_URL": True, "AWS_REGION": True,
        }  # fmt: skip
        assert all(value == {"secretKeyRef": {"name": name, "key": key}} for key, value in found.items())


def test_proxy() -> None:
    assert applied(access.proxy, context()) == EMPTY
    both = Settings(proxy=Proxy(http="http://a:1", https="http://b:2", no=".lan"))
    found = env(applied(access.proxy, context(settings=both)))
    assert {key: value for key, value in found.items() if key.isupper()} == {
        "HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2", "NO_PROXY": ".lan,localhost,127.0.0.1",
    }  # fmt: skip
    assert all(found[key.lower()] == found[key] for key in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"))
    peers = env(applied(access.proxy, context(plan(nodes=2), both, nodes=2)))
    assert peers["no_proxy"] == ".lan,localhost,127.0.0.1,my-style-peers"
    only = env(applied(access.proxy, context(settings=Settings(proxy=Proxy(https="http://b:2")))))
    assert set(only) == {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}


def test_certificates() -> None:
    assert applied(access.certificates, context()) == EMPTY
    for name, key in (("company-ca", "ca.crt"), ("bundle", "all.pem")):
        pod = applied(
            access.certificates, context(settings=Settings(ca=CertificateAuthority(config_map=name, key=key)))
        )
        (volume,) = pod["spec"]["volumes"]
        assert volume["configMap"] == {"name": name, "items": [{"key": key, "path": "ca.crt"}]}
        assert mounts(pod) == {"ca": "/etc/ltx2-ca"}
        assert container(pod)["volumeMounts"][0]["readOnly"] is True
        variables = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE")
        assert env(pod) == dict.fromkeys(variables, "/etc/ltx2-ca/ca.crt")
