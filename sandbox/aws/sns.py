"""SNS's topics with HTTP subscribers: confirmation, filters, signatures; moto keeps the topics themselves."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from moto.sns.models import SNSBackend, Subscription, Topic, sns_backends

from sandbox.aws.errors import AwsError, not_implemented
from sandbox.aws.sns_delivery import DEFAULT, Deliveries, Delivery, retry_delays
from sandbox.aws.sns_messages import CONFIRMATION, NOTIFICATION, REMOVAL, Kind, Signer, body, headers
from sandbox.aws.state import ACCOUNT, REGION

PROTOCOLS: Final = ("http", "https")
#: Content types that a delivery policy may ask for.
TYPES: Final = ("text/plain", "application/json", "text/xml", "application/xml", "text/html", "text/csv")


class Topics(SNSBackend):
    """The backend that moto's SNS front asks once `install()` has put it there."""

    def __init__(self, signer: Signer, deliveries: Deliveries) -> None:
        super().__init__(REGION, ACCOUNT)
        self._signer = signer
        self._deliveries = deliveries
        self._guard = threading.RLock()
        self._tokens: dict[str, HttpSubscription] = {}
        self._answer: Callable[..., Any] | None = None

    def install(self, answer: Callable[..., Any]) -> None:
        """Replace moto's backend of this account and region; `answer` is a moto front's `dispatch`."""
        self._answer = answer
        sns_backends[ACCOUNT][REGION] = self

    @property
    def url_paths(self) -> dict[str, Callable[..., Any]]:
        """Lead moto's SNS path to our answers."""
        return super().url_paths if self._answer is None else {"/$": self._answer}

    def subscribe(self, topic_arn: str, endpoint: str, protocol: str) -> Subscription:
        """A subscription, to be confirmed by the endpoint before it gets anything; asked again, it is asked again."""
        if protocol not in PROTOCOLS:
            raise not_implemented(f"Subscribe with protocol {protocol}")
        if not endpoint.startswith(f"{protocol}://"):
            raise AwsError("InvalidParameter", "Invalid parameter: Endpoint must match the specified protocol")
        with self._guard:
            topic = self.get_topic(topic_arn)
            found = self._find_subscription(topic_arn, endpoint, protocol)
            if isinstance(found, HttpSubscription):
                made = found
            else:
                made = HttpSubscription(topic, endpoint, protocol, self._signer, self._deliveries)
                self.subscriptions[made.arn] = made
                self._tokens[made.token] = made
            if not made.confirmed:
                made.ask(CONFIRMATION)
        return made

    def confirm(self, topic_arn: str, token: str, *, authenticated: bool, guarded: bool = False) -> str:
        """ConfirmSubscription; returns the subscription's ARN. `guarded`: only signed requests may unsubscribe."""
        with self._guard:
            if topic_arn not in self.topics:
                raise AwsError("NotFound", "Topic does not exist", 404)
            subscription = self._tokens.get(token)
            if subscription is None or subscription.topic.arn != topic_arn:
                raise AwsError("InvalidParameter", "Invalid parameter: Token")
            subscription.confirm(authenticated=authenticated, guarded=guarded)
            self.subscriptions[subscription.arn] = subscription
            return subscription.arn

    def leave(self, arn: str, *, authenticated: bool) -> None:
        """Unsubscribe; the endpoint is told, with a token by which it can come back."""
        with self._guard:
            subscription = self.subscriptions.get(arn)
            if not isinstance(subscription, HttpSubscription):
                return
            if not subscription.confirmed:
                raise AwsError("InvalidParameter", "Invalid parameter: This subscription is pending confirmation")
            if subscription.guarded and not authenticated:
                raise AwsError("AuthorizationError", "Only a signed request may end this subscription", 403)
            del self.subscriptions[arn]
            subscription.confirmed = False
            subscription.ask(REMOVAL)

    def unsubscribe(self, subscription_arn: str) -> None:
        """Unsubscribe by a signed request."""
        self.leave(subscription_arn, authenticated=True)

    def delete_topic(self, arn: str) -> None:
        """Delete a topic with its subscriptions, which cannot be confirmed any more."""
        with self._guard:
            super().delete_topic(arn)
            self._tokens = {token: kept for token, kept in self._tokens.items() if kept.topic.arn != arn}

    def publish(self, *given: Any, **named: Any) -> str:
        """Publish; returns the message's id."""
        with self._guard:
            return super().publish(*given, **named)

    def announce(self, topic_arn: str, subject: str, message: str) -> None:
        """Publish as a service of the account does; raises KeyError when there is no such topic."""
        with self._guard:
            self.topics[topic_arn].publish(message, subject=subject)

    def of(self, topic_arn: str | None = None) -> list[HttpSubscription]:
        """The subscriptions of one topic or of all, oldest first."""
        with self._guard:
            known = [each for each in self.subscriptions.values() if isinstance(each, HttpSubscription)]
        return [each for each in known if topic_arn in (None, each.topic.arn)]


