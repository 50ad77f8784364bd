"""This project as a wheel, made from the files it runs from: in a checkout and where only a wheel was installed."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from importlib.metadata import distribution, requires, version
from pathlib import Path

NAME, PACKAGES = "ragwright", ("programs", "optimize")
COPIED = ("METADATA", "entry_points.txt", "licenses/LICENSE")
"""What a distribution says of itself, as it was installed."""

WHEEL = "Wheel-Version: 1.0\nGenerator: ragwright\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of every file inside, so that equal files make equal wheels."""


def build_wheel(folder: Path) -> Path:
    """Write the wheel into a folder.

    Args:
        folder: Is there.

    Returns:
        The file, named as installers want it.
    """
    about = f"{NAME}-{version(NAME)}.dist-info"
    file = folder / f"{NAME}-{version(NAME)}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in (*_code(), *_metadata(about)):
            wheel.writestr(zipfile.ZipInfo(name, LONG_AGO), data, zipfile.ZIP_DEFLATED)
            digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")
        lines = [*record, f"{about}/RECORD,,", ""]
        wheel.writestr(zipfile.ZipInfo(f"{about}/RECORD", LONG_AGO), "\n".join(lines), zipfile.ZIP_DEFLATED)
    return file


def pinned_requirements(extras: frozenset[str] = frozenset()) -> list[str]:
    """What the project needs, each at the version that is installed here.

    Args:
        extras: Optional parts that are in use.
    """
    from packaging.requirements import Requirement

    pinned = {}
    for line in requires(NAME) or ():
        wanted = Requirement(line)
        if any(wanted.marker is None or wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            pinned[wanted.name] = f"{wanted.name}=={version(wanted.name)}"
    return sorted(pinned.values())


def _code() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations, "this very code"
        root = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(root.rglob("*")):
            place = file.relative_to(root)
            if file.is_file() and not any(part.startswith((".", "__pycache__")) for part in place.parts):
                yield f"{package}/{place.as_posix()}", file.read_bytes()


def _metadata(about: str) -> Iterator[tuple[str, bytes]]:
    installed = distribution(NAME)
    for name in COPIED:
        if (text := installed.read_text(name)) is not None:
            yield f"{about}/{name}", text.encode()
    yield f"{about}/WHEEL", WHEEL.encode()
