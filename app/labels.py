"""Where the names of a scatter's dots go: beside their dot, covering neither each other nor another dot.

Positions are in pixels, x to the right and y downwards. Greedy: every dot in turn takes the first free place
around it, near ones first. A name that finds none is left out, and the caller says so. A name must not be
taken for another dot's: it stands nearest to its own, or is joined to it by a line.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

CHARACTER = 6.2  # average width of a character at 11 px, measured on names in Streamlit's font
LINE = 13  # height of a line at 11 px
DOT = 6  # radius of a dot with its margin
LONGEST = 30  # characters of a name that are shown

Align = Literal["left", "right", "center"]


class Spot(NamedTuple):
    """The anchor of a name: its left end, right end or middle, at half its height."""

    x: float
    y: float
    align: Align
    far: bool  # so far from its dot that a line should join the two


class Box(NamedTuple):
    """left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def touches(self, other: "Box") -> bool:
        """Whether the two share any area."""
        beside = self.left < other.right and other.left < self.right
        return beside and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: "Box") -> bool:
        """Whether the other lies within this one."""
        wide = self.left <= other.left and other.right <= self.right
        return wide and self.top <= other.top and other.bottom <= self.bottom


def shortened(name: str) -> str:
    """The name as it is drawn."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def place(
    dots: Sequence[tuple[float, float]],
    names: Sequence[str],
    width: float,
    height: float,
    bars: Sequence[tuple[float, float]] = (),
) -> list[Spot | None]:
    """A spot for every dot's name within a plot of this size, None where there is no room.

    Args:
        dots: x, y.
        bars: top and bottom of each dot's error bar. Names keep clear of the bars where they can, and rather
            cross one than be left out.
    """
    plot = Box(0, 0, width, height)
    taken = [Box(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    lines = [Box(x - 1, top, x + 1, bottom) for (x, _), (top, bottom) in zip(dots, bars, strict=False)]
    found: list[Spot | None] = []
    for (x, y), name in zip(dots, names, strict=True):
        free = [
            (spot, box)
            for spot in _around(x, y)
            if plot.holds(box := _box(spot, name))
            and not any(box.touches(other) for other in taken)
            and (spot.far or not _misleading(spot, (x, y), dots))
        ]
        clear = (entry for entry in free if not any(entry[1].touches(line) for line in lines))
        chosen = next(clear, free[0] if free else None)
        if chosen is not None:
            taken.append(chosen[1])
        found.append(None if chosen is None else chosen[0])
    return found


def _around(x: float, y: float) -> Iterator[Spot]:
    gap = DOT + 3
    yield Spot(x + gap, y, "left", False)
    yield Spot(x - gap, y, "right", False)
    yield Spot(x, y - DOT - LINE / 2, "center", False)
    yield Spot(x, y + DOT + LINE / 2, "center", False)
    for lines in range(1, 9):
        far = lines > 1
        reach = gap + (10 if far else 0)
        for dy in (-lines * LINE, lines * LINE):
            yield Spot(x - reach, y + dy, "right", far)
            yield Spot(x + reach, y + dy, "left", far)


def _misleading(spot: Spot, own: tuple[float, float], dots: Sequence[tuple[float, float]]) -> bool:
    """Whether another dot is clearly nearer to the name than its own; 2 px are not clear to the eye."""
    reach = math.dist((spot.x, spot.y), own) - 2
    return any(math.dist((spot.x, spot.y), dot) < reach for dot in dots)


def _box(spot: Spot, name: str) -> Box:
    width = CHARACTER * len(shortened(name))
    left = {"left": spot.x, "right": spot.x - width, "center": spot.x - width / 2}[spot.align]
    return Box(left, spot.y - LINE / 2, left + width, spot.y + LINE / 2)
