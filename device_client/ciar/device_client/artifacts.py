"""The device's files of a bundle, fetched from the server once and kept by their SHA-256.

In: a manifest and a way to fetch. Out: paths. Several processes may share a folder: files appear whole or not at all,
and their name is their content.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ciar.shared.bundle import FileEntry, Manifest, sha256_of
from ciar.shared.errors import InvalidRequest, PairMismatch

CACHE_VARIABLE = "CIAR_CACHE"

Fetch = Callable[[str], Iterator[bytes]]
"""File name -> chunks."""


def default_cache() -> Path:
    """$CIAR_CACHE, or ~/.cache/ciar."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder) if folder else Path.home() / ".cache" / "ciar"


class ArtifactCache:
    """A folder of files named by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def device_files(self, manifest: Manifest, fetch: Fetch) -> dict[str, Path]:
        """Paths of the manifest's device files by name, fetching what is not there or damaged.

        Raises PairMismatch if what the server sends is not what its manifest names, InvalidRequest if the folder cannot
        be written, and whatever `fetch` raises.
        """
        return {name: self._ensure(name, entry, fetch) for name, entry in manifest.device_files().items()}

    def _ensure(self, name: str, entry: FileEntry, fetch: Fetch) -> Path:
        path = self._folder / entry.sha256
        try:
            if not (path.is_file() and sha256_of(path) == entry.sha256):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._download(name, entry, fetch, path)
        except OSError as exc:
            raise InvalidRequest(f"cache: cannot use {self._folder} ({exc.strerror}); set {CACHE_VARIABLE}") from exc
        return path

    def _download(self, name: str, entry: FileEntry, fetch: Fetch, path: Path) -> None:
        digest, num_bytes = hashlib.sha256(), 0
        descriptor, partial = tempfile.mkstemp(dir=self._folder, prefix="partial-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in fetch(name):
                    num_bytes += len(chunk)
                    if num_bytes > entry.size_bytes:
                        raise PairMismatch(
                            f"{name}: the server sends more than the manifest's {entry.size_bytes} bytes"
                        )
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != entry.sha256:
                raise PairMismatch(
                    f"{name}: the server's file is not the one that its manifest names (SHA-256 differs)"
                )
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
