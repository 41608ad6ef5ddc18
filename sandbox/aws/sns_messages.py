"""SNS's messages to HTTP subscribers: their documents, what of them is signed, and the signature.

Format: "Parsing message formats" and "Verifying the signatures of Amazon SNS messages" in SNS's developer guide. The
string to sign holds the name and the value of each member, a line each, in byte order of the names. Signature version
1 is RSA (PKCS 1 v1.5) over SHA-1, version 2 over SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CONFIRMATION: Final = "SubscriptionConfirmation"
NOTIFICATION: Final = "Notification"
REMOVAL: Final = "UnsubscribeConfirmation"
SIGNED: Final[Mapping[str, tuple[str, ...]]] = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    CONFIRMATION: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    REMOVAL: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
AGENT: Final = "Amazon Simple Notification Service Agent"

Kind = Literal["SubscriptionConfirmation", "Notification", "UnsubscribeConfirmation"]


class Signer:
    """The signing certificate with its key, and the address that serves it and takes confirmations."""

    def __init__(self, certificate: Path, key: Path) -> None:
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(loaded, rsa.RSAPrivateKey):
            raise TypeError(f"SNS signs with RSA, not with {type(loaded).__name__}")
        self._key = loaded
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
        self.pem: Final = parsed.public_bytes(serialization.Encoding.PEM)
        digest = hashlib.sha256(parsed.public_bytes(serialization.Encoding.DER)).hexdigest()
        self.path: Final = f"/SimpleNotificationService-{digest[:32]}.pem"
        self.address = ""

    def confirmation(self, kind: Kind, topic: str, subscription: str, token: str, version: str) -> dict[str, str]:
        """A SubscriptionConfirmation or, when a subscription ended, an UnsubscribeConfirmation."""
        if kind == CONFIRMATION:
            chosen = f"You have chosen to subscribe to the topic {topic}.\nTo confirm the subscription"
        else:
            chosen = (
                f"You have chosen to deactivate subscription {subscription}.\n"
                "To cancel this operation and restore the subscription"
            )
        document = {
            "Type": kind,
            "MessageId": str(uuid.uuid4()),
            "Token": token,
            "TopicArn": topic,
            "Message": f"{chosen}, visit the SubscribeURL included in this message.",
            "SubscribeURL": self._link("ConfirmSubscription", TopicArn=topic, Token=token),
            "Timestamp": _timestamp(),
        }
        return {**document, **self._signature(document, version)}

    def notification(
        self, topic: str, subscription: str, message_id: str, message: str, subject: str | None, version: str
    ) -> dict[str, str]:
        """A Notification; message attributes, which are not signed, are for the caller to add."""
        document = {"Type": NOTIFICATION, "MessageId": message_id, "TopicArn": topic}
        if subject is not None:
            document["Subject"] = subject
        document |= {"Message": message, "Timestamp": _timestamp()}
        link = {"UnsubscribeURL": self._link("Unsubscribe", SubscriptionArn=subscription)}
        return {**document, **self._signature(document, version), **link}

    def _link(self, action: str, **values: str) -> str:
        return f"{self.address}/?{urlencode({'Action': action, **values}, safe=':', quote_via=quote)}"

    def _signature(self, document: Mapping[str, str], version: str) -> dict[str, str]:
        algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()  # noqa: S303 - version 1 is SHA-1
        signature = self._key.sign(string_to_sign(document).encode(), padding.PKCS1v15(), algorithm)
        return {
            "SignatureVersion": version,
            "Signature": base64.b64encode(signature).decode(),
            "SigningCertURL": self.address + self.path,
        }


def string_to_sign(document: Mapping[str, str]) -> str:
    """The text that a document's signature is of."""
    names = (name for name in SIGNED[document["Type"]] if name in document)
    return "".join(f"{name}\n{document[name]}\n" for name in names)


def body(document: Mapping[str, object]) -> bytes:
    """A document as it is sent."""
    return json.dumps(document, indent=2, separators=(",", " : "), ensure_ascii=False).encode()


def headers(kind: Kind, message_id: str, topic: str, subscription: str = "", *, raw: bool = False) -> dict[str, str]:
    """The headers of a message to an HTTP subscriber."""
    made = {
        "x-amz-sns-message-type": kind,
        "x-amz-sns-message-id": message_id,
        "x-amz-sns-topic-arn": topic,
        "Content-Type": "text/plain; charset=UTF-8",
        "User-Agent": AGENT,
    }
    if subscription:
        made["x-amz-sns-subscription-arn"] = subscription
    if raw:
        made["x-amz-sns-rawdelivery"] = "true"
    return made


def _timestamp() -> str:
    at = datetime.now(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
