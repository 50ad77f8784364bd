"""A model in a folder on this machine: which one it is."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

_CHUNK = 1 << 20


def folder_fingerprint(folder: Path) -> str:
    """Sixteen hex digits over names and contents of the folder's files: other weights, other digits.

    Hidden files and Markdown do not count. A file is read once per process, and again when its time or size changes.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and _counts(path.relative_to(folder))):
        state = path.stat()
        content = _file_digest(path.resolve(), state.st_mtime_ns, state.st_size)
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def _counts(path: Path) -> bool:
    return path.suffix.lower() != ".md" and not any(part.startswith(".") for part in path.parts)


@lru_cache(maxsize=1024)
def _file_digest(path: Path, changed_ns: int, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
