"""A subscriber of SNS over HTTP on a free port, and the check of a signature, written from SNS's guide alone."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

PATIENCE = 60.0


@dataclass(frozen=True)
class Received:
    """One POST: its path, its headers (names in lower case) and its bytes; `at` is monotonic."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> str:
        return self.headers.get("x-amz-sns-message-type", "")

    @property
    def document(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def alarm(self) -> dict[str, Any]:
        """What an alarm says in the message."""
        parsed: dict[str, Any] = json.loads(self.document["Message"])
        return parsed


class Receiver:
    """Keeps what arrives, by path; `answer(path, 500, 429)` answers the next messages there so, then 200 again."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._received: list[Received] = []
        self._statuses: dict[str, list[int]] = {}
        self._changed = threading.Condition()

    def answer(self, path: str, *statuses: int) -> None:
        self._statuses[path] = list(statuses)

    def add(self, received: Received) -> int:
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()
            waiting = self._statuses.get(received.path)
            return waiting.pop(0) if waiting else 200

    def at(self, path: str, kind: str = "") -> list[Received]:
        """What has arrived at a path, oldest first."""
        with self._changed:
            return [each for each in self._received if each.path == path and kind in ("", each.kind)]

    def wait(self, path: str, kind: str = "", *, count: int = 1) -> list[Received]:
        """What has arrived at a path, once it is at least `count`."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while len(self.at(path, kind)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"{len(self.at(path, kind))} of {count} messages {kind} at {path} in {PATIENCE} s"
                self._changed.wait(left)
        return self.at(path, kind)


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(receiver.add(Received(self.path, headers, content)))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_port)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,), name="sns-receiver")
    serving.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        serving.join(timeout=10)
        server.server_close()


def verify(message: dict[str, Any], host: str, authority: str) -> str:
    """Check a message's signature by the certificate that `host` serves; returns the signature's version.

    Raises cryptography's InvalidSignature.
    """
    address = urlsplit(message["SigningCertURL"])
    assert (address.scheme, address.netloc) == ("https", host)
    pem = requests.get(message["SigningCertURL"], verify=authority, timeout=30).content
    key = x509.load_pem_x509_certificate(pem).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    names = ["Message", "MessageId", "Timestamp", "TopicArn", "Type"]
    names += ["Subject"] if message["Type"] == "Notification" else ["SubscribeURL", "Token"]
    text = "".join(f"{name}\n{message[name]}\n" for name in sorted(names) if name in message)
    version = str(message["SignatureVersion"])
    algorithm = {"1": hashes.SHA1(), "2": hashes.SHA256()}[version]
    key.verify(base64.b64decode(message["Signature"], validate=True), text.encode(), padding.PKCS1v15(), algorithm)
    return version


def until(condition: Callable[[], bool], doing: Callable[[], object] = lambda: None) -> None:
    """Wait for a condition, doing something again and again meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s"
        doing()
        time.sleep(0.05)
