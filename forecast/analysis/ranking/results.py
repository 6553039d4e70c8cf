"""What a ranking says: standings of the candidates, and how each proxy agrees with each measured target."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.report.records import frame_of

_LEARNED = {proxy.name for proxy in PROXIES if proxy.learned}
_BASELINE = [proxy.name for proxy in PROXIES].index(PLAIN_CROSS_ENTROPY)
_TARGETS = {
    "target": pl.String(),
    "tasks": pl.List(pl.String()),
    "n_candidates": pl.Int64(),
    "n_items": pl.Int64(),
    "plain_spearman": pl.Float64(),
    "plain_ci_low": pl.Float64(),
    "plain_ci_high": pl.Float64(),
    "best": pl.String(),
    "best_spearman": pl.Float64(),
    "best_ci_low": pl.Float64(),
    "best_ci_high": pl.Float64(),
    "best_p": pl.Float64(),
    "best_null_mean": pl.Float64(),
}


@dataclass(frozen=True)
class Correlation:
    """One proxy against one target; None where n or a constant column leaves a figure without meaning."""

    target: str
    proxy: str
    metric: str
    weighting: str
    spearman: float | None
    kendall: float | None
    ci_low: float | None  # of spearman, over the texts
    ci_high: float | None
    n_candidates: int

    @property
    def agreement(self) -> float:
        """Rho, |rho| for a proxy whose direction is learned from the scores; -2 where there is none."""
        if self.spearman is None:
            return -2.0
        return abs(self.spearman) if self.proxy in _LEARNED else self.spearman

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def best_of(correlations: Iterable[Correlation]) -> Correlation | None:
    """The one that agrees best, of equals the first; None where none has a rho."""
    known = (c for c in correlations if c.spearman is not None)
    return max(known, key=lambda c: c.agreement, default=None)


@dataclass(frozen=True)
class TargetReport:
    """All 80 proxies against one target."""

    target: str
    measured: tuple[str, ...]  # the tasks whose scores it is: one, or those of a mean
    tasks: tuple[str, ...]  # whose proxies forecast it
    n_candidates: int
    n_items: int | None
    correlations: tuple[Correlation, ...]  # in the order of PROXIES
    best_p: float | None
    best_null_mean: float | None

    def best(self) -> Correlation | None:
        """The proxy that agrees best, of equals the first; picked after looking, so read it with `best_p`."""
        return best_of(self.correlations)

    def plain_cross_entropy(self) -> Correlation:
        """Unweighted cross-entropy on the trajectories, the baseline."""
        return self.correlations[_BASELINE]

    def as_row(self) -> dict[str, Any]:
        """A row of the frame `targets`."""
        best = self.best()
        row: dict[str, Any] = {
            "target": self.target,
            "tasks": list(self.tasks),
            "n_candidates": self.n_candidates,
            "n_items": self.n_items,
            "best": best.proxy if best else None,
            "best_p": self.best_p,
            "best_null_mean": self.best_null_mean,
        }
        for which, c in (("plain", self.plain_cross_entropy()), ("best", best)):
            row |= {f"{which}_{name}": getattr(c, name, None) for name in ("spearman", "ci_low", "ci_high")}
        return row


@dataclass(frozen=True)
class Standing:
    """One candidate in the ranking."""

    candidate: str
    family: str | None
    parameters: int | None
    measured: float | None
    measured_stderr: float | None
    measured_rank: float | None
    forecast_rank: float
    values: dict[str, float]  # the shown proxies, mean over the tasks
    ranks: dict[str, float]  # by the shown proxies, 1 is best

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Ranking:
    """The result of `forecast rank`."""

    standings: tuple[Standing, ...]  # best forecast first
    shown: tuple[str, ...]  # proxies in the table; the first one orders it
    reports: tuple[TargetReport, ...]  # the first one is what the order is learned from
    n_instances: dict[str, int]  # by task
    confidence: float
    warnings: tuple[str, ...]

    def frames(self) -> dict[str, pl.DataFrame]:
        """Frames of the ranking.

        Returns:
            `standings`: a row per candidate, with value and rank (`..._rank`) by each shown proxy;
            `correlations`: a row per target and proxy;
            `targets`: a row per target, with the baseline and the proxy that agrees best.
        """
        by_proxy: list[pl.Series] = []
        for name in self.shown:
            by_proxy.append(pl.Series(name, [s.values[name] for s in self.standings], pl.Float64))
            by_proxy.append(pl.Series(f"{name}_rank", [s.ranks[name] for s in self.standings], pl.Float64))
        correlations = [c for report in self.reports for c in report.correlations]
        return {
            "standings": frame_of(self.standings, Standing).drop("values", "ranks").with_columns(by_proxy),
            "correlations": frame_of(correlations, Correlation),
            "targets": pl.DataFrame([report.as_row() for report in self.reports], schema=_TARGETS),
        }
