"""Which n-grams of some texts occur in a corpus: exact matches of normalised words or characters.

Memory is that of the texts, whatever the size of the corpus: their n-grams are numbered, and what streams by
is looked up. An n-gram is a 64-bit sum of random numbers of its symbols times powers of an odd number, modulo
2^64; among m n-grams of the texts and c of the corpus, m c / 2^64 are expected to match by chance (1e6 and
1e11: 0.005), so matches are not compared letter by letter.

Why that is fast: a window with a symbol that none of the texts has cannot match, and is dropped first.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NgramUnit = Literal["words", "characters"]

_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"\s+")
_ODD = 0x9E3779B97F4A7C15
_LONG = 1 << 20  # characters of a piece that are worked on at once


@dataclass(frozen=True)
class NgramMatches:
    """One text: how many of its n-grams the corpus has."""

    ngrams: int  # 0 where the text is shorter than n
    matched: int
    longest_run: int  # symbols (words or characters) of the longest stretch that is covered by matches
    excerpt: str  # that stretch, normalised; of equals the first

    @property
    def share(self) -> float | None:
        """Of the n-grams; None where there are none."""
        return self.matched / self.ngrams if self.ngrams else None


def symbols_of(text: str, unit: NgramUnit) -> list[str]:
    """Words: runs of letters, digits and underscores, case folded. Characters: case folded, any white space
    one blank.
    """
    return _WORD.findall(text.casefold()) if unit == "words" else list(_one_blank(text))


def _one_blank(text: str) -> str:
    return _SPACE.sub(" ", text.casefold())


class Overlap:
    """Texts against a corpus that is fed piece by piece."""

    def __init__(self, texts: Sequence[str], n: int, unit: NgramUnit) -> None:
        """Args: n: symbols of an n-gram, 1 or more."""
        self._n, self._unit = n, unit
        self._symbols = [symbols_of(text, unit) for text in texts]
        known = sorted({symbol for symbols in self._symbols for symbol in symbols})
        self._ids = {symbol: i + 1 for i, symbol in enumerate(known)}  # 0: in none of the texts
        rng = np.random.default_rng(0)
        self._values = rng.integers(1, 2**63, size=len(known) + 1, dtype=np.uint64)
        self._powers = np.array([pow(_ODD, k, 2**64) for k in range(n)], np.uint64)
        codes = [ord(symbol) for symbol in known] if unit == "characters" else []
        self._table = np.zeros(max(codes, default=0) + 2, np.int64)  # of code points; the last: any beyond
        self._table[codes] = np.arange(1, len(codes) + 1)
        self._grams = [self._hashes(self._encoded(text)) for text in texts]
        self._all = np.unique(np.concatenate([np.zeros(0, np.uint64), *self._grams]))
        self._seen = np.zeros(len(self._all), bool)
        self._carry = np.zeros(0, np.int64)  # the last symbols of the piece before
        self._word = ""  # the end of that piece, which may be the beginning of a word or of white space

    @property
    def ngrams(self) -> int:
        """Different n-grams of the texts."""
        return len(self._all)

    def feed(self, text: str, starts: bool) -> None:
        """A piece of the corpus; `starts`: of a new document, to which nothing before belongs."""
        if starts:
            self._finish()
        for at in range(0, len(text), _LONG):
            self._part(self._word + text[at : at + _LONG])

    def results(self) -> list[NgramMatches]:
        """Each text's matches with all that was fed."""
        self._finish()
        return [
            self._found(symbols, grams) for symbols, grams in zip(self._symbols, self._grams, strict=True)
        ]

    def _part(self, text: str) -> None:
        # What a piece ends with may go on in the next one: keep it back.
        cut = len(text)
        same: Callable[[str], bool] = (
            (lambda c: c == "_" or c.isalnum()) if self._unit == "words" else str.isspace
        )
        while cut and same(text[cut - 1]) and len(text) - cut < _LONG:
            cut -= 1
        self._word = text[cut:]
        self._look_up(text[:cut])

    def _finish(self) -> None:
        self._look_up(self._word)
        self._word, self._carry = "", self._carry[:0]

    def _look_up(self, text: str) -> None:
        ids = np.concatenate([self._carry, self._encoded(text)])
        self._carry = ids[max(0, len(ids) - self._n + 1) :] if self._n > 1 else ids[:0]
        if len(self._all) == 0:
            return
        hashes = self._hashes(ids)
        places = np.searchsorted(self._all, hashes)
        places[places == len(self._all)] = 0
        self._seen[places[self._all[places] == hashes]] = True

    def _encoded(self, text: str) -> NDArray[np.int64]:
        """Numbers of the text's symbols."""
        if self._unit == "characters":
            data = _one_blank(text).encode("utf-32-le", "surrogatepass")
            places = np.minimum(np.frombuffer(data, np.uint32), len(self._table) - 1)
            return np.asarray(self._table[places])
        symbols, get = symbols_of(text, "words"), self._ids.get
        return np.fromiter((get(symbol, 0) for symbol in symbols), np.int64, len(symbols))

    def _hashes(self, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Of the n-grams of known symbols alone, in order."""
        unknown = np.concatenate([[0], np.cumsum(ids == 0)])
        if len(ids) < self._n:
            return np.zeros(0, np.uint64)
        known = unknown[self._n :] == unknown[: -self._n]
        starts, values = np.flatnonzero(known), self._values[ids]
        if 4 * len(starts) < len(known):
            total = np.zeros(len(starts), np.uint64)
            for k in range(self._n):
                total += values[starts + k] * self._powers[k]
            return total
        total = np.zeros(len(known), np.uint64)  # of all: going through them in order is faster than picking
        for k in range(self._n):
            total += values[k : k + len(known)] * self._powers[k]
        return total[starts]

    def _found(self, symbols: Sequence[str], grams: NDArray[np.uint64]) -> NgramMatches:
        hit = self._seen[np.searchsorted(self._all, grams)] if len(grams) else np.zeros(0, bool)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], hit, [False]]).astype(np.int8)))
        starts, ends = edges[::2], edges[1::2]
        if not len(starts):
            return NgramMatches(len(grams), 0, 0, "")
        best = int(np.argmax(ends - starts))
        first, last = int(starts[best]), int(ends[best]) + self._n - 1
        joined = (" " if self._unit == "words" else "").join(symbols[first:last])
        return NgramMatches(len(grams), int(hit.sum()), last - first, joined)
