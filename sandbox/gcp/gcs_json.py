"""Cloud Storage's JSON API: https://cloud.google.com/storage/docs/json_api, checked against its discovery document."""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from werkzeug.wrappers import Request, Response

from sandbox.gcp.errors import GoogleError
from sandbox.gcp.gcs_http import (
    FIELD_HEADERS,
    conditions_from,
    finish_checked,
    media,
    promised_hashes,
    raw_path,
    whole_number,
)
from sandbox.gcp.gcs_json_format import (
    BUCKET_FIELDS,
    OBJECT_FIELDS,
    body_of,
    bucket_changes,
    bucket_json,
    cursor,
    flag,
    json_response,
    multipart,
    time_text,
)
from sandbox.gcp.gcs_objects import (
    Conditions,
    Digests,
    StorageError,
    Store,
    StoredObject,
    Upload,
    bad_request,
    chunks_of,
)
from sandbox.gcp.permissions import Guard

BUCKET: Final = r"/storage/v1/b/(?P<bucket>[^/]+)"
OBJECT: Final = BUCKET + r"/o/(?P<name>.+)"
ROUTES: Final = tuple(
    (method, re.compile(path), operation)
    for method, path, operation in (
        ("POST", r"/(?:resumable/)?upload/storage/v1/b/(?P<bucket>[^/]+)/o", "storage.objects.insert"),
        ("PUT", r"/(?:resumable/)?upload/storage/v1/b/(?P<bucket>[^/]+)/o", "storage.objects.insert"),
        ("DELETE", r"/(?:resumable/)?upload/storage/v1/b/(?P<bucket>[^/]+)/o", "storage.objects.insert"),
        ("GET", r"/download" + OBJECT, "storage.objects.get"),
        ("GET", r"/storage/v1/b", "storage.buckets.list"),
        ("POST", r"/storage/v1/b", "storage.buckets.insert"),
        ("POST", BUCKET + "/lockRetentionPolicy", "storage.buckets.lockRetentionPolicy"),
        ("GET", BUCKET + "/iam/testPermissions", "storage.buckets.testIamPermissions"),
        ("GET", BUCKET, "storage.buckets.get"),
        ("PATCH", BUCKET, "storage.buckets.patch"),
        ("DELETE", BUCKET, "storage.buckets.delete"),
        ("GET", BUCKET + "/o", "storage.objects.list"),
        ("POST", OBJECT + r"/rewriteTo/b/(?P<to_bucket>[^/]+)/o/(?P<to_name>.+)", "storage.objects.rewrite"),
        ("POST", OBJECT + r"/copyTo/b/(?P<to_bucket>[^/]+)/o/(?P<to_name>.+)", "storage.objects.copy"),
        ("POST", OBJECT + "/compose", "storage.objects.compose"),
        ("GET", OBJECT, "storage.objects.get"),
        ("PATCH", OBJECT, "storage.objects.patch"),
        ("DELETE", OBJECT, "storage.objects.delete"),
    )
)
OPERATIONS: Final = frozenset(operation for _, _, operation in ROUTES)
CONDITIONS: Final = {
    "generation": "ifGenerationMatch",
    "not_generation": "ifGenerationNotMatch",
    "metageneration": "ifMetagenerationMatch",
    "not_metageneration": "ifMetagenerationNotMatch",
}


@dataclass
class Session:
    """One resumable upload on its way."""

    bucket: str
    draft: dict[str, Any]
    conditions: Conditions
    upload: Upload
    promised: dict[str, str]
    lock: threading.Lock = field(default_factory=threading.Lock)


