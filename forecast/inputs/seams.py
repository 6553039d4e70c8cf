"""Where prompt and solution meet: they are read as one text, with nothing put between them.

A solution that begins right behind the last word of its prompt ("...left?Janet") is cut into other tokens
than any text that people wrote, of which the first has a probability that says nothing.
"""

import unicodedata
from collections.abc import Sequence

from forecast.inputs.trajectories import Trajectory

_SHOWN = 12  # characters on either side


def seam_notes(task: str, texts: Sequence[Trajectory], fix: str) -> list[str]:
    """What a user should know of texts of a task that are read as they are, without a chat template.

    Args:
        fix: the setting that would put a space between prompt and solution.
    """
    notes = []
    spaces = [t for t in texts if t.prompt[-1:].strip("\r\n").isspace() and not t.solution[:1].isspace()]
    if spaces:
        notes.append(
            f"task {task!r}: {len(spaces)} of {len(texts)} prompts end in a space; tokenizers that join it "
            "with the word behind it leave the first token of that solution or option unscored: begin it "
            "with the space instead"
        )
    if glued := [t for t in texts if _is_glued(t)]:
        first = glued[0]
        shown = f"...{first.prompt[-_SHOWN:]}{first.solution[:_SHOWN]}..."
        notes.append(
            f"task {task!r}: {len(glued)} of {len(texts)} solutions or options begin right behind their "
            f"prompt, without a space or new line ({shown!r}), which makes tokens of neither; {fix}"
        )
    return notes


def _is_glued(text: Trajectory) -> bool:
    """A word right behind a word or a sentence's end, in scripts that put spaces between words."""
    last, first = text.prompt[-1:], text.solution[:1]
    return (
        (last.isalnum() or last in tuple(".?!:;,"))
        and first.isalnum()
        and not any(
            unicodedata.east_asian_width(sign) in "WF" or "THAI" in unicodedata.name(sign, "")
            for sign in (last, first)
        )
    )
