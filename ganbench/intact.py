"""Files from elsewhere are used only if their digest is the one that is known."""

import hashlib
from pathlib import Path

from ganbench.config import Refused


def intact(file: Path, kind: str, expected: str, cure: str, setting: str = "") -> bytes:
    """The bytes of a file, whose digest of this kind (MD5, SHA-256) must be `expected`; raises Refused.

    Read once: what was checked is what is used, whatever becomes of the file. `cure` says what to do, `setting`
    what has named the file.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise Refused(f"{setting}{file} cannot be read ({error.strerror}): {cure}.") from None
    found = hashlib.new(kind.replace("-", ""), raw, usedforsecurity=False).hexdigest()
    if found != expected.lower():
        raise Refused(f"{setting}{file} has {kind} {found}, expected {expected}: {cure}.")
    return raw
