"""Worlds whose truth is known, and how well decision accuracies and rankings of corpora hold in them.

    PYTHONPATH=.:tests python tests/analysis/corpora/simulations.py --worlds 200    # minutes; prints a table

The tests assert on the same figures over fewer worlds.
"""

import argparse
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.corpora.bootstrap import corpus_intervals, corpus_weights, pair_weights
from forecast.analysis.corpora.corpus_ranking import calibrated_draws, figures_of
from forecast.analysis.corpora.decision_accuracy import decision_accuracy, pair_signs
from forecast.analysis.corpora.pareto_frontier import FrontierPoint, Way, with_gains
from forecast.analysis.corpora.seed_noise import seed_draws

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Drawn = tuple[Array, Array, Array]  # centre [C], draws [D, C], truth [C]


def grouped(rng: np.random.Generator, groups: Ints, alike: float) -> Array:
    """Standard normal values [C] with an intra-class correlation of `alike` within groups."""
    shared = rng.normal(size=groups.max() + 1)[groups]
    return np.sqrt(alike) * shared + np.sqrt(1 - alike) * rng.normal(size=len(groups))


def interval_coverage(groups: Ints, r: float, alike: float, worlds: int, whole: bool = True) -> float:
    """Share of worlds in which the 95 % interval of decision accuracy holds 1/2 + arcsin(r) / pi.

    Args:
        r: correlation of small runs with targets, between groups as within.
        whole: whether groups are resampled whole; False: corpora, as if there were no groups.
    """
    truth, held = 0.5 + np.arcsin(r) / np.pi, 0
    drawn = groups if whole else np.arange(len(groups))
    for world in range(worlds):
        rng = np.random.default_rng(world)
        x = grouped(rng, groups, alike)
        y = r * x + np.sqrt(1 - r**2) * grouped(rng, groups, alike)
        weights = pair_weights(corpus_weights(drawn, 300, world))
        n = np.array([len(set(drawn))])
        (low,), (high,) = corpus_intervals(pair_signs(x)[None], pair_signs(y), n, weights, 0.95)
        held += bool(low <= truth <= high)
    return held / worlds


def gain_coverage(groups: Ints, r: tuple[float, float], alike: float, worlds: int) -> float:
    """Share of worlds in which the 95 % interval of a gain holds the true one.

    Args:
        r: correlations of two ways with the target; their noise is independent.
    """
    truth, held, n = (np.arcsin(r[1]) - np.arcsin(r[0])) / np.pi, 0, 0
    for world in range(worlds):
        rng = np.random.default_rng(world)
        y = grouped(rng, groups, alike)
        ways = [a * y + np.sqrt(1 - a**2) * grouped(rng, groups, alike) for a in r]
        points = [
            FrontierPoint(Way("m", str(k), None, 1, "proxy", float(k), decision_accuracy(x, y), x[None]))
            for k, x in enumerate(ways)
        ]
        gained = with_gains(points, y, corpus_weights(groups, 300, world), 0.95, True)[1]
        if gained.gain_low is not None and gained.gain_high is not None:  # else all resamples agree
            n += 1
            held += gained.gain_low <= truth <= gained.gain_high
    return held / n


def calibrated_world(
    world: int, corpora: int, known: int, ways: int, best: float, per_group: int = 1, alike: float = 0.0
) -> Drawn | None:
    """The best of several ways correlates by `best` with the truth, the others less; `known` have targets."""
    rng = np.random.default_rng(world)
    groups = np.arange(corpora) // per_group
    truth = grouped(rng, groups, alike)
    r = rng.uniform(0, best, size=(ways, 1))
    r[rng.integers(ways)] = best
    noise = np.stack([grouped(rng, groups, alike) for _ in range(ways)])
    goal = np.where(np.arange(corpora) < known, truth, np.nan)
    found = calibrated_draws(r * truth + np.sqrt(1 - r**2) * noise, goal, groups, 200, world)
    return None if found is None else (*found, truth)


def seeds_world(world: int, corpora: int, seeds: int, noise: float, uneven: float) -> Drawn | None:
    """Truths of deviation 1 with runs of deviation `noise`, log-normal over corpora by `uneven`."""
    rng = np.random.default_rng(world)
    truth = rng.normal(size=corpora)
    deviation = noise * np.exp(uneven * rng.normal(size=corpora))
    found = seed_draws(truth + deviation * rng.normal(size=(seeds, corpora)), world)
    return None if found is None else (*found, truth)


