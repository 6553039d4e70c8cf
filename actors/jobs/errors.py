"""Errors between this machine and a cluster's head, with what to do about them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from ray.exceptions import AuthenticationError

from forecast.errors import ForecastError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
UPLOAD_SECONDS = 600.0


class HeadUnreachable(ForecastError):
    """No answer from the head: it, the network or this machine was away. Trying again may help."""


_NO_ANSWER = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,  # the connection broke within an answer
    ConnectionError,
)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Errors of Ray and of HTTP as ours."""
    try:
        yield
    except AuthenticationError as error:
        raise ForecastError(about_tokens(url, str(error))) from None
    except requests.exceptions.JSONDecodeError:
        raise ForecastError(f"what answers at {url} is no Ray dashboard; {_CHECK}") from None
    except _NO_ANSWER as error:
        raise HeadUnreachable(f"no Ray head answers at {url} ({_cause(error)}); {_CHECK}") from None
    except (requests.RequestException, KeyError) as error:
        raise ForecastError(f"what answers at {url} is no Ray dashboard ({error}); {_CHECK}") from None
    except RuntimeError as error:  # Ray's word for a refusal
        raise ForecastError(_refusal(url, str(error))) from None


_CHECK = (
    "check --address (the head's dashboard, port 8265; `kubectl port-forward` or `ssh -L` where it is not "
    "open to this machine)"
)


def _cause(error: BaseException) -> str:
    # Ray raises its own error while it handles the one that says why.
    text = str(error.__context__ or error)
    for known, said in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "the host is not known"),
        ("nodename nor servname", "the host is not known"),
        ("Temporary failure in name resolution", "the host is not known, or there is no network"),
        ("No route to host", "no route to the host"),
        ("Network is unreachable", "there is no network"),
        ("Read timed out", f"no answer within {ANSWER_SECONDS:g} s"),
        ("timed out", f"no connection within {CONNECT_SECONDS:g} s"),
        (
            "CERTIFICATE_VERIFY_FAILED",
            "its certificate is not trusted; REQUESTS_CA_BUNDLE names a file of others",
        ),
    ):
        if known in text:
            return said
    return text[:200] or type(error).__name__


def about_tokens(url: str, text: str) -> str:
    """The token is missing here, or is not the cluster's."""
    mode, path = os.environ.get("RAY_AUTH_MODE", "").lower(), os.environ.get("RAY_AUTH_TOKEN_PATH")
    where = (
        "RAY_AUTH_TOKEN"
        if os.environ.get("RAY_AUTH_TOKEN")
        else f"the file {path} (RAY_AUTH_TOKEN_PATH)"
        if path
        else "~/.ray/auth_token"
    )
    missing = ("no authentication token was found", "couldn't find an authentication token")
    if "cannot be opened or is empty" in text or (mode == "token" and any(word in text for word in missing)):
        return (
            f"there is no token for {url}: {where} is missing or empty; put the cluster's token there, or "
            "set RAY_AUTH_TOKEN_PATH to the file that holds it"
        )
    if "Missing authentication token" in text or mode != "token":
        return (
            f"{url} asks for a token, and none was sent: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to "
            "the file that holds the cluster's token (on the head: ~/.ray/auth_token, or the secret of its "
            "manifest)"
        )
    return (
        f"{url} refuses the token of {where}: it is not this cluster's; get the cluster's token and set "
        "RAY_AUTH_TOKEN_PATH to the file that holds it"
    )


def _refusal(url: str, text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    last = lines[-1].strip().rstrip(".") if lines else text
    if "No space left" in text or "ENOSPC" in text:
        return f"the disk of the head at {url} is full ({last}); make room there (Ray's folder is /tmp/ray)"
    if "Version check returned 404" in text:
        return f"what answers at {url} is no Ray dashboard; {_CHECK}"
    return f"{url} refused: {last}"
