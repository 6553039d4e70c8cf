"""How often the 95 % interval over texts holds the rho of endless texts, by the spread of the candidates.

`python tests/analysis/ranking/text_simulations.py` prints the table of `text_bootstrap`.
"""

import numpy as np

from forecast.analysis.ranking.text_bootstrap import around, reliability, widened
from forecast.analysis.stats.rank_correlation import spearman

SPREADS = (0.25, 0.5, 1, 2, 4)
_INSTANCES, _DRAWS = 48, 200


def coverage(
    candidates: int, rho: float, spread: float, runs: int, seed: int, items: int = 200
) -> tuple[float, float]:
    """Share of runs in which the interval holds the true rho, and its mean width.

    Args:
        rho: of the proxy's and the score's abilities, before ranks are taken.
        spread: of both abilities; accuracies are cut at 0.02 and 0.98.
    """
    rng = np.random.default_rng(seed)
    held, widths = 0, 0.0
    for _ in range(runs):
        ability = rng.normal(size=candidates)
        proxy = rho * ability + np.sqrt(1 - rho**2) * rng.normal(size=candidates)
        common = rng.normal(size=_INSTANCES)
        own = rng.normal(size=(candidates, _INSTANCES))
        quality = 0.3 * spread * proxy[:, None] + 0.5 * common + 0.8 * own
        accuracy = np.clip(0.5 + 0.2 * spread * ability, 0.02, 0.98)
        right = rng.random((candidates, items)) < accuracy[:, None]
        found = spearman(quality.mean(axis=1), right.mean(axis=1))
        instances = rng.multinomial(_INSTANCES, np.full(_INSTANCES, 1 / _INSTANCES), size=_DRAWS)
        questions = rng.multinomial(items, np.full(items, 1 / items), size=_DRAWS)
        features, scores = instances @ quality.T, questions @ right.T
        drawn = spearman(features, scores)
        low, high = around(np.atleast_1d(found), drawn[:, None], 0.95)
        kept = [
            reliability(spearman(sample, resamples))
            for sample, resamples in ((quality.mean(axis=1), features), (right.mean(axis=1), scores))
        ]
        low, high = widened(low, high, np.sqrt(kept[0] * kept[1]))
        held += bool(low[0] <= spearman(proxy, accuracy) <= high[0])
        widths += float(high[0] - low[0])
    return held / runs, widths / runs


if __name__ == "__main__":
    for candidates in (11, 30):
        for rho in (0.0, 0.5, 0.95):
            found = (coverage(candidates, rho, spread, 200, 11) for spread in SPREADS)
            print(candidates, rho, *(f"{share:.2f} ({width:.2f})" for share, width in found), sep="  ")
