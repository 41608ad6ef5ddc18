"""moto in this process: the services whose storage it lends, and the WSGI call into it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import FakeBucket, FakeDeleteMarker, FakeKey, S3Backend, s3_backends
from werkzeug.wrappers import Request, Response

from sandbox.aws.errors import AwsError
from sandbox.aws.state import ACCOUNT, REGION

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Signing names of the services that moto answers.
SERVICES: Final = ("s3", "sts", "monitoring", "logs", "sns", "route53")


class MotoHost:
    """moto's dispatcher behind one method, and direct hands on its S3 backend."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._s3: S3Backend = s3_backends[ACCOUNT]["aws"]

    def respond(
        self, request: Request, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Let moto answer; `body` and `headers` (names as in WSGI, a value of "" removes) replace what was sent."""
        environ: WSGIEnvironment = dict(request.environ)
        data = body if body is not None else request.get_data(cache=True)
        environ["wsgi.input"] = io.BytesIO(data)
        environ["CONTENT_LENGTH"] = str(len(data))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ.pop("werkzeug.request", None)
        for name, value in (headers or {}).items():
            environ[name] = value
            if not value:
                del environ[name]
        try:
            return Response.from_app(self._app, environ, buffered=True)
        except NotImplementedError as error:
            raise AwsError("NotImplemented", f"not implemented by the sandbox: {error}", 501) from error

    def create_bucket(self, name: str, *, object_lock: bool = False) -> None:
        """Make a versioned bucket, empty if one of that name was left in this process."""
        if name in self._s3.buckets:
            del self._s3.buckets[name]
            s3_backends.bucket_accounts.pop(name, None)
        self._s3.create_bucket(name, REGION)
        self._s3.put_bucket_versioning(name, "Enabled")
        self._s3.buckets[name].object_lock_enabled = object_lock

    def bucket(self, name: str) -> FakeBucket | None:
        """A bucket, None when there is none of that name."""
        return self._s3.buckets.get(name)

    def object(self, bucket: str, key: str, version: str | None = None) -> FakeKey | None:
        """An object's current or named version, None when there is none or a delete marker hides it."""
        if bucket not in self._s3.buckets:
            return None
        found: Any = self._s3.get_object(bucket, key, version_id=version)
        return found if isinstance(found, FakeKey) else None

    def objects(self, bucket: str, prefix: str) -> list[FakeKey]:
        """Current objects under a prefix, in key order."""
        known = self.bucket(bucket)
        if known is None:
            return []
        found = (known.keys.get(name) for name in sorted(known.keys) if name.startswith(prefix))
        return [key for key in found if isinstance(key, FakeKey)]

    def versions(self, bucket: str, prefix: str) -> Iterator[tuple[FakeKey | FakeDeleteMarker, bool]]:
        """Every version and mark of deletion under a prefix with whether it is its key's latest; the newest first."""
        known = self._s3.buckets[bucket].keys
        for name in sorted(name for name in list(known) if name.startswith(prefix)):
            for place, key in enumerate(reversed(known.getlist(name))):
                yield key, place == 0

    def put(self, bucket: str, key: str, value: bytes) -> None:
        """Write an object as a service of the account does; the bucket must exist."""
        self._s3.put_object(bucket, key, value)

    def corrupt(self, suffix: str, offset: int) -> str:
        """Flip one byte of the newest object whose key ends with `suffix`; ETag and checksums stay as they were.

        Returns `s3://BUCKET/KEY`; raises KeyError when no object matches or the object is shorter than `offset`.
        """
        found = [
            (bucket, key)
            for bucket in self._s3.buckets.values()
            for name, key in bucket.keys.items()
            if name.endswith(suffix) and isinstance(key, FakeKey)
        ]
        if not found:
            raise KeyError(f"no S3 object's key ends with {suffix!r}")
        bucket, key = max(found, key=lambda pair: pair[1].last_modified)
        _ = key.etag  # computed on first sight, so look now: it must not follow the flipped byte
        with key.lock:
            if not 0 <= offset < key.contentsize:
                raise KeyError(f"s3://{bucket.name}/{key.name} has {key.contentsize} bytes, none at {offset}")
            buffer = key._value_buffer
            buffer.seek(offset)
            flipped = bytes([buffer.read(1)[0] ^ 0xFF])
            buffer.seek(offset)
            buffer.write(flipped)
        return f"s3://{bucket.name}/{key.name}"


def read_range(key: FakeKey, first: int, length: int) -> bytes:
    """Part of an object, without reading the rest."""
    with key.lock:
        key._value_buffer.seek(first)
        return bytes(key._value_buffer.read(length))
