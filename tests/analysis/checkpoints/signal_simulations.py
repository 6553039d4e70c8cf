"""Pure noise, correlated between neighbours: critical values of the signal test, and how often it passes.

`python tests/analysis/checkpoints/signal_simulations.py` prints the critical values (one set of seeds and
worlds), then the shares that pass on other seeds, autocorrelations, spacings and kinds of noise.
"""

from collections.abc import Callable

import numpy as np

from forecast.analysis.checkpoints.fit_window import Points
from forecast.analysis.checkpoints.noise import change, no_signal

SIZES = (12, 15, 20, 30, 60, 120)
DRAWS = 6000


def autoregression(rng: np.random.Generator, phi: float, n: int) -> np.ndarray:
    """[n] of unit variance."""
    noise = rng.standard_normal(n)
    for i in range(1, n):
        noise[i] = phi * noise[i - 1] + np.sqrt(1 - phi**2) * noise[i]
    return noise


def with_sampling_noise(rng: np.random.Generator, phi: float, n: int) -> np.ndarray:
    """Half of the variance drifts, half is independent."""
    return (autoregression(rng, phi, n) + rng.standard_normal(n)) / np.sqrt(2)


def heavy_tails(rng: np.random.Generator, phi: float, n: int) -> np.ndarray:
    """One of ten checkpoints is three times as far off."""
    return autoregression(rng, phi, n) * np.where(rng.random(n) < 0.1, 3.0, 1.0)


def even(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / n


def even_in_log(n: int) -> np.ndarray:
    return np.geomspace(1 / 32, 1, n)


def irregular(n: int) -> np.ndarray:
    return np.exp(np.linspace(np.log(1 / 10), 0, n)) ** np.linspace(1.3, 1.0, n)


def critical(n: int, draws: int, chance: float | None) -> float:
    """The largest 99th percentile over the worlds of calibration."""
    found = []
    for place in (even, even_in_log):
        for phi in (0.0, 0.5, 0.8):
            rng = np.random.default_rng([1, n])
            worlds = (Points(place(n), 0.25 + 0.01 * autoregression(rng, phi, n)) for _ in range(draws))
            found.append(float(np.quantile([change(world, chance) for world in worlds], 0.99)))
    return max(found)


def passing(
    n: int,
    phi: float,
    draws: int,
    seed: int,
    kind: Callable[[np.random.Generator, float, int], np.ndarray] = autoregression,
    place: Callable[[int], np.ndarray] = irregular,
    chance: float | None = None,
) -> float:
    """Share of runs of pure noise that are taken for signal."""
    rng = np.random.default_rng([seed, n])
    worlds = (Points(place(n), 0.25 + 0.02 * kind(rng, phi, n)) for _ in range(draws))
    return float(np.mean([no_signal(world, chance) is None for world in worlds]))


if __name__ == "__main__":
    print("critical values:", {n: [round(critical(n, DRAWS, c), 1) for c in (None, 0.25)] for n in SIZES})
    print("share of pure noise that passes, held out: checkpoints, autocorrelation 0, 0.3, 0.6, 0.8, 0.9")
    for kind in (autoregression, with_sampling_noise, heavy_tails):
        for size in (5, 8, 11, 14, 25, 60):
            shares = [passing(size, phi, 600, 7, kind) for phi in (0.0, 0.3, 0.6, 0.8, 0.9)]
            print(f"{kind.__name__:20} {size:3}", *(f"{share:.3f}" for share in shares))
