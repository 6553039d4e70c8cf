"""Delivery of alerts: posted to a webhook as JSON, or given to a command on its standard input.

A webhook's URL is a secret, since whoever has it can post: messages name its scheme and host only, never its
path, and never what the server answered, which may repeat the path.
"""

import http
import ipaddress
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader

from forecast.config.nightly import Deliver
from forecast.nightly.records import Alert, Night
from forecast.safe_text import clean, json_text

_COMMAND_SECONDS = 60.0
_POST_SECONDS = 20.0  # for connecting, and for each read of an answer
_WEBHOOK_SECONDS = 120.0  # for all tries and the waits between them
_LONGEST_WAIT = 30.0
_PASSING = (429, *range(500, 600))  # answers after which another try may succeed
_MOST_IN_TEXT = 20  # alerts; services cut long messages at places of their own choice
_LONGEST_COMPLAINT = 200  # characters of what a command says on its standard error


def deliver(
    night: Night,
    alerts: Sequence[Alert],
    targets: Sequence[Deliver],
    *,
    environ: Mapping[str, str] = os.environ,
) -> tuple[str, ...]:
    """Deliver these alerts to every target; without alerts nothing is sent.

    A try that got no answer is repeated, so a service may receive an alert twice.

    Returns:
        What went wrong, in words: at most one message for each target, in their order. One target's failure
        does not stop the delivery to the others.
    """
    if not alerts:
        return ()
    body = json_text(message(night, alerts), indent=1).encode()
    found = (_deliver_to(target, body, environ) for target in targets)
    return tuple(problem for problem in found if problem is not None)


def message(night: Night, alerts: Sequence[Alert]) -> dict[str, Any]:
    """What is sent: `text` for people, which chat services show, and the rest for programs."""
    count = f"{len(alerts)} alert{'s' if len(alerts) != 1 else ''}"
    lines = [f"{clean(night.config)}, night of {night.date}: {count}"]
    lines += [f"- {clean(alert.text)}" for alert in alerts[:_MOST_IN_TEXT]]
    if len(alerts) > _MOST_IN_TEXT:
        lines.append(f"... and {len(alerts) - _MOST_IN_TEXT} more, all in the night's report")
    return {
        "text": _for_chat("\n".join(lines)),
        "config": night.config,
        "date": night.date,
        "alerts": [asdict(alert) for alert in alerts],
    }


def _for_chat(text: str) -> str:
    """Chat services read `<!channel>` or `@channel` as a call to everybody; an error may hold anything."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?<!\w)@(?=\w)", "@ ", text)


def _deliver_to(target: Deliver, body: bytes, environ: Mapping[str, str]) -> str | None:
    if target.command is not None:
        return _run(target.command, body)
    url = target.webhook
    if target.webhook_env is not None:
        url = environ.get(target.webhook_env, "").strip()
        if not url:
            return (
                f"alerts were not delivered: the environment variable {target.webhook_env}, which is to hold "
                "a webhook's URL, is not set"
            )
    assert url is not None  # checked by Deliver
    return _post(url, body)


def _post(url: str, body: bytes) -> str | None:
    """Post JSON to a URL; up to three tries, redirects are not followed."""
    failed = f"alerts were not delivered to {place_of(url)}"
    if (problem := _url_problem(url)) is not None:
        return f"{failed}: {problem}"
    answers: list[str | None] = []
    # A socket's own limit begins anew with each byte, and the look-up of a name has none.
    thread = threading.Thread(target=lambda: answers.append(_send(url, body)), name="webhook", daemon=True)
    thread.start()
    thread.join(_WEBHOOK_SECONDS)
    problem = answers[0] if answers else f"no answer within {_WEBHOOK_SECONDS:g} s"
    return None if problem is None else f"{failed}: {problem}"


class _BoundedRetry(Retry):
    """Waits as long as the server asks for, but no longer than half a minute."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        with suppress(InvalidHeader):  # then the usual wait
            after = super().get_retry_after(response)
            return None if after is None else min(after, _LONGEST_WAIT)
        return None


def _send(url: str, body: bytes) -> str | None:
    """Post and retry; what went wrong, in words that hold nothing of the URL."""
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).setLevel(logging.ERROR)  # warnings of retries hold the URL's path
    retry = _BoundedRetry(
        total=2,
        other=0,  # such as a certificate that is not accepted
        allowed_methods=("POST",),
        status_forcelist=_PASSING,
        backoff_factor=2.0,  # no wait before the second try, 4 s before the third
        raise_on_status=False,
    )
    with requests.Session() as session:
        # Proxies of the environment are for other machines.
        session.trust_env = not _is_loopback(urlsplit(url).hostname or "")
        session.mount(url, HTTPAdapter(max_retries=retry))
        try:
            answer = session.post(
                url,
                data=body,
                headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "proxy-forecast"},
                auth=lambda request: request,  # none, not even from ~/.netrc
                timeout=_POST_SECONDS,
                allow_redirects=False,
                stream=True,  # the answer's text is not wanted
            )
        except Exception as error:  # any text may hold the URL, so none is passed on
            return _network_words(error)
        with answer:
            return _refusal(answer.status_code)


def _refusal(code: int) -> str | None:
    if 200 <= code < 300:
        return None
    phrase = {status.value: status.phrase for status in http.HTTPStatus}.get(code, "")
    words = f"it answered {code} {phrase}".rstrip()
    if 300 <= code < 400:
        return f"{words}, a redirect, which is not followed; give the URL that it leads to"
    return words


def _network_words(error: BaseException) -> str:
    """Only what the system says about the innermost cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate was not accepted: {cause.verify_message}"
        if isinstance(cause, socket.gaierror):
            return "there is no address for this host"
        if isinstance(cause, TimeoutError | requests.Timeout):
            return f"no answer within {_POST_SECONDS:g} s"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        error, cause = cause, cause.__cause__ or cause.__context__
    return f"the connection failed ({type(error).__name__})"


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


def _url_problem(url: str) -> str | None:
    """Why a URL is not used; None where it is."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        return "its URL cannot be read; expected https://HOST/PATH"
    if parts.username is not None or parts.password is not None:
        return "its URL holds a user name or password, which is not supported; use a URL without"
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        return "it is not encrypted; only https is used beyond this machine"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _run(command: Sequence[str], body: bytes) -> str | None:
    """The command's arguments may hold secrets: messages name the program only."""
    name = f"alerts were not delivered by the command {command[0]!r}"
    # Files, not pipes: a command need not read what it is given, and what it leaves behind cannot hold us up.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaint:
        given.write(body)
        given.seek(0)
        try:
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=complaint,
                start_new_session=True,
                # It may be a Python program with modules beside it, which ours does without.
                env={key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"},
            )
        except OSError as error:
            return f"{name}: {error.strerror}; it is looked for on PATH unless it is a full path"
        try:
            code = process.wait(_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"{name}: it had not ended after {_COMMAND_SECONDS:g} s and was killed"
        except BaseException:
            _end(process)
            raise
        if code == 0:
            return None
        complaint.seek(0)
        said = _last_words(complaint.read(1_000_000))
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{name}: {how}" + (f", it said: {said}" if said else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The command and what it started."""
    with suppress(ProcessLookupError):  # it ended by itself in this moment
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(said: bytes) -> str:
    lines = said.decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return clean(last)[:_LONGEST_COMPLAINT]
