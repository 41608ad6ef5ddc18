"""Bearer tokens of an identity provider: Pub/Sub's, Entra's; and what pretends to be one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from lockstep.agent.authenticity.oidc import OidcToken
from lockstep.agent.source_settings import OidcSettings
from lockstep.agent.sources import AlertFormatError, ForgedError, Source, open_source
from lockstep.errors import UnreachableError
from tests.deliveries import ADAPTER, TOKEN, Sent, changed, vector

JWKS = "https://keys.example/certs"
AUDIENCE = "https://lockstep.hospital.example/hooks/pubsub"
ACCOUNT = "alerts@hospital-ml.iam.gserviceaccount.com"
PUBSUB = {
    "kind": "google-pubsub",
    "audience": AUDIENCE,
    "service_accounts": [ACCOUNT],
    "jwks": JWKS,
    "subscriptions": ["projects/hospital-ml/subscriptions/lockstep"],
}
ENTRA = {
    "issuers": ["https://sts.windows.net/00000000-0000-0000-0000-000000000001/"],
    "audiences": ["api://lockstep"],
    "jwks": JWKS,
    "claims": {"appid": ["461e8683-5575-4561-ac7f-899cc907d62a"], "roles": ["ActionGroupsSecureWebhook"]},
}


@cache
def private(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def elliptic() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def listed(name: str = "one", **more: object) -> dict[str, object]:
    found = json.loads(RSAAlgorithm.to_jwk(private(name).public_key()))
    return {**found, "kid": name, "use": "sig", "alg": "RS256", **more}


@dataclass
class Keys:
    """What the issuer's server would answer."""

    keys: list[dict[str, object]] = field(default_factory=lambda: [listed()])
    asked: int = 0
    down: bool = False
    body: bytes | None = None

    def fetch(self, address: str, timeout: float) -> bytes:
        assert address == JWKS
        self.asked += 1
        if self.down:
            raise UnreachableError("no answer")
        return self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()


@pytest.fixture
def keys() -> Keys:
    return Keys()


def source(keys: Keys, settings: Mapping[str, object] = PUBSUB) -> Source:
    return open_source("here", ADAPTER.validate_python(settings), lambda ca_file: keys.fetch)


def claims(**more: object) -> dict[str, object]:
    now = int(time.time())
    own: dict[str, object] = {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "azp": "113774264463038321964",
        "email": ACCOUNT,
        "email_verified": True,
        "iat": now - 5,
        "exp": now + 3600,
    }
    own.update(more)
    return {name: value for name, value in own.items() if value is not None}


def token(
    own: Mapping[str, object] | None = None,
    *,
    signer: str = "one",
    kid: object = "one",
    header: Mapping[str, object] | None = None,
) -> str:
    headers = {**({"kid": kid} if kid is not None else {}), **(header or {})}
    return jwt.encode(claims(**(own or {})), private(signer), algorithm="RS256", headers=headers)


def pushed(bearer: str, body: bytes | None = None) -> Sent:
    return Sent(PUBSUB, body or vector("google-pubsub/wrapped.json"), {"Authorization": f"Bearer {bearer}"})


def refused(keys: Keys, bearer: str) -> str:
    with pytest.raises(ForgedError) as error:
        source(keys).receive(pushed(bearer).delivery())
    assert bearer[:20] not in str(error.value) or not bearer
    return str(error.value)


def handmade(header: Mapping[str, object], payload: object, signature: bytes = b"") -> str:
    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    return f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(payload).encode())}.{encoded(signature)}"


