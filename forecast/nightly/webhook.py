"""One HTTP POST of JSON to a URL that is a secret."""

import http
import ipaddress
import socket
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import SplitResult, urlsplit


class PostError(Exception):
    """Why a post failed, in words that hold nothing of the URL but its host.

    Attributes:
        passing: whether another try may succeed.
        wait: seconds after which the server wants to be asked again; None where it did not say.
    """

    def __init__(self, words: str, passing: bool = False, wait: float | None = None) -> None:
        super().__init__(words)
        self.passing = passing
        self.wait = wait


def post(url: str, body: bytes, timeout: float) -> None:
    """Post JSON once; redirects are not followed, proxies of the environment are used.

    Args:
        timeout: seconds for connecting and for each read.

    Raises:
        PostError: the URL cannot be used, nobody answered, or the answer was not 2xx.
    """
    parts = _checked(url)
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if _is_loopback(parts.hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        url,
        data=body,
        method="POST",
        headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "proxy-forecast"},
    )
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused(error) from None
    except urllib.error.URLError as error:
        raise PostError(_network_words(error.reason, timeout), passing=True) from None
    except (OSError, HTTPException) as error:
        raise PostError(_network_words(error, timeout), passing=True) from None


def place_of(url: str) -> str:
    """Scheme and host: what of a webhook's URL may be shown."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "a webhook"
    if not parts.hostname or parts.scheme not in ("http", "https"):
        return "a webhook"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Where a redirect leads is the server's choice, and what is posted is ours."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise PostError("its URL cannot be read; expected https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise PostError("its URL holds a user name or password, which is not supported; use a URL without")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise PostError("it is not encrypted; only https is used beyond this machine")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refused(error: urllib.error.HTTPError) -> PostError:
    phrases = {status.value: status.phrase for status in http.HTTPStatus}
    words = f"it answered {error.code} {phrases.get(error.code, '')}".rstrip()
    if 300 <= error.code < 400:
        return PostError(f"{words}, a redirect, which is not followed; give the URL that it leads to")
    passing = error.code == http.HTTPStatus.TOO_MANY_REQUESTS or error.code >= 500
    return PostError(words, passing, _seconds(error.headers.get("Retry-After")) if passing else None)


def _seconds(retry_after: str | None) -> float | None:
    """A date in its place is not read."""
    return float(retry_after) if retry_after is not None and retry_after.strip().isdecimal() else None


def _network_words(reason: object, timeout: float) -> str:
    """Only what the system says: other exceptions may hold the URL."""
    if isinstance(reason, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {reason.verify_message}"
    if isinstance(reason, socket.gaierror):
        return "there is no address for this host"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return f"the connection failed ({type(reason).__name__})"
