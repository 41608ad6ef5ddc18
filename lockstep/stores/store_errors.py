"""What obstore's errors mean. It tells the cause at the end of a long text, for developers of the store's client."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from lockstep.errors import CloudRejectedError, CredentialsError, LockstepError, UnreachableError
from lockstep.stores.obstore_loading import load_obstore

STATUS: Final = re.compile(r"status code: (\d{3} [A-Z][A-Za-z ]*[a-z])")
CODE: Final = re.compile(r"<Code>(\w+)</Code>")
MESSAGE: Final = re.compile(r"<Message>([^<\n]+)")
ADDRESS: Final = re.compile(r"Error performing [A-Z]+ (https?://[^/\s]+)")
SYSTEM: Final = re.compile(r'kind: \w+,\s+message: "([^"]+)"')
SILENCE: Final = re.compile(r"HttpError \{\s+kind: (\w+)")
PROVIDER: Final = re.compile(r"credential provider: \w+: (.+)")
#: The bucket or container itself is not there, as S3, Cloud Storage and Azure call it.
NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound")


def is_absent(error: FileNotFoundError) -> bool:
    """Whether an object is not there, in a bucket that is."""
    code = CODE.search(str(error))
    return code is None or code[1] not in NO_BUCKET


@contextlib.contextmanager
def translated(cloud: str, action: str) -> Iterator[None]:
    """Raise Lockstep's errors for obstore's; `action` completes "the store could not ..."."""
    load_obstore()
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise CredentialsError(
            f"not allowed to {action}: {_reason(error)}",
            cloud=cloud,
            hint="check this cloud's credentials and their permission to list, read and write its store",
        ) from error
    except FileNotFoundError as error:
        raise CloudRejectedError(
            f"the store could not {action}: {_reason(error)}",
            cloud=cloud,
            hint="check the bucket or container of this cloud in lockstep.yaml",
        ) from error
    except BaseError as error:
        raise _no_answer(error, cloud, action) from error


def _no_answer(error: Exception, cloud: str, action: str) -> LockstepError:
    text = str(error)
    if "InvalidCertificate" in text:
        return UnreachableError(
            f"the store could not {action}: its certificate is not trusted here",
            cloud=cloud,
            hint="trust its issuer (ca_file, where this cloud has it), or correct the store's address",
        )
    return UnreachableError(
        f"the store could not {action}: {_reason(error)}",
        cloud=cloud,
        hint="check the store's address and the network, then run the same command again",
    )


def _reason(error: Exception) -> str:
    """The cause on one short line: the store's own code and words, or why nothing was heard from it."""
    text = str(error)
    if status := STATUS.search(text):
        words = [found[1].strip() for pattern in (CODE, MESSAGE) if (found := pattern.search(text))]
        return " ".join([status[1], *words[:1], *(f"({word})" for word in words[1:])])
    if provider := PROVIDER.search(text):
        return provider[1]
    if silence := SILENCE.search(text):
        address, system = ADDRESS.search(text), SYSTEM.search(text)
        where = f" from {address[1]}" if address else ""
        return f"no answer{where}: {system[1] if system else SILENCES.get(silence[1], silence[1])}"
    return text.splitlines()[0] if text else type(error).__name__


#: obstore's names for ways of not being answered.
SILENCES: Final = {
    "Connect": "cannot connect",
    "Timeout": "timed out",
    "Interrupted": "the connection was closed",
    "Request": "the connection was closed",
}
