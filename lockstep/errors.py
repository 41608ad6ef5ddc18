"""Everything that Lockstep raises on purpose.

LockstepError                    exit status
├── UsageError                   2   the command line is wrong; nothing was begun
├── ConfigError                  3   lockstep.yaml or a setting is wrong; names line and key
├── RefusedError                 3   the request would break a rule; nothing was changed
│   ├── DigestMismatchError      3   bytes are not the version they claim to be
│   └── ProofError               3   a proof, checkpoint or tile does not show what it claims
│       ├── NoteError            3   a signed note is malformed, or no known key signed it
│       └── ForkError            3   two signed histories of one ledger contradict each other
├── NotFoundError                4   no such model, version, cloud or file
├── RetryLaterError              5   the same request may succeed later
│   ├── UnreachableError         5   no answer: down, refused, timed out
│   ├── BusyError                5   the resource is in the middle of something else
│   └── ThrottledError           5   too many requests
├── CredentialsError             5   missing, wrong or not allowed
├── CloudRejectedError           5   the cloud answered no, and will answer no again
├── DeploymentFailedError        5   a slot did not become ready
├── SplitError                   6   some clouds follow, some do not; names both
├── VerdictError                 7   a canary was judged worse and was taken back
├── RejectedError                7   a person did not approve of a rollout; a canary was taken back
└── StoppedError               130   the command line was interrupted: what was done by then, and how it goes on

An error's text names the cloud, the model and the version as far as they are known; `hint` says what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class LockstepError(Exception):
    """Base of all; `str()` is the problem, `hint` the next step, `exit_status` what the command line ends with.

    `facts` are what the text says, for programs.
    """

    exit_status: ClassVar[int] = 1

    def __init__(
        self, problem: str, *, hint: str = "", cloud: str = "", facts: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(f"{cloud}: {problem}" if cloud else problem)
        self.problem = problem
        self.hint = hint
        self.cloud = cloud
        self.facts = dict(facts or {})

    @property
    def reason(self) -> str:
        """Problem and next step in one line, for a list that names the cloud itself."""
        return f"{self.problem} ({self.hint})" if self.hint else self.problem


class UsageError(LockstepError):
    """The command line is not understood."""

    exit_status = 2


class ConfigError(LockstepError):
    """A setting is missing or wrong."""

    exit_status = 3


class RefusedError(LockstepError):
    """The request breaks a rule; nothing was changed."""

    exit_status = 3


class DigestMismatchError(RefusedError):
    """Bytes differ from what the manifest says."""


class ProofError(RefusedError):
    """A proof, checkpoint or tile of a ledger does not show what it claims."""


class NoteError(ProofError):
    """A signed note is malformed, wrongly signed, or signed by no key that is known."""


class ForkError(ProofError):
    """A copy of the ledger holds a checkpoint that the ledger does not extend; both sizes and roots are named."""


class NotFoundError(LockstepError):
    """There is no such thing; the text says what there is instead."""

    exit_status = 4


class RetryLaterError(LockstepError):
    """The same request may succeed later."""

    exit_status = 5


class UnreachableError(RetryLaterError):
    """No answer in time."""


class BusyError(RetryLaterError):
    """The resource is being changed by an earlier request."""


class ThrottledError(RetryLaterError):
    """The service asks for fewer requests."""


class CredentialsError(LockstepError):
    """Credentials are missing, wrong, or lack a permission."""

    exit_status = 5


class CloudRejectedError(LockstepError):
    """The cloud refused the request for good."""

    exit_status = 5


class DeploymentFailedError(LockstepError):
    """A slot did not become ready; the text holds the cloud's reason and the end of the container's log."""

    exit_status = 5


class OvertakenError(LockstepError):
    """Another operation changed what should serve, a rollback say; this one stopped and left its result alone."""

    exit_status = 6


class SplitError(LockstepError):
    """Clouds are not in step: some serve the target, some could not follow."""

    exit_status = 6


class VerdictError(LockstepError):
    """A canary was judged worse than what it was to replace, and was taken back."""

    exit_status = 7


class RejectedError(LockstepError):
    """A person said no to a rollout, or nobody said yes in time; a canary was taken back."""

    exit_status = 7


class StoppedError(LockstepError):
    """The command line was interrupted."""

    exit_status = 130


class Interruption(KeyboardInterrupt):
    """An interrupt (Ctrl-C, SIGTERM) of an operation that says what was done by then, and how it goes on.

    No LockstepError: nothing that handles those may take it for a failure, and go on.
    """

    def __init__(self, problem: str, *, hint: str = "", facts: Mapping[str, object] | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.facts = dict(facts or {})
