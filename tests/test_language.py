"""Plain English: phrases of the project's old private dialect stay out of code and documents."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACES = ("forecast", "actors", "app", "README.md", "docs")
ENDINGS = (".py", ".md", ".sql", ".html")

# Each with what to write instead.
BANNED = {
    "dealt out": "shuffled",
    "of late": "recent",
    "the bar:": "baseline",
    "cannot be had": "skipped: reason",
    "gives away": "regret",
    "what came": "actual",
    "is told": "receives, is called with",
    "nobody knows": "direction unknown",
    "flatters itself": "optimistically biased",
    "picked after looking": "selected post hoc",
    "no better than a coin": "at chance (0.5)",
    "signs of life": "heartbeat",
}
_BANNED = re.compile("|".join(rf"\b{re.escape(phrase)}" + r"(?!\w)" for phrase in BANNED), re.IGNORECASE)

# Files that still have such phrases. The set only shrinks: a file that has none any more must leave it.
STILL_ALLOWED = {}


def phrases_of(text: str) -> list[str]:
    """The banned phrases of a text, also where a line ends, or a string literal is cut, within one."""
    joined = re.sub(r'\s*"?\n\s*(?:#:?|--|f?")?\s*', " ", text)
    return sorted(
        {re.sub(r"\s+", " ", found).lower() for found in _BANNED.findall(re.sub(r"\s+", " ", joined))}
    )


def files() -> list[Path]:
    """All files in which people read English."""
    found = [
        path
        for place in PLACES
        for path in ((ROOT / place).rglob("*") if (ROOT / place).is_dir() else [ROOT / place])
    ]
    return sorted(path for path in found if path.suffix in ENDINGS)


def test_phrases_are_found_across_lines_and_literals() -> None:
    assert phrases_of("# scores are dealt\n# out at random") == ["dealt out"]
    assert phrases_of('"throughput of "\n    "late"') == ["of late"]
    assert phrases_of("a -- Nobody knows\n -- it") == ["nobody knows"]
    assert phrases_of("of lateral, the bar, this told") == []


def test_code_and_documents_have_no_banned_phrase() -> None:
    found = {str(path.relative_to(ROOT)): phrases_of(path.read_text()) for path in files()}
    assert len(found) > 200
    wrong = {name: phrases for name, phrases in found.items() if phrases and name not in STILL_ALLOWED}
    assert not wrong, "\n".join(
        f"{name}: {phrase!r}: write {BANNED[phrase]!r}"
        for name, phrases in wrong.items()
        for phrase in phrases
    )


def test_allowed_files_still_need_to_be_allowed() -> None:
    stale = {
        name
        for name in STILL_ALLOWED
        if not (ROOT / name).is_file() or not phrases_of((ROOT / name).read_text())
    }
    assert not stale, f"no banned phrase any more: take {sorted(stale)} out of STILL_ALLOWED"
