"""Messages of Amazon SNS: an RSA signature by a certificate that only the pinned host hands out.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. The message is JSON whose fields are
signed, not its bytes, so it is parsed (strictly, bounded) before it can be verified, and not believed until then.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from lockstep.agent.authenticity.fetching import Fetch, Kept, NotThereError
from lockstep.agent.authenticity.signed import refuse_old
from lockstep.agent.delivery import Delivery, ForgedError
from lockstep.agent.source_settings import SnsSource
from lockstep.errors import ConfigError
from lockstep.rules.alerts.reading import AlertFormatError, moment, parse

_CONFIRMATIONS: Final = ("SubscriptionConfirmation", "UnsubscribeConfirmation")
_SIGNED: Final = ("Message", "MessageId", "SubscribeURL", "Subject", "Timestamp", "Token", "TopicArn", "Type")
_OF_NOTIFICATION: Final = frozenset(_SIGNED) - {"SubscribeURL", "Token"}
_OF_CONFIRMATION: Final = frozenset(_SIGNED) - {"Subject"}
_CERTIFICATE: Final = re.compile(r"/SimpleNotificationService-[0-9A-Za-z]{1,64}\.pem")
#: A certificate's address holds its digest, so what is there does not change; its own dates are looked at each time.
_KEEP: Final = 30 * 86400.0
_SMALLEST_KEY: Final = 2048
#: It signs messages and serves no page: what browsers ask of its extensions does not matter, its name does.
_LEAF: Final = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


class SnsMessage:
    """Accepts messages of the pinned topics that are signed by the pinned host's certificate."""

    def __init__(self, source: str, settings: SnsSource, fetch: Fetch) -> None:
        self._source = source
        self._settings = settings
        self._certificates = Kept(fetch, settings.timeout, _KEEP)
        self._roots = _roots(source, settings.signing_ca_file)

    def verify(self, delivery: Delivery) -> str:
        """Returns the message's identifier; raises ForgedError, and UnreachableError without the certificate."""
        message = self.message(delivery)
        if message.get("TopicArn") not in self._settings.topics:
            raise self._forged("the message is of a topic that is not pinned")
        version = message.get("SignatureVersion")
        if version not in self._settings.versions:
            raise self._forged("the signature's version is not one that is expected")
        certificate = message.get("SigningCertURL")
        if not isinstance(certificate, str) or not self._is_certificate(certificate):
            raise self._forged("the certificate's address is not on the pinned host")
        signature = _decoded(message.get("Signature"))
        if not signature:
            raise self._forged("the signature is missing or malformed")
        content = _content(message)
        if content is None:
            raise self._forged("a part that should be signed is missing")
        key = self._key(certificate, delivery.at)
        algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303 - what version 1 is made with
        try:
            key.verify(signature, content, padding.PKCS1v15(), algorithm)
        except InvalidSignature:
            raise self._forged("the signature is wrong") from None
        refuse_old(self._source, moment(message.get("Timestamp")), delivery.at, self._settings.window)
        return str(message["MessageId"])

    def message(self, delivery: Delivery) -> Mapping[str, object]:
        """The message, unverified; raises ForgedError for what is none."""
        try:
            document = parse(delivery.body, "the body")
        except AlertFormatError:
            # No more of it: whoever it comes from could have the log name ever new reasons.
            raise self._forged("the body is no message of SNS, which is JSON") from None
        if not isinstance(document, dict):
            raise self._forged("the body is no message of SNS")
        return document

    def is_confirmation(self, address: str) -> bool:
        """Whether an address confirms a subscription to a pinned topic at the pinned host, and does nothing else."""
        if not self._is_pinned(address):
            return False
        try:
            asked = parse_qs(urlsplit(address).query, max_num_fields=16)
        except ValueError:
            return False
        topics = asked.get("TopicArn", [])
        return (
            asked.get("Action") == ["ConfirmSubscription"] and len(topics) == 1 and topics[0] in self._settings.topics
        )

    def _is_certificate(self, address: str) -> bool:
        parts = urlsplit(address) if self._is_pinned(address) else None
        return parts is not None and not parts.query and _CERTIFICATE.fullmatch(parts.path) is not None

    def _is_pinned(self, address: str) -> bool:
        """Compared as text before anything takes it apart: readers of addresses disagree on odd ones."""
        start = f"https://{self._settings.pinned_host}/"
        if not address.startswith(start) or not address.isascii() or not address.isprintable():
            return False
        return not set(address[len(start) :]) & set(' \\#@<>"')

    def _key(self, address: str, at: float) -> rsa.RSAPublicKey:
        try:
            chain = x509.load_pem_x509_certificates(self._certificates.get(address))
        except NotThereError:
            raise self._forged("the pinned host has no such certificate") from None
        except ValueError:
            raise self._forged("what the pinned host answers is no certificate") from None
        leaf, now = chain[0], datetime.fromtimestamp(at, UTC)
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise self._forged("the certificate is not valid at this time")
        if self._settings.signer not in _names(leaf):
            raise self._forged("the certificate is made out to another name")
        if self._roots is not None:
            policy = PolicyBuilder().store(Store(self._roots)).time(now)
            policy = policy.extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=_LEAF)
            try:
                policy.build_server_verifier(x509.DNSName(self._settings.signer)).verify(leaf, chain[1:])
            except VerificationError:
                raise self._forged("the certificate does not lead to a trusted authority") from None
        key = leaf.public_key()
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _SMALLEST_KEY:
            raise self._forged("the certificate's key is not an RSA key of 2048 bits or more")
        return key

    def _forged(self, why: str) -> ForgedError:
        return ForgedError(f"source {self._source}: {why}")


def _content(message: Mapping[str, object]) -> bytes | None:
    """What is signed: names and values of the parts, each on its line, in the order of their names."""
    kind = message.get("Type")
    if kind == "Notification":
        names = _OF_NOTIFICATION if message.get("Subject") is not None else _OF_NOTIFICATION - {"Subject"}
    elif kind in _CONFIRMATIONS:
        names = _OF_CONFIRMATION
    else:
        return None
    lines = []
    for name in (name for name in _SIGNED if name in names):
        value = message.get(name)
        if not isinstance(value, str):
            return None
        lines.append(f"{name}\n{value}\n")
    return "".join(lines).encode("utf-8", errors="replace")


def _names(certificate: x509.Certificate) -> set[str]:
    common = {str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    try:
        more = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return common
    return common | set(more.get_values_for_type(x509.DNSName))


def _decoded(given: object) -> bytes:
    try:
        return base64.b64decode(given, validate=True) if isinstance(given, str) else b""
    except (binascii.Error, ValueError):
        return b""


def _roots(source: str, path: str | None) -> list[x509.Certificate] | None:
    if path is None:
        return None
    try:
        return x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"source {source}: signing_ca_file {path} cannot be read: {error}", hint="name a PEM file of certificates"
        ) from error
