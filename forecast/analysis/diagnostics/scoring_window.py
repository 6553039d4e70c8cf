"""Does the window matter? All proxies again from fewer of the scored tokens, without scoring anything.

The last N of the tokens in the lake give the same numbers as a run with `window: {last_tokens: N}` would,
frequencies included, since what stands before a token is read whatever the window.
"""

from dataclasses import dataclass, replace

import duckdb
import numpy as np
import polars as pl

from forecast.analysis.diagnostics.selection import PLACES, Question, Selection
from forecast.analysis.stats.figures import Compared, OrderRho, Rho, rho_of
from forecast.analysis.stats.rank_correlation import spearman
from forecast.proxies.token_proxies import PROXIES, instance_scores, token_lists
from forecast.warehouse.features import features
from forecast.warehouse.population import Population, load_population
from forecast.warehouse.sql import statement

WINDOWS = (100, 250, 500, 1000)
_INSTANCE = ["expert", "instance_id"]


@dataclass(frozen=True)
class WindowEffect:
    """The last N tokens against all that were scored."""

    last_tokens: int
    shortened: int  # readings (candidate and solution) that have more tokens than that
    readings: int
    order_rho: tuple[OrderRho, ...]  # with and without the window, all tasks
    median_rho: float | None  # the same over all 80 proxies
    targets: tuple[Compared, ...]  # with all tokens and with the window
    reason: str | None  # why nothing can differ


class Windowed:
    """Proxies of the last N tokens, filled a candidate and task at a time."""

    def __init__(self, last_tokens: int, longest: int) -> None:
        """Args: longest: tokens of the longest reading; a window that holds it has nothing to compute."""
        self.last_tokens = last_tokens
        self._cuts = longest > last_tokens
        self.shortened = self.readings = 0
        self._db = duckdb.connect()
        columns = ",\n    ".join(f"{p.name} DOUBLE" for p in PROXIES)
        self._db.execute(statement("tables", proxy_columns=columns))
        # What is left out has been taken from the rows before they come here.
        self._db.execute("CREATE TEMP VIEW dropped AS SELECT task, expert, instance_id FROM unscored")
        self._fill = statement(
            "instance_proxies", token_lists=token_lists(), instance_scores=instance_scores()
        )

    def add(self, tokens: pl.DataFrame, vocab_size: int) -> None:
        """Token rows of one candidate and task."""
        lengths = tokens.group_by(_INSTANCE).len()["len"]
        self.readings += len(lengths)
        self.shortened += int((lengths > self.last_tokens).sum())
        if not self._cuts:
            return
        end = pl.col("position").max().over(_INSTANCE)
        kept = tokens.filter(pl.col("position") > end - self.last_tokens)
        self._db.register("tokens", kept.to_arrow(compat_level=pl.CompatLevel.oldest()))
        self._db.execute(self._fill, {"vocab_size": vocab_size})
        self._db.unregister("tokens")

    def population(self, full: Population) -> Population:
        """`full` with the proxies of the window."""
        self._db.execute("DELETE FROM candidates")
        self._db.executemany(
            "INSERT INTO candidates (place, candidate, candidate_id, status) VALUES (?, ?, ?, 'complete')",
            [
                (place, name, identity)
                for place, (name, identity) in enumerate(zip(full.candidates, full.identities, strict=True))
            ],
        )
        return replace(full, proxies=load_population(self._db).proxies)

    def close(self) -> None:
        """Give back its memory."""
        self._db.close()


def window_effect(windowed: Windowed, full: Population, selection: Selection) -> WindowEffect:
    """What the window changes; nothing where no solution is longer."""
    name, readings, cut = windowed.last_tokens, windowed.readings, windowed.shortened
    if cut == 0:
        reason = f"no candidate scored more than {name} tokens of any solution"
        return WindowEffect(name, cut, readings, (), None, (), reason)
    shorter = windowed.population(full)
    both = [features(population, tuple(population.proxies)) for population in (shorter, full)]
    every = spearman(both[0].T, both[1].T)
    own = tuple(
        OrderRho(p, rho_of(both[0][:, PLACES[p]], both[1][:, PLACES[p]], selection.confidence))
        for p in selection.proxies
    )

    def against(of: Population, question: Question, proxy: str) -> Rho:
        column = features(of, question.tasks)[:, PLACES[proxy]]
        return rho_of(column, question.scores, selection.confidence)

    targets = tuple(
        Compared(proxy, q.target, against(full, q, proxy), against(shorter, q, proxy))
        for proxy in selection.proxies
        for q in selection.questions
        if q.target is not None
    )
    known = every[np.isfinite(every)]
    median = float(np.median(known)) if len(known) else None
    return WindowEffect(name, cut, readings, own, median, targets, None)