def public_pem() -> bytes:
    return (
        private("one")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def test_a_wrapped_message_of_the_service_account_is_believed(keys: Keys) -> None:
    (alert,) = source(keys).receive(pushed(token()).delivery()).alerts
    assert (alert.fields["labels.model"], alert.fields["attributes.origin"]) == ("tumour", "monitoring")
    assert alert.fields["subscription"] == "projects/hospital-ml/subscriptions/lockstep"


def test_an_unwrapped_message_needs_a_source_without_pinned_subscriptions(keys: Keys) -> None:
    sent = pushed(token(), vector("google-monitoring/open.json"))
    with pytest.raises(AlertFormatError, match="subscription"):
        source(keys).receive(sent.delivery())
    anyone = {name: value for name, value in PUBSUB.items() if name != "subscriptions"}
    assert source(keys, anyone).receive(sent.delivery()).alerts


def test_another_subscription_and_data_that_is_none_are_unreadable(keys: Keys) -> None:
    wrapped = vector("google-pubsub/wrapped.json")
    for body in (
        changed(wrapped, subscription="projects/hospital-ml/subscriptions/other"),
        changed(wrapped, message__data="%%%"),
        changed(wrapped, message__data=None),
        changed(wrapped, message__data=base64.b64encode(b"{").decode()),
        changed(wrapped, message=5),
    ):
        with pytest.raises(AlertFormatError):
            source(keys).receive(pushed(token(), body).delivery())


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://accounts.google.com.evil.example"},
        {"iss": None},
        {"aud": "https://elsewhere.example"},
        {"aud": None},
        {"aud": [AUDIENCE + "x"]},
        {"email": "someone@hospital-ml.iam.gserviceaccount.com"},
        {"email": None},
        {"email": 5},
        {"email_verified": False},
        {"email_verified": None},
        {"exp": int(time.time()) - 600},
        {"exp": None},
        {"iat": None},
        {"iat": int(time.time()) + 6000},
        {"nbf": int(time.time()) + 6000},
    ],
    ids=lambda wrong: re.sub(r"\d{10}", "a time", str(wrong)),  # the same in every process that collects the tests
)
def test_every_claim_counts(keys: Keys, wrong: dict[str, object]) -> None:
    refused(keys, token(wrong))


def test_a_token_of_another_key_is_forged(keys: Keys) -> None:
    assert "not believed" in refused(keys, token(signer="two"))
    for kid in ("two", "", None):
        refused(keys, token(kid=kid))


def test_the_algorithm_cannot_be_chosen_by_the_sender(keys: Keys) -> None:
    good = claims()
    secret = public_pem()
    header: dict[str, object] = {"alg": "HS256", "kid": "one", "typ": "JWT"}
    unsigned = handmade(header, good).rpartition(".")[0]
    confused = handmade(header, good, hmac.new(secret, unsigned.encode(), hashlib.sha256).digest())
    assert "algorithm" in refused(keys, confused)
    for name in ("none", "None", "NONE", "", None, "RS512", "PS256", "ES256", ["RS256"], {"RS256": 1}):
        assert "algorithm" in refused(keys, handmade({"alg": name, "kid": "one"}, good))
    # With the public key listed as if it were a secret, an HMAC with it still proves nothing.
    keys.keys = [{"kty": "oct", "kid": "one", "k": base64.urlsafe_b64encode(secret).decode()}]
    refused(keys, confused)
    refused(keys, token())


def test_a_key_in_the_token_is_not_used(keys: Keys) -> None:
    more: dict[str, object] = {"jwk": listed("two"), "jku": "https://evil.example/keys", "x5u": "https://evil.example/"}
    refused(keys, token(signer="two", header=more))
    refused(keys, token(signer="two", kid="two", header=more))


def test_keys_for_encryption_and_of_other_types_are_not_used(keys: Keys) -> None:
    keys.keys = [listed(use="enc"), {**json.loads(ECAlgorithm.to_jwk(elliptic().public_key())), "kid": "one"}]
    refused(keys, token())


def test_elliptic_curves_where_they_are_configured() -> None:
    found = Keys([{**json.loads(ECAlgorithm.to_jwk(elliptic().public_key())), "kid": "curve"}])
    settings = OidcSettings(
        issuers=("https://accounts.google.com",),
        audiences=(AUDIENCE,),
        jwks=JWKS,
        claims={"email": (ACCOUNT,)},
        algorithms=("ES256",),
    )
    bearer = jwt.encode(claims(), elliptic(), algorithm="ES256", headers={"kid": "curve"})
    assert OidcToken("here", settings, found.fetch).verify(pushed(bearer).delivery()) == ""
    with pytest.raises(ForgedError):
        OidcToken("here", settings, found.fetch).verify(pushed(token(kid="curve")).delivery())


