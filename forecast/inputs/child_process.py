"""Processes of our own in which strangers' files are read: how they start, are bounded and end."""

import os
import resource
import signal
import sys
from pathlib import Path


def python(*arguments: str) -> list[str]:
    """The command of a Python that imports nothing from the current folder (-P)."""
    return [sys.executable, "-P", *arguments]


def environment() -> dict[str, str]:
    """Where this process finds modules, the new one finds them, but never in the current folder."""
    path = [*filter(None, sys.path), str(Path(__file__).parents[2])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def limit(kind: int, bound: int) -> None:
    """Bound what this process may take, as far as it may; `kind` is one of `resource.RLIMIT_*`."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))


def how_ended(code: int) -> str:
    """The name of the signal that ended a process, or its exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
