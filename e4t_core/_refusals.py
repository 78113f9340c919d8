"""What a location says when it refuses, in words that help."""

from __future__ import annotations

import errno
import importlib
from typing import Any


def library_errors(fs: Any) -> tuple[type[Exception], ...]:
    """What the client library raises that is no OSError (no credentials, no route): botocore's, for S3."""
    if "s3" not in fs.protocol:
        return ()
    return (importlib.import_module("botocore.exceptions").BotoCoreError,)


def code_of(error: BaseException) -> str:
    """The object store's own error code behind ``error``, or an empty string."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def reason_of(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "no space is left there; free some or choose another --out, then run the same command again"
    if number == errno.EFBIG:
        return "the file is larger than the location or the process's limit (ulimit -f) allows"
    if isinstance(error, PermissionError) or number == errno.EROFS:
        code = code_of(error)
        return f"permission denied ({code or error}); the credentials, bucket policy or file mode must allow it"
    if type(error).__name__ == "NoCredentialsError":
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    return str(error) or type(error).__name__
