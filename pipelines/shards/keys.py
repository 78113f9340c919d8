"""Sample ids -> keys that are safe as WebDataset keys and as USTAR names."""

from __future__ import annotations

import hashlib
import re

MAX_KEY = 80
"""USTAR names hold 100 bytes; this leaves 20 for a dot and the member's name."""

UNSAFE = r"[^A-Za-z0-9_/-]|^_|^/|/$|//"
"""What may not stand in a key as it is: dots (WebDataset splits there), a first underscore (WebDataset skips
``__name__``), slashes that a file system would swallow, and everything beyond plain ASCII."""

_UNSAFE = re.compile(UNSAFE)


def sample_key(sample_id: str) -> str:
    """An injective, printable form of ``sample_id``: each unsafe byte becomes ``~XX``; long ids are cut and hashed."""
    key = _UNSAFE.sub(_escape, sample_id)
    if len(key) <= MAX_KEY:
        return key
    digest = hashlib.sha256(sample_id.encode()).hexdigest()[:16]
    return f"{key[: MAX_KEY - 18].rstrip('/')}~-{digest}"  # '~-' is no escape, so no short key looks like this


def _escape(match: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in match.group().encode())
