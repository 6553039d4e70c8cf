"""Noise ceiling: the decision accuracy of one target run against the mean of the others.

Each seed's scores are compared with the mean of the other seeds. Published for DataDecide's 1B runs:
the default seed agrees with the mean of the other two on 0.893 of pairs. It bounds a predictor that knows one
run against a target of k - 1 runs; the mean of several small runs may exceed it.
"""

from dataclasses import dataclass

import numpy as np

from forecast.analysis.corpora.decision_accuracy import decide, pair_signs
from forecast.analysis.corpora.targets import Target


@dataclass(frozen=True)
class Ceiling:
    """Of one task; null with the reason where the target has no two seeds."""

    task: str
    decision_accuracy: float | None  # mean over seeds
    by_seed: dict[str, float]
    n_pairs: int | None  # of the seed that has the most
    n_ties: int | None
    reason: str | None = None


def ceiling_of(target: Target) -> Ceiling:
    """Each seed against the mean of the others, over corpora that have them all."""
    seeds = sorted(target.by_seed)
    if len(seeds) < 2:
        why = (
            "its seeds are not in the table, only their mean" if not seeds else f"it has one seed, {seeds[0]}"
        )
        return Ceiling(target.task, None, {}, None, None, f"no noise ceiling for {target.task}: {why}")
    runs = np.stack([target.by_seed[seed] for seed in seeds])  # [seeds, corpora]
    runs = np.where(np.isfinite(runs).all(axis=0), runs, np.nan)
    found = [
        decide(pair_signs(run), pair_signs(np.delete(runs, i, axis=0).mean(axis=0)))
        for i, run in enumerate(runs)
    ]
    by_seed = {
        seed: float(f.accuracy) for seed, f in zip(seeds, found, strict=True) if np.isfinite(f.accuracy)
    }
    if not by_seed:
        why = "no two corpora have all seeds and different targets"
        return Ceiling(target.task, None, {}, None, None, f"no noise ceiling for {target.task}: {why}")
    most = max(found, key=lambda f: int(f.n_pairs))
    mean = float(np.mean(list(by_seed.values())))
    return Ceiling(target.task, mean, by_seed, int(most.n_pairs), int(most.n_ties))
