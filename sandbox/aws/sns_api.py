"""SNS as it is asked: signed requests by moto's front, and what anyone may ask over HTTPS.

Without a signature three things are answered, as by the service: the signing certificate, ConfirmSubscription by the
token of a SubscribeURL, and Unsubscribe by an UnsubscribeURL.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from moto.core.responses import ActionResult, EmptyResult
from moto.sns.responses import SNSResponse
from werkzeug.wrappers import Request, Response

from sandbox.aws.errors import AwsError, not_implemented
from sandbox.aws.shapes import check, service
from sandbox.aws.sns import HttpSubscription, Topics, check_policy, signature_version
from sandbox.aws.sns_messages import Signer
from sandbox.aws.state import CLOUD
from sandbox.world import World

PUBLIC: Final = ("ConfirmSubscription", "Unsubscribe")
CERTIFICATE: Final = "GetSigningCertificate"
NAMESPACE: Final = "http://sns.amazonaws.com/doc/2010-03-31/"
PAGE: Final = 100


class Answers(SNSResponse):
    """Topics and HTTP subscriptions; `answers()` makes the class that knows the sandbox's."""

    world: World
    topics: Topics

    def create_topic(self) -> ActionResult:
        """CreateTopic."""
        given = self._checked("CreateTopic")
        for name, value in (given.get("Attributes") or {}).items():
            _check_attribute(name, value)
        return super().create_topic()

    def set_topic_attributes(self) -> ActionResult:
        """SetTopicAttributes."""
        given = self._checked("SetTopicAttributes")
        _check_attribute(given["AttributeName"], given.get("AttributeValue", ""))
        return super().set_topic_attributes()

    def get_topic_attributes(self) -> ActionResult:
        """GetTopicAttributes."""
        answer: Any = super().get_topic_attributes().result
        topic = self.topics.get_topic(self._checked("GetTopicAttributes")["TopicArn"])
        confirmed = [each.confirmed for each in self.topics.of(topic.arn)]
        answer["Attributes"] |= {
            "SignatureVersion": signature_version(topic),
            "SubscriptionsConfirmed": str(sum(confirmed)),
            "SubscriptionsPending": str(len(confirmed) - sum(confirmed)),
        }
        return ActionResult(answer)

    def subscribe(self) -> ActionResult:
        """Subscribe: answers `pending confirmation` until it is confirmed, or the ARN for ReturnSubscriptionArn."""
        given = self._checked("Subscribe")
        for name, value in (given.get("Attributes") or {}).items():
            _check_subscription_attribute(name, value)
        if not given.get("Endpoint"):
            raise AwsError("InvalidParameter", "Invalid parameter: Endpoint")
        if self.world.faults.take(CLOUD, "Subscribe", ("ignore",)) is not None:
            return ActionResult({"SubscriptionArn": "pending confirmation"})
        answer: Any = super().subscribe().result
        made = self.topics.subscriptions[answer["SubscriptionArn"]]
        if not made.confirmed and not given.get("ReturnSubscriptionArn"):
            answer = {"SubscriptionArn": "pending confirmation"}
        return ActionResult(answer)

    def confirm_subscription(self) -> ActionResult:
        """ConfirmSubscription by the API."""
        given = self._checked("ConfirmSubscription")
        guarded = str(given.get("AuthenticateOnUnsubscribe", "")).lower() == "true"
        arn = self.topics.confirm(given["TopicArn"], given["Token"], authenticated=True, guarded=guarded)
        return ActionResult({"SubscriptionArn": arn})

    def list_subscriptions(self) -> ActionResult:
        """ListSubscriptions."""
        return _page(self.topics.of(), self._checked("ListSubscriptions"))

    def list_subscriptions_by_topic(self) -> ActionResult:
        """ListSubscriptionsByTopic."""
        given = self._checked("ListSubscriptionsByTopic")
        return _page(self.topics.of(self.topics.get_topic(given["TopicArn"]).arn), given)

    def get_subscription_attributes(self) -> ActionResult:
        """GetSubscriptionAttributes."""
        answer: Any = super().get_subscription_attributes().result
        made = self.topics.subscriptions[answer["Attributes"]["SubscriptionArn"]]
        if isinstance(made, HttpSubscription):
            answer["Attributes"]["EffectiveDeliveryPolicy"] = json.dumps(made.effective_policy())
        return ActionResult(answer)

    def set_subscription_attributes(self) -> ActionResult:
        """SetSubscriptionAttributes."""
        given = self._checked("SetSubscriptionAttributes")
        _check_subscription_attribute(given["AttributeName"], given.get("AttributeValue", ""))
        return super().set_subscription_attributes()

    def unsubscribe(self) -> ActionResult:
        """Unsubscribe by a signed request."""
        self.topics.unsubscribe(self._checked("Unsubscribe")["SubscriptionArn"])
        return EmptyResult()

    def publish(self) -> ActionResult:
        """Publish to a topic."""
        given = self._checked("Publish")
        if not given["Message"]:
            raise AwsError("InvalidParameter", "Invalid parameter: Empty message")
        if self.world.faults.take(CLOUD, "Publish", ("ignore",)) is not None:
            return ActionResult({"MessageId": str(uuid.uuid4())})
        return super().publish()

    def _checked(self, operation: str) -> dict[str, Any]:
        given: dict[str, Any] = dict(self._get_params())
        check(service("sns"), operation, given, "ValidationError")
        return given


