"""Calls in the helper process: what comes back, and how each limit ends one without ending the others."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from operator import add
from pathlib import Path

import pytest

from forecast.errors import InputError
from forecast.inputs.bounded import BoundedError, bounded
from forecast.inputs.files import local_path


def process_of_the_helper() -> int:
    return bounded(os.getpid)


def test_value_comes_back_from_one_process_that_is_kept() -> None:
    assert bounded(add, 2, 3) == 5
    assert process_of_the_helper() == process_of_the_helper() != os.getpid()


def test_errors_of_ours_come_back_as_they_are() -> None:
    with pytest.raises(InputError, match="no-such-package"):
        bounded(local_path, "package://no-such-package/x")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('a\\nb')", r"^ValueError: a b$"),
        ("raise SystemExit(3)", "^SystemExit: 3$"),
        ("raise KeyboardInterrupt", "^KeyboardInterrupt$"),
        ("f = lambda n: f(n); f(0)", "^RecursionError"),
    ],
)
def test_errors_of_others_are_one_line(code: str, message: str) -> None:
    before = process_of_the_helper()
    with pytest.raises(BoundedError, match=message) as caught:
        bounded(exec, code, {})
    assert caught.value.is_its_own
    assert process_of_the_helper() == before


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(99)", "2 ** 10 ** 10"])
def test_call_that_takes_too_long_is_ended(code: str) -> None:
    process_of_the_helper()
    begun = time.monotonic()
    with pytest.raises(BoundedError, match=r"^it was not done after 0\.5 seconds$") as caught:
        bounded(exec, code, {}, seconds=0.5)
    assert not caught.value.is_its_own
    assert time.monotonic() - begun < 10
    assert bounded(add, 2, 3) == 5


def test_memory_is_limited_for_each_call_anew() -> None:
    size = 100 << 20
    for _ in range(3):  # what one call took, the next may take
        assert bounded(len, bytes(10)) == 10
        with pytest.raises(BoundedError, match=r"^it needs more than 0\.0625 GiB of memory$"):
            bounded(bytearray, size, memory=64 << 20)
    assert len(bounded(bytearray, size, memory=4 * size)) == size


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_process_that_dies_is_named_by_its_signal(number: signal.Signals) -> None:
    with pytest.raises(BoundedError, match=rf"ended with {number.name}"):
        bounded(signal.raise_signal, number)
    with pytest.raises(BoundedError, match="exit code 7"):
        bounded(os._exit, 7)
    assert bounded(add, 2, 3) == 5


def test_helper_ends_with_the_process_that_asks() -> None:
    script = """
        import os, threading, time
        from forecast.inputs.bounded import bounded
        print(bounded(os.getpid), flush=True)
        threading.Thread(target=bounded, args=(time.sleep, 99), daemon=True).start()
        time.sleep(0.5)
        os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    deadline = time.monotonic() + 10
    while Path("/proc", done.stdout.strip()).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
