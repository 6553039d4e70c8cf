"""Does the window matter? All proxies again from fewer of the scored tokens, without scoring anything.

The last N of the tokens in the lake give the same numbers as a run with `window: {last_tokens: N}` would,
frequencies included, since what stands before a token is read whatever the window.
"""

from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from forecast.analysis.diagnostics.recomputed_proxies import RecomputedProxies
from forecast.analysis.diagnostics.run_data import Material
from forecast.analysis.diagnostics.selection import Selection, median_rho
from forecast.analysis.stats.figures import Compared, OrderRho
from forecast.warehouse.features import features
from forecast.warehouse.population import Population

WINDOWS = (100, 250, 500, 1000)
_INSTANCE = ["expert", "instance_id"]


@dataclass(frozen=True)
class WindowEffect:
    """The last N tokens against all that were scored."""

    last_tokens: int
    shortened: int  # pairs of candidate and solution with more tokens than that
    readings: int  # all such pairs
    order_rho: tuple[OrderRho, ...]  # with and without the window, all tasks
    median_rho: float | None  # the same over all 80 proxies
    targets: tuple[Compared, ...]  # with all tokens and with the window
    reason: str | None  # why nothing can differ


class Windowed:
    """Proxies of the last N tokens, filled a candidate and task at a time."""

    def __init__(self, last_tokens: int, material: Material) -> None:
        """Start without tokens; a window that holds the longest solution has nothing to compute."""
        self.last_tokens = last_tokens
        self._shortened = self._readings = 0
        self._full = material.population
        names = zip(self._full.candidates, self._full.identities, strict=True)
        self._proxies = RecomputedProxies(names, material.dropped) if material.longest > last_tokens else None

    def add(self, tokens: pl.DataFrame, vocab_size: int) -> None:
        """Token rows of one candidate and task."""
        lengths = tokens.group_by(_INSTANCE).len()["len"]
        self._readings += len(lengths)
        self._shortened += int((lengths > self.last_tokens).sum())
        if self._proxies is not None:
            end = pl.col("position").max().over(_INSTANCE)
            kept = tokens.filter(pl.col("position") > end - self.last_tokens)
            self._proxies.add(kept.to_arrow(compat_level=pl.CompatLevel.oldest()), vocab_size)

    def population(self) -> Population:
        """The run's population with the proxies of the window."""
        if self._proxies is None:
            return self._full
        return replace(self._full, proxies=self._proxies.population().proxies)

    def effect(self, selection: Selection) -> WindowEffect:
        """What the window changes; nothing where no solution is longer."""
        head = (self.last_tokens, self._shortened, self._readings)
        if self._proxies is None:
            reason = f"no candidate scored more than {self.last_tokens} tokens of any solution"
            return WindowEffect(*head, (), None, (), reason)
        full, shorter = partial(features, self._full), partial(features, self.population())
        tasks = tuple(self._full.proxies)
        orders = shorter(tasks), full(tasks)
        targets = [c for proxy in selection.proxies for c in selection.compared(proxy, full, shorter)]
        return WindowEffect(
            *head, selection.order_rhos(*orders), median_rho(*orders), tuple(targets), reason=None
        )
