"""List operations: filters, order and pages, the same for every kind of resource."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any, Final

from sandbox.aws.errors import invalid
from sandbox.aws.state import Document

DEFAULT_PAGE: Final = 10


def page(
    documents: Iterable[Document], given: Document, answer: str, name: Callable[[Document], str]
) -> dict[str, Any]:
    """One page of `documents` under the key `answer`, with NextToken when there is more.

    Understands NameContains, CreationTimeAfter/Before, LastModifiedTimeAfter/Before, SortBy, SortOrder, MaxResults,
    NextToken. The default order is newest first, as the service's.
    """
    found = [document for document in documents if _matches(document, given, name(document))]
    by = given.get("SortBy", "CreationTime")
    ascending = given.get("SortOrder", "Descending") == "Ascending"
    found.sort(key=lambda d: name(d) if by == "Name" else _order(d, by), reverse=not ascending)
    start = _offset(given.get("NextToken"))
    size = int(given.get("MaxResults", DEFAULT_PAGE))
    result: dict[str, Any] = {answer: found[start : start + size]}
    if start + size < len(found):
        result["NextToken"] = base64.urlsafe_b64encode(f"offset:{start + size}".encode()).decode()
    return result


def _order(document: Document, by: str) -> float:
    key = "LastModifiedTime" if by == "LastModifiedTime" else "CreationTime"
    return float(document.get(key, document["CreationTime"]).timestamp())


def _matches(document: Document, given: Document, name: str) -> bool:
    if str(given.get("NameContains", "")).lower() not in name.lower():
        return False
    for key in ("CreationTime", "LastModifiedTime"):
        at = document.get(key, document["CreationTime"]).timestamp()
        if f"{key}After" in given and at <= float(given[f"{key}After"]):
            return False
        if f"{key}Before" in given and at >= float(given[f"{key}Before"]):
            return False
    return True


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    try:
        label, offset = base64.urlsafe_b64decode(token.encode()).decode().split(":")
        if label == "offset":
            return int(offset)
    except (ValueError, binascii.Error):
        pass
    raise invalid("Invalid pagination token")
