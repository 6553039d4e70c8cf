"""Errors that a user can act on: each says what is wrong, where, and what to do about it."""

import difflib
from collections.abc import Callable, Collection
from itertools import islice

from forecast.safe_text import without_secrets


class ForecastError(Exception):
    """Base of every error whose message alone is enough for the user; shown without a traceback.

    Its text is without the secrets of URLs, wherever it is printed, logged or stored.
    """

    def __str__(self) -> str:
        return without_secrets(super().__str__())


class ConfigError(ForecastError):
    """The configuration cannot be used; nothing was started."""


class InputError(ForecastError):
    """A file of trajectories, choices or measured scores is wrong; names the file and the line."""


class CandidateError(ForecastError):
    """The candidate itself is at fault (weights, tokenizer, numbers): retrying elsewhere cannot help."""


class PassingError(CandidateError):
    """Memory, time, the network or this machine's copy of the files: another try, elsewhere, may succeed."""


class FitError(ForecastError):
    """The data do not determine a fit, or it did not converge; there are no predictions from it."""


class NoDataError(ForecastError):
    """What was asked for has not been computed yet; the message names the command that does."""


class InterruptedRun(ForecastError):
    """The user ended it; what is done is kept."""


def shortened(value: object, write: Callable[[object], str] = ascii) -> str:
    """The start of a value of the user's, for a message."""
    text = write(value)
    return text if len(text) <= 60 else text[:57] + "..."


def described(error: BaseException) -> str:
    """What kind of error it is and the start of what it says, in one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # whoever raises an error writes its text
        text = ""
    text = text if len(text) <= 300 else text[:297] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def fault_of(error: BaseException, what: str) -> str:
    """Why one input cannot be used, for a record of it while the others go on.

    Args:
        error: any that was caught: readers run out of stack or memory, and a panic in Rust is no Exception.
        what: the input and its file, for an error that does not say so itself.

    Raises:
        BaseException: `error` is no fault of an input but ends the program.
    """
    if isinstance(error, InterruptedRun | KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    if isinstance(error, ForecastError):
        return str(error)
    return f"{what} cannot be read: {described(error)}; repair or remove it"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, and all that are known."""
    near = difflib.get_close_matches(word[:200], [name[:200] for name in islice(known, 1000)], n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {listed(known)}"


def listed(names: Collection[str]) -> str:
    """Names for a message: at most 100, each shortened where it is long."""
    more = f" and {len(names) - 100:,} more" if len(names) > 100 else ""
    return ", ".join(n if len(n) <= 60 else n[:57] + "..." for n in map(str, islice(names, 100))) + more
