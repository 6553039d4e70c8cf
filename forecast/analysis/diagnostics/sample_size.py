"""How many instances are needed? Rho against the number of instances, drawn without replacement, seeded.

Of N instances n are drawn many times; the figures are rho with the measured scores, and rho between the
orders of two draws that share nothing (how well a second sample of n would repeat the order).

A draw without replacement varies less than a fresh sample of n would, by the factor sqrt(1 - n / N). With
that taken out, the standard deviation of rho is fitted by c / sqrt(n), the law of a mean, to the draws with
N / 4 <= n <= N / 2, and `z c / sqrt(n)` is the half-width that n instances give. Smaller draws follow that
law less (ranks jump: it told 6 where 12 were needed), so no number below N / 4 is given. Simulated in
tests/analysis/diagnostics/test_sample_size.py. It knows the noise of the trajectories alone, not that of
the measured scores nor of the choice of candidates.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from forecast.analysis.diagnostics.selection import PLACES, Question, Selection
from forecast.analysis.stats.figures import number
from forecast.analysis.stats.rank_correlation import MIN_CANDIDATES, spearman
from forecast.warehouse.features import features
from forecast.warehouse.population import Population

Array = NDArray[np.float64]

DRAWS = 200
_CHUNK = 50  # draws at a time: bounds the memory to 50 x candidates x 80 numbers and a few copies
_WANTED = (0.1, 0.05)  # half-widths for which the number of instances is given
_MOST = 10_000_000  # instances beyond which there is no use in a number


@dataclass(frozen=True)
class Point:
    """n instances of each task, drawn again and again."""

    n: int
    rho: float | None  # with the measured scores, mean of the draws
    low: float | None  # percentiles of the draws
    high: float | None
    sd: float | None  # as of fresh samples of n
    repeat: float | None  # mean rho between the orders of two draws that share nothing; None beyond N / 2


@dataclass(frozen=True)
class Needed:
    """Instances of each task that give a half-width; None where that is not known."""

    half_width: float
    instances: int | None
    reason: str | None = None  # why it is not known


@dataclass(frozen=True)
class InstancesNeeded:
    """One proxy and question."""

    proxy: str
    target: str | None
    tasks: tuple[str, ...]
    n: int  # instances of each task that there are; of tasks of different size the smallest
    n_candidates: int
    rho: float | None  # with all of them
    points: tuple[Point, ...]
    half_width: float | None  # that n instances give
    needed: tuple[Needed, ...]
    reason: str | None  # why there is no half-width


def instances_needed(
    population: Population, question: Question, proxy: str, selection: Selection, draws: int = DRAWS
) -> InstancesNeeded:
    """The curve of one proxy and question; the solutions of all experts to an instance go together."""
    size = min(len(population.proxies[task].instances) for task in question.tasks)
    have = np.isfinite(question.scores)
    measured = question.target is not None and have.sum() >= MIN_CANDIDATES
    full = features(population, question.tasks)[:, PLACES[proxy]]
    rho = number(float(spearman(full[have], question.scores[have]))) if measured else None
    rng = np.random.default_rng(selection.seed)
    points = [
        _point(
            population, question, proxy, n, size, have if measured else None, draws, selection.confidence, rng
        )
        for n in _grid(size)
    ]
    usable = [p for p in points if p.sd is not None and p.n <= size / 2 and p.n >= size / 4]
    still = [p.n for p in points if p.sd == 0]
    half_width, reason = None, None
    needed = tuple(Needed(width, None) for width in _WANTED)
    if question.target is None:
        reason = "nothing is measured"
    elif not measured:
        reason = f"{int(have.sum())} candidates are measured; a rank correlation takes {MIN_CANDIDATES}"
    elif rho is None:
        reason = "all scores or all values of the proxy are equal"
    elif len(usable) < 2:
        reason = f"{size} instances are too few to draw from"
    elif any(p.sd == 0 for p in usable):
        reason = (
            f"every draw of {min(still)} instances gives the same rho: the half-width is smaller than draws "
            "can tell"
        )
    else:
        c = math.exp(float(np.mean([math.log(p.sd * math.sqrt(p.n)) for p in usable if p.sd])))
        z = float(stats.norm.ppf(0.5 + selection.confidence / 2))
        half_width = z * c / math.sqrt(size)
        needed = tuple(_needed(width, math.ceil((z * c / width) ** 2), size) for width in _WANTED)
    return InstancesNeeded(
        proxy=proxy,
        target=question.target,
        tasks=question.tasks,
        n=size,
        n_candidates=int(have.sum()) if measured else len(full),
        rho=rho,
        points=tuple(points),
        half_width=half_width,
        needed=needed,
        reason=reason,
    )


def _needed(half_width: float, n: int, size: int) -> Needed:
    if n > _MOST:
        return Needed(half_width, None, f"more than {_MOST:,} instances")
    if 4 * n < size:
        return Needed(
            half_width, None, f"at most {math.ceil(size / 4)} instances, a quarter of those there are"
        )
    return Needed(half_width, n)


def _grid(size: int) -> list[int]:
    """1, 2, 4, 8, ..., a third and half of them, up to 80 %."""
    found = {2**k for k in range(size.bit_length())} | {size // 3, size // 2}
    return sorted(n for n in found if 1 <= n <= 0.8 * size)


def _point(
    population: Population,
    question: Question,
    proxy: str,
    n: int,
    size: int,
    have: NDArray[np.bool_] | None,
    draws: int,
    confidence: float,
    rng: np.random.Generator,
) -> Point:
    with_scores, between = [np.zeros(0)], [np.zeros(0)]
    for start in range(0, draws, _CHUNK):
        b = min(_CHUNK, draws - start)
        orders = {
            task: rng.permuted(np.tile(np.arange(len(population.proxies[task].instances)), (b, 1)), axis=1)
            for task in question.tasks
        }
        first = _values(population, question, proxy, orders, 0, n)
        if have is not None:
            with_scores.append(spearman(first[:, have], question.scores[have]))
        if 2 * n <= size:
            between.append(spearman(first, _values(population, question, proxy, orders, n, n)))
    drawn, repeat = (rho[np.isfinite(rho)] for rho in map(np.concatenate, (with_scores, between)))
    tail = (1 - confidence) / 2
    enough = len(drawn) > 1
    low, high = np.quantile(drawn, [tail, 1 - tail]) if enough else (math.nan, math.nan)
    return Point(
        n=n,
        rho=float(drawn.mean()) if enough else None,
        low=number(low),
        high=number(high),
        # Equal draws have no spread; their standard deviation would be rounding.
        sd=(float(drawn.std(ddof=1)) if np.ptp(drawn) > 1e-9 else 0.0) / math.sqrt(1 - n / size)
        if enough
        else None,
        repeat=float(repeat.mean()) if len(repeat) else None,
    )


def _values(
    population: Population,
    question: Question,
    proxy: str,
    orders: dict[str, NDArray[np.int64]],
    start: int,
    n: int,
) -> Array:
    """[b, candidates] from the instances at places start..start + n of each shuffled order."""
    weights = {}
    for task, order in orders.items():
        w = np.zeros(order.shape)
        np.put_along_axis(w, order[:, start : start + n], 1.0, axis=1)
        weights[task] = w
    return features(population, question.tasks, weights)[:, :, PLACES[proxy]]
