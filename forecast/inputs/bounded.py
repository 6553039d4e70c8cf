"""Work on a stranger's file in a process of its own, under limits of time and memory.

Parsers fail on hostile files in ways that no `except` catches: they loop, take all memory or die of a signal.
Here that ends a helper process, and the caller gets a sentence. The process is kept for the next call, as
importing a library takes seconds, and replaced once it had to be ended.
"""

import atexit
import contextlib
import math
import os
import pickle
import resource
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from forecast.errors import ForecastError, described
from forecast.inputs import child_process

SECONDS = 60.0
MEMORY = 4 << 30  # bytes, above what the helper process holds already
_START_SECONDS = 300.0  # to start the helper and import the function's module, on a machine that is busy
_END_SECONDS = 10.0

_T = TypeVar("_T")


class BoundedError(Exception):
    """Why a call gave no value, as part of a sentence, e.g. `it was not done after 60 seconds`.

    `is_its_own`: the function raised an error, so it would raise it again; else a limit was exceeded or the
    process died, which another machine may not do.
    """

    def __init__(self, why: str, is_its_own: bool = False) -> None:
        super().__init__(why)
        self.is_its_own = is_its_own


def bounded(
    function: Callable[..., _T], *arguments: Any, seconds: float = SECONDS, memory: int = MEMORY
) -> _T:
    """The value of `function(*arguments)`, computed in the helper process; calls take turns.

    Args:
        function: one that a module has by its name; function, arguments and value can be pickled.
        seconds: of wall clock, imports of the function's module not included.
        memory: bytes that it may take.

    Raises:
        BoundedError: it exceeded a limit, its process died, or it raised what is no ForecastError.
        ForecastError: the one that it raised.
    """
    with _lock:
        helper = _running()
        try:
            kind, answer = helper.ask((function, arguments, seconds, memory), seconds)
        except BaseException:  # Ctrl-C among them: an answer that comes late belongs to no question
            helper.end()
            raise
    if kind == "value":
        value: _T = answer
        return value
    raise answer if kind == "error" else BoundedError(answer, is_its_own=kind == "raised")


class _Helper:
    """The helper process as its user sees it."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        code = f"from forecast.inputs.bounded import serve; serve({theirs.fileno()})"
        self._process = subprocess.Popen(
            child_process.python("-c", code),
            env=child_process.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the process that waits
        )
        theirs.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: object, seconds: float) -> tuple[str, Any]:
        """The kind of the answer (`value`, `error`, `raised`, `failed`) and the answer itself."""
        try:
            self._connection.send(question)
            if not self._connection.poll(_START_SECONDS):
                raise BoundedError(f"a helper process did not start within {_START_SECONDS:g} seconds")
            self._connection.recv()
            if not self._connection.poll(seconds):
                raise BoundedError(f"it was not done after {seconds:.3g} seconds")
            found: tuple[str, Any] = self._connection.recv()
            return found
        except (EOFError, ConnectionError):
            raise BoundedError(self._cause_of_death()) from None

    def end(self) -> None:
        """End the process and what it may have started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in a file system that does not answer
            self._process.wait(_END_SECONDS)
        self._connection.close()

    def _cause_of_death(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        status = self._process.returncode
        if status is None:
            return "the process that read it does not answer"
        also = "; it may have run out of memory" if -status in (signal.SIGKILL, signal.SIGABRT) else ""
        return f"the process that read it ended with {child_process.how_ended(status)}{also}"


_lock = threading.Lock()
_helper: _Helper | None = None


def _running() -> _Helper:
    global _helper
    if _helper is None or not _helper.alive:
        _helper = _Helper()
    return _helper


@atexit.register
def _end() -> None:
    if _helper is not None:
        _helper.end()


def _forget() -> None:
    """A forked process has a helper of its own."""
    global _lock, _helper
    _lock, _helper = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)


def serve(descriptor: int) -> None:
    """The helper process: answer questions until nobody can ask any more."""
    connection = Connection(descriptor)
    threading.Thread(target=_end_with_the_asker, args=(descriptor,), daemon=True).start()
    child_process.limit(resource.RLIMIT_CORE, 0)
    while True:
        connection.send_bytes(_answer(connection))


def _end_with_the_asker(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # a hangup is reported unasked
    poll.poll()
    os._exit(0)


def _answer(connection: Connection) -> bytes:
    question = connection.recv_bytes()
    limits = "its limits"
    try:
        function, arguments, seconds, memory = pickle.loads(question)
        connection.send("begun")
        limits = f"{memory / (1 << 30):.3g} GiB of memory"
        _set_limits(seconds, memory)
        return pickle.dumps(("value", function(*arguments)))
    except ForecastError as error:
        return pickle.dumps(("error", error))
    except MemoryError:
        return pickle.dumps(("failed", f"it needs more than {limits}"))
    except BaseException as error:  # a panic in Rust is no Exception
        return pickle.dumps(("raised", described(error)))


def _set_limits(seconds: float, memory: int) -> None:
    """Bounds that the kernel keeps, also when nobody is left to wait for the answer."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    processors = math.ceil(used.ru_utime + used.ru_stime + (1 + seconds) * (os.cpu_count() or 1))
    child_process.limit(resource.RLIMIT_CPU, processors)
    if (sizes := Path("/proc/self/statm")).exists():
        # Private memory only: a file of any size may be mapped.
        held = int(sizes.read_text().split()[5]) * resource.getpagesize()
        child_process.limit(resource.RLIMIT_DATA, held + memory)