class JsonApi:
    """The JSON API over a store."""

    def __init__(self, store: Store, guard: Guard) -> None:
        self._store = store
        self._guard = guard
        self._sessions: dict[str, Session] = {}
        self._pages: dict[str, str] = {}

    def identify(self, request: Request) -> tuple[str, str]:
        """Operation as the discovery document names it, and the `bucket/object` that it is about."""
        operation, names = _match(request)
        if operation == "storage.objects.insert" and "name" in request.args:
            names["name"] = request.args["name"]
        return operation, "/".join(names[n] for n in ("bucket", "name") if n in names)

    def respond(self, request: Request, operation: str) -> Response:
        """Answer one request; raises StorageError."""
        _, names = _match(request)
        if operation.startswith("unknown") or operation.endswith("compose"):
            message = f"not implemented by the sandbox: {operation} {request.method} {request.path}"
            raise StorageError(501, "notImplemented", "NotImplemented", message)
        action: Callable[[Request, dict[str, str]], Response] = getattr(self, "_" + operation.replace(".", "_"))
        return action(request, names)

    # --- buckets

    def _storage_buckets_list(self, request: Request, names: dict[str, str]) -> Response:
        prefix = request.args.get("prefix", "")
        found = [bucket_json(b) for b in self._store.buckets() if b.name.startswith(prefix)]
        return json_response({"kind": "storage#buckets", "items": found})

    def _storage_buckets_insert(self, request: Request, names: dict[str, str]) -> Response:
        body = body_of(request, BUCKET_FIELDS)
        if "project" not in request.args:
            raise bad_request("Required parameter: project")
        changes = bucket_changes(body)
        bucket = self._store.create_bucket(str(body.get("name", "")))
        for attribute, value in changes.items():
            setattr(bucket, attribute, value)
        bucket.object_retention = flag(request, "enableObjectRetention")
        return json_response(bucket_json(bucket))

    def _storage_buckets_get(self, request: Request, names: dict[str, str]) -> Response:
        return json_response(bucket_json(self._store.bucket(names["bucket"])))

    def _storage_buckets_testIamPermissions(  # noqa: N802 - as the API calls it
        self, request: Request, names: dict[str, str]
    ) -> Response:
        self._store.bucket(names["bucket"])
        asked = request.args.getlist("permissions")
        if not asked:
            raise bad_request("Required parameter: permissions")
        try:
            held = self._guard.held(asked, lambda name: name.startswith("storage."))
        except GoogleError as error:
            raise bad_request(error.message) from error
        content: dict[str, Any] = {"kind": "storage#testIamPermissionsResponse"}
        return json_response({**content, "permissions": held} if held else content)

    def _storage_buckets_patch(self, request: Request, names: dict[str, str]) -> Response:
        wanted = whole_number(request.args.get("ifMetagenerationMatch"), "ifMetagenerationMatch")
        changes = bucket_changes(body_of(request, BUCKET_FIELDS))
        return json_response(bucket_json(self._store.change_bucket(names["bucket"], changes, wanted)))

    def _storage_buckets_lockRetentionPolicy(self, request: Request, names: dict[str, str]) -> Response:  # noqa: N802
        wanted = whole_number(request.args.get("ifMetagenerationMatch"), "ifMetagenerationMatch")
        if wanted is None:
            raise bad_request("Required parameter: ifMetagenerationMatch")
        if self._store.bucket(names["bucket"]).retention_seconds is None:
            raise bad_request("Bucket does not have a retention policy that could be locked.")
        changes = {"retention_locked": True}
        return json_response(bucket_json(self._store.change_bucket(names["bucket"], changes, wanted)))

    def _storage_buckets_delete(self, request: Request, names: dict[str, str]) -> Response:
        self._store.delete_bucket(names["bucket"])
        return Response(status=204)

    # --- objects

    def _storage_objects_list(self, request: Request, names: dict[str, str]) -> Response:
        for name in ("matchGlob", "softDeleted", "filter", "includeFoldersAsPrefixes"):
            if request.args.get(name, "false").lower() != "false":
                message = f"not implemented by the sandbox: storage.objects.list with {name}"
                raise StorageError(501, "notImplemented", "NotImplemented", message)
        versions = flag(request, "versions")
        prefix, delimiter = request.args.get("prefix", ""), request.args.get("delimiter", "")
        items: list[StoredObject] = []
        prefixes: list[str] = []
        limit = whole_number(request.args.get("maxResults"), "maxResults") or 1000
        after = cursor(request.args.get("pageToken"))
        token = None
        for stored in self._store.listing(names["bucket"], versions=versions):
            place = (stored.name, stored.generation)
            begin, end = request.args.get("startOffset", ""), request.args.get("endOffset", "")
            if not stored.name.startswith(prefix) or stored.name < begin or (end and stored.name >= end):
                continue
            cut = stored.name.find(delimiter, len(prefix)) if delimiter else -1
            folder = stored.name[: cut + len(delimiter)] if cut >= 0 else None
            if place <= after or (folder and after[0].startswith(folder)):
                continue
            if folder is not None and folder in prefixes:
                last = place
                continue
            if len(items) + len(prefixes) >= limit:
                token = base64.urlsafe_b64encode(json.dumps(last).encode()).decode()
                break
            last = place
            if folder is None:
                items.append(stored)
            else:
                prefixes.append(folder)
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if items:
            answer["items"] = [self._object_json(request, stored) for stored in items]
        if prefixes:
            answer["prefixes"] = prefixes
        if token:
            answer["nextPageToken"] = token
        return json_response(answer)

    def _storage_objects_get(self, request: Request, names: dict[str, str]) -> Response:
        stored = self._find(request, names)
        _conditions(request).check(stored, reading=True)
        if request.args.get("alt") == "media" or request.path.startswith("/download/"):
            return media(request, stored)
        return json_response(self._object_json(request, stored))

    def _find(self, request: Request, names: dict[str, str]) -> StoredObject:
        generation = whole_number(request.args.get("generation"), "generation")
        return self._store.get(names["bucket"], names["name"], generation)

    def _storage_objects_patch(self, request: Request, names: dict[str, str]) -> Response:
        body = body_of(request, OBJECT_FIELDS)
        stored = self._find(request, names)
        changes = self._object_changes(stored.bucket, body)
        if "metadata" in body:
            given = body["metadata"] or {}
            merged = {**stored.metadata, **given} if given else {}
            changes["metadata"] = {k: v for k, v in merged.items() if v is not None}
        if set(body) & set(FIELD_HEADERS):
            fields = {**stored.fields, **{k: body[k] for k in FIELD_HEADERS if k in body}}
            changes["fields"] = {k: v for k, v in fields.items() if v is not None}
        if body.get("contentType"):
            changes["content_type"] = body["contentType"]
        if (
            stored.retention_mode == "Unlocked"
            and "retention" in body
            and not flag(request, "overrideUnlockedRetention")
            and (changes["retention_mode"] is None or (changes["retain_until"] or 0.0) < (stored.retain_until or 0.0))
        ):
            message = "Reducing an unlocked retention needs overrideUnlockedRetention."
            raise StorageError(403, "forbidden", "AccessDenied", message)
        changed = self._store.change(stored, _conditions(request), **changes)
        return json_response(self._object_json(request, changed))

    def _object_changes(self, bucket: str, body: dict[str, Any]) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if "temporaryHold" in body:
            changes["temporary_hold"] = bool(body["temporaryHold"])
        if "eventBasedHold" in body:
            changes["event_based_hold"] = bool(body["eventBasedHold"])
        if "retention" in body:
            if not self._store.bucket(bucket).object_retention:
                raise bad_request("Object retention is not enabled on the bucket.")
            retention = body["retention"] or {}
            until = retention.get("retainUntilTime")
            changes["retention_mode"] = retention.get("mode")
            changes["retain_until"] = datetime.fromisoformat(until).timestamp() if until else None
            if bool(changes["retention_mode"]) != bool(until) or changes["retention_mode"] not in (
                None,
                "Locked",
                "Unlocked",
            ):
                raise bad_request("Object retention needs both a mode (Locked or Unlocked) and a retainUntilTime.")
        return changes

    def _storage_objects_delete(self, request: Request, names: dict[str, str]) -> Response:
        generation = whole_number(request.args.get("generation"), "generation")
        self._store.delete(names["bucket"], names["name"], generation, _conditions(request))
        return Response(status=204)

    def _storage_objects_copy(self, request: Request, names: dict[str, str]) -> Response:
        return json_response(self._object_json(request, self._copy(request, names)))

    def _storage_objects_rewrite(self, request: Request, names: dict[str, str]) -> Response:
        stored = self._copy(request, names)
        size = str(stored.digests.size)
        answer = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
        return json_response({**answer, "resource": self._object_json(request, stored)})

    def _copy(self, request: Request, names: dict[str, str]) -> StoredObject:
        generation = whole_number(request.args.get("sourceGeneration"), "sourceGeneration")
        source = self._store.get(names["bucket"], names["name"], generation)
        expected = {k: request.args.get("ifSource" + v.removeprefix("if")) for k, v in CONDITIONS.items()}
        conditions_from(expected).check(source)
        body = body_of(request, OBJECT_FIELDS) if request.get_data() else {}
        given = {"contentType": source.content_type, "metadata": dict(source.metadata), **source.fields, **body}
        draft = self._draft(names["to_bucket"], names["to_name"], given, source.digests)
        return self._store.copy(source, draft, _conditions(request))

    # --- uploads

    def _storage_objects_insert(self, request: Request, names: dict[str, str]) -> Response:
        if "upload_id" in request.args:
            return self._resume(request, request.args["upload_id"])
        self._store.bucket(names["bucket"])
        kind = request.args.get("uploadType")
        if kind == "media":
            upload = self._store.upload()
            upload.write(chunks_of(request.stream))
            body = {"name": request.args.get("name"), "contentType": request.headers.get("Content-Type")}
            return self._insert(request, names["bucket"], body, upload, promised_hashes(request))
        if kind == "multipart":
            body, content = multipart(request)
            upload = self._store.upload()
            upload.write([content])
            return self._insert(request, names["bucket"], body, upload, promised_hashes(request))
        if kind == "resumable":
            return self._begin(request, names["bucket"])
        raise bad_request(f"Invalid uploadType: {kind}")

    def _insert(
        self, request: Request, bucket: str, body: dict[str, Any], upload: Upload, promised: dict[str, str]
    ) -> Response:
        body = {"name": request.args.get("name"), **{k: v for k, v in body.items() if v is not None}}
        given = {"md5": body.get("md5Hash"), "crc32c": body.get("crc32c")}
        digests = finish_checked(upload, {**promised, **{k: v for k, v in given.items() if v}})
        try:
            draft = self._draft(bucket, str(body["name"] or ""), body, digests)
            stored = self._store.put(upload, draft, _conditions(request))
        except StorageError:
            upload.discard()
            raise
        return json_response(self._object_json(request, stored))

    def _begin(self, request: Request, bucket: str) -> Response:
        body = body_of(request, OBJECT_FIELDS) if request.get_data() else {}
        body.setdefault("name", request.args.get("name"))
        body.setdefault("contentType", request.headers.get("X-Upload-Content-Type"))
        conditions = _conditions(request)
        conditions.check(self._store.live(bucket, str(body["name"])))
        number = secrets.token_urlsafe(32)
        promised = promised_hashes(request)
        self._sessions[number] = Session(bucket, body, conditions, self._store.upload(), promised)
        query = "&".join(f"{name}={quote(request.args[name])}" for name in CONDITIONS.values() if name in request.args)
        location = (
            f"{request.host_url}upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={number}"
        ) + (f"&{query}" if query else "")
        return Response(status=200, headers={"Location": location, "X-GUploader-UploadID": number})

    def _resume(self, request: Request, number: str) -> Response:
        session = self._sessions.get(number)
        if session is None:
            raise StorageError(404, "notFound", "NoSuchUpload", "Upload session not found.")
        with session.lock:
            if request.method == "DELETE":
                del self._sessions[number]
                session.upload.discard()
                return Response(status=499)
            wanted = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", request.headers.get("Content-Range", ""))
            if wanted is None and "Content-Range" in request.headers:
                raise bad_request("Failed to parse Content-Range header.")
            if wanted is None or wanted[1] is not None:
                first = int(wanted[1]) if wanted else 0
                if first != session.upload.size:
                    message = f"Invalid request. Expected bytes from {session.upload.size} on, got {first}."
                    raise StorageError(503, "backendError", "ServiceUnavailable", message)
                session.upload.write(chunks_of(request.stream))
            total = wanted[3] if wanted else str(session.upload.size)
            if total == "*" or session.upload.size < int(total):
                if wanted and wanted[2] and session.upload.size % (256 * 1024):
                    raise bad_request("Invalid request. The number of bytes must be a multiple of 262144.")
                known = {"Range": f"bytes=0-{session.upload.size - 1}"} if session.upload.size else {}
                return Response(status=308, headers=known)
            del self._sessions[number]
        promised = {**session.promised, **promised_hashes(request)}
        return self._insert(request, session.bucket, session.draft, session.upload, promised)

    def _draft(self, bucket: str, name: str, body: dict[str, Any], digests: Digests) -> StoredObject:
        if not name:
            raise StorageError(400, "required", "InvalidArgument", "Required parameter: name")
        changes = self._object_changes(bucket, {k: v for k, v in body.items() if v is not None})
        return StoredObject(
            bucket,
            name,
            0,
            Path(),
            digests,
            str(body.get("contentType") or "application/octet-stream"),
            0.0,
            0.0,
            metadata=dict(body.get("metadata") or {}),
            fields={k: str(body[k]) for k in FIELD_HEADERS if body.get(k)},
            **changes,
        )

    def _object_json(self, request: Request, stored: StoredObject) -> dict[str, Any]:
        bucket = self._store.bucket(stored.bucket)
        path = f"b/{stored.bucket}/o/{quote(stored.name, safe='')}"
        expiry = bucket.expiry(stored)
        optional = {
            "md5Hash": stored.digests.md5,
            "metadata": dict(stored.metadata) or None,
            "timeDeleted": time_text(stored.deleted) if stored.deleted else None,
            "componentCount": stored.parts,
            "temporaryHold": stored.temporary_hold or None,
            "eventBasedHold": stored.event_based_hold or None,
            "retentionExpirationTime": time_text(expiry) if expiry else None,
            "retention": {"mode": stored.retention_mode, "retainUntilTime": time_text(stored.retain_until)}
            if stored.retention_mode and stored.retain_until
            else None,
        }
        return {
            "kind": "storage#object",
            "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
            "selfLink": f"{request.host_url}storage/v1/{path}",
            "mediaLink": f"{request.host_url}download/storage/v1/{path}?generation={stored.generation}&alt=media",
            "name": stored.name,
            "bucket": stored.bucket,
            "generation": str(stored.generation),
            "metageneration": str(stored.metageneration),
            "contentType": stored.content_type,
            "storageClass": "STANDARD",
            "size": str(stored.digests.size),
            "crc32c": stored.digests.crc32c,
            "etag": stored.etag,
            "timeCreated": time_text(stored.created),
            "updated": time_text(stored.updated),
            "timeStorageClassUpdated": time_text(stored.created),
            "timeFinalized": time_text(stored.created),
            **stored.fields,
            **{k: v for k, v in optional.items() if v is not None},
        }


def _match(request: Request) -> tuple[str, dict[str, str]]:
    raw = raw_path(request)
    for method, path, operation in ROUTES:
        found = path.fullmatch(raw)
        if found and method == request.method:
            return operation, {k: unquote(v) for k, v in found.groupdict().items()}
    return "unknown", {}


def _conditions(request: Request) -> Conditions:
    return conditions_from({name: request.args.get(parameter) for name, parameter in CONDITIONS.items()})