def test_a_new_key_is_looked_for_but_a_flood_of_unknown_ones_asks_seldom(keys: Keys) -> None:
    opened = source(keys)
    assert opened.receive(pushed(token()).delivery()).alerts
    assert keys.asked == 1
    for number in range(30):
        with pytest.raises(ForgedError):
            opened.receive(pushed(token(kid=f"unknown-{number}")).delivery())
    assert keys.asked == 1


def test_keys_that_cannot_be_fetched_make_the_sender_try_again(keys: Keys) -> None:
    keys.down = True
    with pytest.raises(UnreachableError):
        source(keys).receive(pushed(token()).delivery())


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"keys": 5}', b'{"keys": [5]}', b'{"keys": [{"kid": "one", "kty": "RSA"}]}']
)
def test_answers_that_are_no_keys_are_our_trouble_not_the_senders(keys: Keys, body: bytes) -> None:
    keys.body = body
    with pytest.raises(UnreachableError):
        source(keys).receive(pushed(token()).delivery())


def test_fetched_keys_are_believed_while_their_server_is_down() -> None:
    found = Keys()
    settings = replace_keys_for(0.000001)
    verifier = OidcToken("here", settings, found.fetch)
    verifier.verify(pushed(token()).delivery())
    found.down = True
    verifier.verify(pushed(token()).delivery())
    assert found.asked > 1


def replace_keys_for(seconds: float) -> OidcSettings:
    return OidcSettings(
        issuers=("https://accounts.google.com",),
        audiences=(AUDIENCE,),
        jwks=JWKS,
        claims={"email": (ACCOUNT,)},
        keys_for=seconds,
    )


def test_entras_token_for_a_secure_webhook(keys: Keys) -> None:
    settings = {"kind": "azure-monitor", "oidc": ENTRA, "tokens": [TOKEN]}
    right: dict[str, object] = {
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000001/",
        "aud": "api://lockstep",
        "appid": "461e8683-5575-4561-ac7f-899cc907d62a",
        "roles": ["Other", "ActionGroupsSecureWebhook"],
    }
    body = vector("azure-monitor/metric.json")
    sent = Sent(settings, body, {"Authorization": f"Bearer {token(right)}"})
    opened = source(keys, settings)
    assert opened.receive(sent.delivery()).alerts
    # Where both are configured the shared token will do as well; a wrong one is no better than none.
    assert opened.receive(replace(sent, headers={}, query=f"token={TOKEN}").delivery()).alerts
    for wrong in ({"roles": ["Other"]}, {"appid": "another"}, {"aud": "api://other"}):
        bad = replace(sent, headers={"Authorization": f"Bearer {token({**right, **wrong})}"})
        with pytest.raises(ForgedError):
            opened.receive(bad.delivery())
    with pytest.raises(ForgedError):
        opened.receive(replace(sent, headers={}, query="token=wrong").delivery())


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer a.b", "Bearer a.b.c", "Bearer " + "x" * 20_000]
)
def test_what_is_no_token_is_forged(keys: Keys, header: str) -> None:
    with pytest.raises(ForgedError):
        source(keys).receive(replace(pushed(""), headers={"Authorization": header}).delivery())


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip"]),
        st.sampled_from([None, 1, "RS256", "one", [], {}, True, ["b64"]]),
    ),
    st.none()
    | st.integers()
    | st.text()
    | st.lists(st.integers())
    | st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    st.binary(max_size=20),
)
def test_no_made_up_token_gets_in(header: dict[str, object], payload: object, signature: bytes) -> None:
    refused(Keys(), handmade(header, payload, signature))


@given(st.text(max_size=60))
def test_no_text_is_a_token(text: str) -> None:
    sent = replace(pushed(""), headers={"Authorization": "Bearer " + text.encode().decode("latin-1")})
    with pytest.raises(ForgedError):
        source(Keys()).receive(sent.delivery())