def ranking_figures(worlds: Iterable[Drawn | None]) -> dict[str, float]:
    """Means over worlds.

    `brier`: sum over corpora of (P(best) - is best)^2; `climatology`: the same with P = 1 / C for all.
    `held`: share of 95 % rank intervals that hold the true rank; `held_within`: the same where a rank counts
    as held in part, by the share of its probability inside the exact 95 % (randomised ranks): without the
    widening that comes from ranks being whole numbers. `said` and `right`: largest P(best), and whether that
    corpus is the best. `expected` and `paid`: regret of the first.
    """
    rows = []
    for drawn in worlds:
        if drawn is None:
            continue
        centre, draws, truth = drawn
        found = figures_of(centre, draws, centre, 0.95)
        true_rank = 1 + np.argsort(np.argsort(-truth))
        drawn_rank = 1 + np.argsort(np.argsort(-draws, axis=1), axis=1)
        below, upto = (drawn_rank < true_rank).mean(axis=0), (drawn_rank <= true_rank).mean(axis=0)
        inside = np.clip(np.minimum(upto, 0.975) - np.maximum(below, 0.025), 0, None)
        share = np.divide(inside, upto - below, out=np.zeros(len(truth)), where=upto > below)
        is_best = np.arange(len(truth)) == truth.argmax()
        first = found.order[0]
        rows.append(
            {
                "brier": ((found.p_best - is_best) ** 2).sum(),
                "climatology": 1 - 1 / len(truth),
                "held": ((found.low <= true_rank) & (true_rank <= found.high)).mean(),
                "held_within": share.mean(),
                "said": found.p_best.max(),
                "right": float(found.p_best.argmax() == truth.argmax()),
                "expected": found.regret[first],
                "paid": truth.max() - truth[first],
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--worlds", type=int, default=200)
    worlds = parser.parse_args().worlds
    print("95 % intervals of decision accuracy hold the true one: corpora resampled, groups resampled whole")
    for n_groups, size in ((7, 4), (5, 4), (10, 3)):
        for r in (0.3, 0.8, 0.95):
            for alike in (0.0, 0.5, 0.9):
                groups = np.repeat(np.arange(n_groups), size)
                shares = [interval_coverage(groups, r, alike, worlds, whole) for whole in (False, True)]
                what = f"{n_groups} bases x {size} variants, correlation {r}, alike within a base {alike}"
                print(f"{what:70s} {shares[0]:.2f} {shares[1]:.2f}")
    print("95 % intervals of a gain of decision accuracy hold the true one, groups resampled whole")
    for n_groups, size in ((25, 1), (10, 1), (7, 4)):
        for pair in ((0.3, 0.8), (0.8, 0.9), (0.6, 0.6)):
            for alike in (0.0, 0.9)[:size]:
                share = gain_coverage(np.repeat(np.arange(n_groups), size), pair, alike, worlds)
                what = f"{n_groups} bases x {size} variants, correlations {pair}, alike within a base {alike}"
                print(f"{what:70s} {share:.2f}")
    settings: list[tuple[str, Callable[[int], Drawn | None]]] = [
        (
            f"targets: {corpora} corpora, {known} known, groups of {size}, best way {best}, alike {alike}",
            lambda w, a=(corpora, known, 10, best, size, alike): calibrated_world(w, *a),  # type: ignore[misc]
        )
        for corpora, known, size, alike in (
            (25, 25, 1, 0.0),
            (25, 12, 1, 0.0),
            (28, 28, 4, 0.5),
            (28, 20, 4, 0.9),
        )
        for best in (0.0, 0.6, 0.9)
    ] + [
        (
            f"seeds: {corpora} corpora, 3 seeds, noise {noise}, uneven {uneven}",
            lambda w, a=(corpora, 3, noise, uneven): seeds_world(w, *a),  # type: ignore[misc]
        )
        for corpora in (6, 25)
        for noise in (0.3, 1.0, 3.0)
        for uneven in (0.0, 1.0)
    ]
    for what, world in settings:
        found = ranking_figures(map(world, range(worlds)))
        print(f"{what:72s}", " ".join(f"{name} {value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