def answers(world: World, topics: Topics) -> Callable[..., Any]:
    """What moto's dispatcher calls for a request to SNS."""

    class Bound(Answers):
        pass

    Bound.world, Bound.topics = world, topics
    return Bound.dispatch


def public_operation(request: Request) -> str:
    """The operation of a request that needs no signature, "" for any other."""
    if request.method == "GET" and request.path.startswith("/SimpleNotificationService-"):
        return CERTIFICATE
    action = request.args.get("Action", "")
    return action if request.path == "/" and action in PUBLIC else ""


class PublicPages:
    """Answers what anyone may ask."""

    def __init__(self, topics: Topics, signer: Signer) -> None:
        self._topics = topics
        self._signer = signer

    def respond(self, request: Request, operation: str) -> Response:
        """Answer an operation that `public_operation` named."""
        if operation == CERTIFICATE:
            if request.path != self._signer.path:
                raise AwsError("NotFound", "There is no such certificate", 404)
            return Response(self._signer.pem, content_type="application/x-pem-file")
        given = request.args
        if operation == "Unsubscribe":
            self._topics.leave(_needed(given, "SubscriptionArn"), authenticated=False)
            return _xml(operation, "")
        arn = self._topics.confirm(_needed(given, "TopicArn"), _needed(given, "Token"), authenticated=False)
        return _xml(operation, f"<SubscriptionArn>{escape(arn)}</SubscriptionArn>")


def _needed(given: Mapping[str, str], name: str) -> str:
    if not given.get(name):
        raise AwsError(
            "ValidationError", f"Value null at '{name}' failed to satisfy constraint: Member must not be null"
        )
    return given[name]


def _xml(operation: str, result: str) -> Response:
    held = f"<{operation}Result>{result}</{operation}Result>" if result else ""
    request_id = f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"
    text = f'<{operation}Response xmlns="{NAMESPACE}">{held}{request_id}</{operation}Response>'
    return Response(text, content_type="text/xml")


def _page(found: list[HttpSubscription], given: Mapping[str, Any]) -> ActionResult:
    first = int(given.get("NextToken") or 0)
    shown = [
        {
            "SubscriptionArn": each.arn if each.confirmed else "PendingConfirmation",
            "Owner": each.owner,
            "Protocol": each.protocol,
            "Endpoint": each.endpoint,
            "TopicArn": each.topic.arn,
        }
        for each in found[first : first + PAGE]
    ]
    answer: dict[str, Any] = {"Subscriptions": shown}
    if first + PAGE < len(found):
        answer["NextToken"] = str(first + PAGE)
    return ActionResult(answer)


def _check_attribute(name: str, value: str) -> None:
    if name == "SignatureVersion" and value not in ("1", "2"):
        raise AwsError("InvalidParameter", "Invalid parameter: SignatureVersion")
    if name == "DeliveryPolicy":
        check_policy(value, "topic")
    if name == "FifoTopic" and str(value).lower() == "true":
        raise not_implemented("CreateTopic with FifoTopic")


def _check_subscription_attribute(name: str, value: str) -> None:
    if name == "DeliveryPolicy":
        check_policy(value, "subscription")
    if name in ("RedrivePolicy", "SubscriptionRoleArn", "ReplayPolicy"):
        raise not_implemented(f"subscription attribute {name}")
