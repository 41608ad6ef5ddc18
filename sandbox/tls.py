"""Certificate authorities of the sandbox: Azure's clients send bearer tokens over TLS alone, SNS signs by X.509."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

HOSTS = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority that clients trust, the servers' chain and its private key.

    `signer` and `signer_key` are a certificate that signs messages and its RSA key, where one was asked for.
    """

    authority: Path
    chain: Path
    key: Path
    signer: Path | None = None
    signer_key: Path | None = None

    @property
    def server(self) -> tuple[str, str]:
        """What a web server needs: (chain, key)."""
        return str(self.chain), str(self.key)


def issue(folder: Path, signer: str = "") -> Certificates:
    """Make a new authority and one certificate for 127.0.0.1 and localhost; writes three files into `folder`.

    With `signer`, two more: a certificate of that name with an RSA key, by the same authority.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA(organization_name="Lockstep sandbox")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    _write(authority.issue_cert(*HOSTS, common_name="Lockstep sandbox"), folder / "server.pem", folder / "server.key")
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if not signer:
        return made
    certificate, key = folder / "signer.pem", folder / "signer.key"
    _write(authority.issue_cert(signer, common_name=signer, key_type=trustme.KeyType.RSA), certificate, key)
    return Certificates(made.authority, made.chain, made.key, certificate, key)


def _write(issued: trustme.LeafCert, chain: Path, key: Path) -> None:
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(chain, append=number > 0)
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
