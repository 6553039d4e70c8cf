"""Text of others (names, errors, model outputs) made safe to show, and any text without the secrets in it.

Characters that a terminal obeys, that reorder or hide what is written, or that a file format forbids are
shown as escapes (`\\x1b`, `\\u202e`), so that two names which differ in them also look different.
"""

import json
import re
from typing import Any

LONGEST = 500  # characters of somebody else's text in one place
_LONG_WORD = re.compile(rf"\S{{{LONGEST + 1},}}")

# Controls but tab and line feed, invisible characters, changes of the direction of writing, surrogates,
# characters of private use, and what is no character. The two joiners stay between letters that need them.
_HIDDEN_CHARACTERS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\ue000-\uf8ff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0xE0000, 0x10000))
)
_HIDDEN = re.compile(f"[{_HIDDEN_CHARACTERS}]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])")
_NOT_IN_JSON = re.compile(f"[{_HIDDEN_CHARACTERS}\u200c\u200d]")

# A secret may hold a slash, and then the user name before it has a colon.
_USER_INFORMATION = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,20}://)"
    r"(?:[^\s\"'<>/?#]{0,500}|[^\s\"'<>@/?#]{1,200}:[^\s\"'<>@]{0,200})@",
    re.IGNORECASE,
)
_SECRET_PARAMETER = re.compile(
    r"([?&;#][\w.%-]{0,40}(?:token|secret|key|sig|passw|pwd|credential|auth)[\w.%-]{0,40}=)[^&;\s\"'<>#]+",
    re.IGNORECASE,
)
# What a spreadsheet takes for the beginning of a formula, also behind spaces or as a full-width character.
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")


def printable(text: str) -> str:
    """The text with its lines and tabs, everything hidden in it shown as an escape."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def clean(text: str) -> str:
    """Text of others on one line, printable, without secrets, and not too long."""
    # What is cut off is not looked at: an error may hold megabytes.
    shown = without_secrets(printable(" ".join(text[: 4 * LONGEST].split())))
    return shown if len(shown) <= LONGEST and len(text) <= 4 * LONGEST else shown[: LONGEST - 1] + "…"


def words_shortened(text: str) -> str:
    """The text with names of more than `LONGEST` characters cut in their middle."""
    return _LONG_WORD.sub(lambda found: found[0][: LONGEST // 2] + "…" + found[0][-LONGEST // 2 :], text)


def without_secrets(text: str) -> str:
    """User names and passwords of URLs, and parameters such as `token=`, replaced by `***`."""
    if "://" not in text:
        return text
    return _SECRET_PARAMETER.sub(r"\1***", _USER_INFORMATION.sub(r"\1***@", text))


def json_text(value: Any, **options: Any) -> str:
    """JSON of the same value, readable, that any terminal, log reader and encoding takes; no NaN.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    return _NOT_IN_JSON.sub(lambda found: _json_escape(found[0]), text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[k : k + 4]}" for k in range(0, len(units), 4))


def spreadsheet_cell(text: str) -> str:
    """A text that no spreadsheet runs as a formula: an apostrophe stands before one that would be."""
    return f"'{text}" if _FORMULA.match(text) else text
