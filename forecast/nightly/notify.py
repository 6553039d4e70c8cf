"""Alerts told to people: posted to a webhook as JSON, or given to a command on its standard input.

A webhook's URL is a secret, since whoever has it can post: messages name its scheme and host only, never its
path, and never what the server answered, which may repeat the path.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from forecast.config.nightly import Deliver
from forecast.nightly.records import Alert, Night
from forecast.nightly.webhook import PostError, place_of, post

_COMMAND_SECONDS = 60.0
_POST_SECONDS = 20.0  # for one try, the look-up of the name included
_WAITS = (1.0, 4.0)  # seconds before the second and the third try
_LONGEST_WAIT = 30.0
_MOST_IN_TEXT = 20  # alerts; services cut long messages at places of their own choice
_LONGEST_COMPLAINT = 200  # characters of what a command says on its standard error

Post = Callable[[str, bytes, float], None]


def deliver(
    night: Night,
    alerts: Sequence[Alert],
    targets: Sequence[Deliver],
    *,
    environ: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, ...]:
    """Tell every target about these alerts; without alerts nobody is told anything.

    A try that got no answer is repeated, so a service may hear of an alert twice.

    Returns:
        What went wrong, in words: at most one message for each target, in their order. One target's failure
        does not keep the others from being told.
    """
    if not alerts:
        return ()
    body = json.dumps(message(night, alerts), indent=1, ensure_ascii=False, allow_nan=False).encode()
    found = (_tell(target, body, environ, sleep) for target in targets)
    return tuple(problem for problem in found if problem is not None)


def message(night: Night, alerts: Sequence[Alert]) -> dict[str, Any]:
    """What is sent: `text` for people, which chat services show, and the rest for programs."""
    count = f"{len(alerts)} alert{'s' if len(alerts) != 1 else ''}"
    lines = [f"{night.config}, night of {night.date}: {count}"]
    lines += [f"- {alert.text}" for alert in alerts[:_MOST_IN_TEXT]]
    if len(alerts) > _MOST_IN_TEXT:
        lines.append(f"... and {len(alerts) - _MOST_IN_TEXT} more, all in the night's report")
    return {
        "text": _for_chat("\n".join(lines)),
        "config": night.config,
        "date": night.date,
        "alerts": [asdict(alert) for alert in alerts],
    }


def _for_chat(text: str) -> str:
    """Chat services read `<!channel>` as a call to everybody, and an error may hold anything."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _tell(
    target: Deliver, body: bytes, environ: Mapping[str, str], sleep: Callable[[float], None]
) -> str | None:
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
    return _post(url, body, sleep)


def _post(url: str, body: bytes, sleep: Callable[[float], None]) -> str | None:
    """Up to three tries."""
    tries = 0
    while True:
        tries += 1
        try:
            _within(_POST_SECONDS, lambda: post(url, body, _POST_SECONDS))
            return None
        except PostError as error:
            if error.passing and tries <= len(_WAITS):
                sleep(min(error.wait if error.wait is not None else _WAITS[tries - 1], _LONGEST_WAIT))
                continue
            times = f" ({tries} tries)" if tries > 1 else ""
            return f"alerts were not delivered to {place_of(url)}: {error}{times}"


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do it, but for no longer than this.

    A socket's own limit begins anew with each byte, and the look-up of a name has none.

    Raises:
        PostError: it took longer, or `work` raised it.
    """
    raised: list[BaseException] = []

    def working() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=working, name="webhook", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise PostError(f"no answer within {seconds:g} s", passing=True)
    if raised:
        raise raised[0]


def _run(command: Sequence[str], body: bytes) -> str | None:
    """The command's arguments may hold secrets: messages name the program only."""
    name = f"alerts were not delivered by the command {command[0]!r}"
    # Files, not pipes: a command need not read what it is given, and what it leaves behind cannot hold us up.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaint:
        given.write(body)
        given.seek(0)
        try:
            process = subprocess.Popen(
                command, stdin=given, stdout=subprocess.DEVNULL, stderr=complaint, start_new_session=True
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
    lines = re.sub(r"[^\S\n]+|[\x00-\x09\x0b-\x1f\x7f]", " ", said.decode(errors="replace")).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last[:_LONGEST_COMPLAINT]
