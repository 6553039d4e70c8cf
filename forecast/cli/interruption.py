"""Ctrl-C and SIGTERM, which Kubernetes and `ray job stop` send first, end a command in the same way."""

import os
import signal
import time
from types import FrameType

RESUME = "interrupted; run the same command again to resume"
_SETTLE_SECONDS = 10.0  # for cleaning up, undisturbed by more of the same


class Interruption:
    """Turns the signals into a `KeyboardInterrupt` in the main thread, and remembers which it was."""

    def __init__(self) -> None:
        """Takes the signals over for the rest of the process."""
        self._pid, self._at = os.getpid(), 0.0
        self.signal: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    @property
    def exit_code(self) -> int:
        """By the convention of shells: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def end(self) -> None:
        """From here on the process only exits."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a child that was forked: it ends as if there were no handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self.signal is None or time.monotonic() - self._at > _SETTLE_SECONDS:
            self.signal, self._at = self.signal or number, time.monotonic()
            raise KeyboardInterrupt
