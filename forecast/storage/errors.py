"""Errors of disks and object stores, with what to do about them."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from forecast.errors import ForecastError

# The AWS client names its errors so, whatever store it talks to.
_NAME = re.compile(r"AWS Error (\w+)")
FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there or correct the path"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "allow this user to use it"),
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "move away what lies there or correct the path"
    ),
    errno.ELOOP: "correct the links there",
    errno.ENAMETOOLONG: "choose shorter names",
}
_REFUSED = frozenset(
    {
        "ACCESS_DENIED",
        "EXPIRED_TOKEN",
        "INVALID_ACCESS_KEY_ID",
        "INVALID_CLIENT_TOKEN_ID",
        "INVALID_SIGNATURE",
        "MISSING_AUTHENTICATION_TOKEN",
        "REQUEST_EXPIRED",
        "SIGNATURE_DOES_NOT_MATCH",
        "UNRECOGNIZED_CLIENT",
    }
)


class StorageError(ForecastError, OSError):
    """A disk or an object store did not do what it was asked; names the path and what to check."""


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Errors of the system, but not that a file is missing, become a `StorageError` about `path`."""
    try:
        yield
    except (FileNotFoundError, ForecastError):
        raise
    except OSError as error:
        raise StorageError(explanation(path, error)) from error


def explanation(path: str, error: OSError) -> str:
    """What went wrong at a path, and what to do about it."""
    if "://" not in path:
        fix = FIXES.get(error.errno or 0, "correct the path or what lies there")
        return f"{path}: {error.strerror or error}; {fix}, then retry"
    bucket = path.partition("://")[2].partition("/")[0]
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    place = (
        f"the object store at {endpoint}" if endpoint else "the object store (AWS_ENDPOINT_URL is not set)"
    )
    named = _NAME.search(str(error))
    match named[1] if named else None:
        case "NO_SUCH_BUCKET":
            return no_bucket(path)
        case "NETWORK_CONNECTION":
            return (
                f"{path}: {place} does not answer; check AWS_ENDPOINT_URL (with http://, host and port) "
                f"and the network\n  {error}"
            )
        case name if name in _REFUSED or "HTTP status 403" in str(error):
            return (
                f"{path}: {place} refuses these credentials for {bucket!r}; check AWS_ACCESS_KEY_ID, "
                f"AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN, AWS_PROFILE) and what they may do\n  {error}"
            )
    return f"{path}: {place} failed: {error}"


def no_bucket(path: str) -> str:
    """That a path leads into a bucket which does not exist."""
    bucket = path.partition("://")[2].partition("/")[0]
    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL") or "this account's object store (AWS_ENDPOINT_URL is not set)"
    )
    return f"{path}: there is no bucket {bucket!r} at {endpoint}; create it or correct the path"
