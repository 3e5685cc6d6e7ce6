"""Certificates of one run: who has them may talk to its scheduler, and nobody else reads or alters what is said.

Made anew for every run, of one key, in a folder that only their owner may enter (0700), as files that only their owner
may read (0600), and removed at the run's end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from slidebatch.errors import ConfigError
from slidebatch.store import remove

CERTIFICATE, KEY = "certificate.pem", "key.pem"


def certificates(folder: Path) -> Any:
    """Dask's `Security` of a new key and certificate in `folder`, in place of any that were there.

    ConfigError where the library that makes them is not installed.
    """
    from distributed import Security

    try:
        made = Security.temporary()
    except ImportError as error:
        raise ConfigError(f"certificates cannot be made ({error}); install slidebatch[hpc]") from error
    remove(folder)
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    _write(folder / CERTIFICATE, made.tls_worker_cert)
    _write(folder / KEY, made.tls_worker_key)
    files: dict[str, str] = {"tls_ca_file": str(folder / CERTIFICATE)}
    for role in ("client", "scheduler", "worker"):
        files |= {f"tls_{role}_cert": str(folder / CERTIFICATE), f"tls_{role}_key": str(folder / KEY)}
    return Security(require_encryption=True, **files)


def _write(path: Path, text: str) -> None:
    """The mode is given before there is anything to read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask is
        file.write(text)
