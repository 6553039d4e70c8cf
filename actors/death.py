"""Why a scoring process died, out of Ray's long messages."""

import re

from ray.exceptions import RayError

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r"\bip(?:=|: )([0-9a-f.:]+)")
_LONGEST = 300


def cause_of(error: RayError) -> str:
    """One line: the error of its start or Ray's reason, and the address of its machine where Ray tells it."""
    text = _COLOURS.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    reasons = [line for line in lines if line.startswith("The actor is dead because")]
    cause = reasons[0].partition(". Some common causes")[0] if reasons else lines[-1]
    place = _PLACE.search(text)
    return cause[:_LONGEST] + (f" (on {place[1]})" if place else "")
