"""Tell a chat or an alerting service how the night was: one POST of JSON, tried again, never in the verdict's way."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from e4t_core.errors import UsageError, UserError

VARIABLE = "NIGHTLY_WEBHOOK"
"""Not ``E4T_...``: those are passed on to Ray's workers, whose dashboard shows them."""
PAUSES = (1.0, 5.0, 15.0)
"""Seconds between the tries."""
_TIMEOUT = 10.0
_HOPELESS = range(400, 500)
_BUSY = {408, 425, 429}


class WebhookError(UserError):
    """Nothing took the summary."""


def address(configured: str | None) -> str | None:
    """Where to post; None if nowhere.

    Raises:
        UsageError: it is no http address.
    """
    url = configured or os.environ.get(VARIABLE) or None
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise UsageError(f"the webhook {hidden(url)} is no address to post to: give https://... or http://...")
    return url


def hidden(url: str) -> str:
    """The address without what makes it a secret: its path, user and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}/..."


def post(url: str, payload: Mapping[str, Any], pauses: Sequence[float] | None = None) -> None:
    """Post ``payload``; a refusal that may pass (no answer, 408, 425, 429, 5xx) is tried again after each pause.

    Args:
        pauses: in seconds; None is :data:`PAUSES`.

    Raises:
        WebhookError: it was not taken.
    """
    body = json.dumps(payload).encode()
    for pause in (*(PAUSES if pauses is None else pauses), None):
        refusal = _once(url, body)
        if refusal is None:
            return
        reason, passing = refusal
        if pause is None or not passing:
            raise WebhookError(f"the webhook {hidden(url)} did not take the summary: {reason}")
        time.sleep(pause)


def _once(url: str, body: bytes) -> tuple[str, bool] | None:
    """None if it was taken; else why not, and whether it may be taken later."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return None
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code} {error.reason}", error.code not in _HOPELESS or error.code in _BUSY
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}", True