class HttpSubscription(Subscription):
    """One HTTP address of a topic."""

    def __init__(self, topic: Topic, endpoint: str, protocol: str, signer: Signer, deliveries: Deliveries) -> None:
        super().__init__(ACCOUNT, topic, endpoint, protocol)
        self.token: Final = secrets.token_hex(128)
        self.guarded = False
        self._signer = signer
        self._deliveries = deliveries
        self.attributes = {
            "Endpoint": endpoint,
            "TopicArn": topic.arn,
            "Protocol": protocol,
            "SubscriptionArn": self.arn,
            "Owner": ACCOUNT,
            "RawMessageDelivery": False,
            "PendingConfirmation": True,
            "ConfirmationWasAuthenticated": False,
        }

    def confirm(self, *, authenticated: bool, guarded: bool) -> None:
        """Messages are delivered from now on."""
        self.confirmed = True
        self.guarded = guarded
        self.attributes |= {"PendingConfirmation": False, "ConfirmationWasAuthenticated": authenticated}

    def ask(self, kind: Kind) -> None:
        """Send the message whose SubscribeURL confirms, or restores, this subscription."""
        document = self._signer.confirmation(kind, self.topic.arn, self.arn, self.token, signature_version(self.topic))
        told = self.arn if kind == REMOVAL else ""
        self._send(body(document), headers(kind, document["MessageId"], self.topic.arn, told))

    def publish(
        self,
        message: str,
        message_id: str,
        subject: str | None = None,
        message_attributes: dict[str, Any] | None = None,
        group_id: str | None = None,
        deduplication_id: str | None = None,
        message_structure: str | None = None,
    ) -> None:
        """Queue a notification, unless the subscription is not confirmed or its filter policy does not match."""
        matcher = self._filter_policy_matcher
        if not self.confirmed or (matcher is not None and not matcher.matches(message_attributes, message)):
            return
        if message_structure == "json":
            message = of_protocol(message, self.protocol)
        raw = bool(self.attributes.get("RawMessageDelivery"))
        made = headers(NOTIFICATION, message_id, self.topic.arn, self.arn, raw=raw)
        made["Content-Type"] = self._content_type()
        if raw:
            self._send(message.encode(), made)
            return
        version = signature_version(self.topic)
        document: dict[str, object] = dict(
            self._signer.notification(self.topic.arn, self.arn, message_id, message, subject, version)
        )
        if message_attributes:
            document["MessageAttributes"] = message_attributes
        self._send(body(document), made)

    def effective_policy(self) -> dict[str, Any]:
        """The delivery policy in force: the topic's, or the subscription's where it may have one."""
        of_topic = json.loads(self.topic.delivery_policy or "{}").get("http", {})
        own = json.loads(self.attributes.get("DeliveryPolicy") or "{}")
        if of_topic.get("disableSubscriptionOverrides"):
            own = {}
        retries = own.get("healthyRetryPolicy") or of_topic.get("defaultHealthyRetryPolicy") or {}
        request = own.get("requestPolicy") or of_topic.get("defaultRequestPolicy") or {}
        return {
            "healthyRetryPolicy": {**DEFAULT, **retries},
            "requestPolicy": {"headerContentType": "text/plain; charset=UTF-8", **request},
        }

    def _content_type(self) -> str:
        asked = str(self.effective_policy()["requestPolicy"]["headerContentType"])
        return asked if "charset" in asked else f"{asked}; charset=UTF-8"

    def _send(self, content: bytes, made: Mapping[str, str]) -> None:
        delays = retry_delays(self.effective_policy()["healthyRetryPolicy"])
        self._deliveries.send(Delivery(self.endpoint, content, made, delays, self.topic.name))


def signature_version(topic: Topic) -> str:
    """`1` or `2`, as the topic's attribute says; 1 by default."""
    return str(getattr(topic, "signature_version", "1"))


def of_protocol(message: str, protocol: str) -> str:
    """What a message with MessageStructure json says to one protocol; raises AwsError for what SNS refuses."""
    parsed: object = None
    with contextlib.suppress(ValueError):
        parsed = json.loads(message)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("default"), str):
        what = "JSON message body failed to parse" if parsed is None else "No default entry in JSON message body"
        raise AwsError("InvalidParameter", f"Invalid parameter: Message Structure - {what}")
    return str(parsed.get(protocol, parsed["default"]))


def check_policy(text: str, scope: str) -> None:
    """Refuse a delivery policy that SNS would refuse; `scope` is "topic" or "subscription"."""
    try:
        policy = json.loads(text or "{}")
        if scope == "topic":
            policy = policy.get("http", {})
        retries = policy.get("healthyRetryPolicy" if scope == "subscription" else "defaultHealthyRetryPolicy") or {}
        request = policy.get("requestPolicy" if scope == "subscription" else "defaultRequestPolicy") or {}
        throttled = policy.get("throttlePolicy") or policy.get("defaultThrottlePolicy")
        kind = request.get("headerContentType", TYPES[0]).partition(";")[0]
    except (ValueError, AttributeError) as error:
        raise AwsError("InvalidParameter", f"Invalid parameter: DeliveryPolicy: {error}") from error
    if throttled:
        raise not_implemented("DeliveryPolicy with a throttle policy")
    if kind not in TYPES:
        raise AwsError("InvalidParameter", f"Invalid parameter: DeliveryPolicy: headerContentType {kind}")
    retry_delays(retries)
