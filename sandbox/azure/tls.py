"""The certificate authority of the Azure sandbox: Azure's clients send bearer tokens over TLS alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

HOSTS = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority that clients trust, the servers' chain and its private key."""

    authority: Path
    chain: Path
    key: Path

    @property
    def server(self) -> tuple[str, str]:
        """What a web server needs: (chain, key)."""
        return str(self.chain), str(self.key)


def issue(folder: Path) -> Certificates:
    """Make a new authority and one certificate for 127.0.0.1 and localhost; writes three files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA(organization_name="Lockstep sandbox")
    server = authority.issue_cert(*HOSTS, common_name="Lockstep sandbox")
    files = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority.cert_pem.write_to_path(files.authority)
    for number, part in enumerate(server.cert_chain_pems):
        part.write_to_path(files.chain, append=number > 0)
    server.private_key_pem.write_to_path(files.key)
    files.key.chmod(0o600)
    return files
