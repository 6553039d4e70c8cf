"""What the candidates are ordered by: chosen by evidence, else a default.

The best of 80 proxies, or of several scorers, always looks good on the scores that it was selected on. So the
order is led by

1. the scorer that does best for models not seen, where its rho beats its permutation null (of the best scorer
   under each permutation), its interval excludes 0, and it is better than the default beyond noise;
2. where nothing could be held out, the best of the 80 proxies, if it beats the best of 80 under shuffled
   scores and the default does not agree as well;
3. else the default: cross-entropy on the solutions, selected on nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forecast.analysis.ranking.splits import UNSEEN
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY

if TYPE_CHECKING:
    from forecast.analysis.ranking.held_out_metrics import Comparison, ScorerRow
    from forecast.analysis.ranking.single_proxy import TargetCorrelations

ALPHA = 0.05
_SURE = 0.9  # probability with which a scorer must be better than the default
DEFAULT_PROXY = PLAIN_CROSS_ENTROPY
DEFAULT_BASELINE = "baseline: plain cross-entropy"  # the same, as a row of the held-out evaluation


@dataclass(frozen=True)
class Leader:
    """What orders the candidates; one of `proxy` and `scorer` is None."""

    proxy: str | None
    scorer: str | None
    reason: str
    null_p: float | None  # of the permutation null, of the best of many where one was chosen
    held_out: bool = False  # whether reason and p are about models not seen

    @property
    def name(self) -> str:
        """The proxy or the scorer."""
        return self.proxy or self.scorer or ""


def leader_of(report: "TargetCorrelations | None") -> Leader:
    """From single proxies alone: the best of 80 if it beats its null, else the default."""
    best = report.best() if report else None
    if report is None or best is None or best.spearman is None:
        return Leader(
            DEFAULT_PROXY, None, "no proxy has a rho with measured scores, so this is the default", None
        )
    plain, p = report.plain_cross_entropy().spearman, report.best_p
    if p is None:
        return Leader(DEFAULT_PROXY, None, "no permutation null was computed, so this is the default", None)
    if p > ALPHA:
        return Leader(
            DEFAULT_PROXY,
            None,
            f"the best of 80 proxies may be chance (p = {p:.2g}), so this is the default",
            p,
        )
    if plain is not None and round(best.agreement, 2) <= round(plain, 2):
        return Leader(DEFAULT_PROXY, None, "no other of the 80 proxies agrees better with the scores", p)
    return Leader(
        best.proxy, None, f"best of 80 proxies, and better than shuffled scores explain (p = {p:.2g})", p
    )


def held_out_leader(
    rows: "Sequence[ScorerRow]",
    comparisons: "Sequence[Comparison]",
    scorers: Sequence[str],
    best_p: Mapping[str, float | None],
) -> Leader | None:
    """From held-out figures; None where no scorer has one for models not seen.

    Args:
        rows: of all protocols; the default is among them where the table has it.
        comparisons: of every two of them.
        scorers: those that may lead.
        best_p: by protocol, p of the best of these scorers against the best under each permutation.
    """
    for protocol in UNSEEN:
        own = [row for row in rows if row.protocol == protocol and row.spearman is not None]
        tried = [row for row in own if row.scorer in scorers]
        if tried:
            default = next((row for row in own if row.scorer == DEFAULT_BASELINE), None)
            best = max(tried, key=lambda row: row.spearman or -2.0)
            against = (best.scorer, DEFAULT_BASELINE)
            pair = next((c for c in comparisons if c.protocol == protocol and _pair(c) == against), None)
            return _judged(best, best_p.get(protocol), default, pair)
    return None


def _pair(comparison: "Comparison") -> tuple[str, str]:
    return comparison.first, comparison.second


def _better(pair: "Comparison | None") -> bool:
    """Whether the first is better beyond noise: by resampled families, where too few by Williams."""
    if pair is None or pair.difference <= 0:
        return False
    if pair.probability is not None:
        return pair.probability >= _SURE
    return pair.williams_p is not None and pair.williams_p / 2 <= 1 - _SURE


def _judged(
    best: "ScorerRow", p: float | None, default: "ScorerRow | None", against_default: "Comparison | None"
) -> Leader:
    rho = best.spearman or 0.0
    chance = "no permutation null was computed" if p is None else f"p = {p:.2g} for the best scorer"
    works = p is not None and p <= ALPHA and not (best.ci_low is not None and best.ci_low <= 0)
    if works and (default is None or _better(against_default)):
        return Leader(None, best.scorer, f"rho {rho:+.2f} for models not seen ({chance})", p, held_out=True)
    nothing = f"nothing is shown to work for models not seen ({best.scorer}: {rho:+.2f}, {chance})"
    if default is None:
        return Leader(None, best.scorer, f"unverified: {nothing}", p, held_out=True)
    own, own_p = default.spearman or 0.0, default.null.p
    if own_p is None or own_p > ALPHA or own <= 0:
        return Leader(DEFAULT_PROXY, None, f"the default, since {nothing}", own_p, held_out=True)
    words = f"rho {own:+.2f} for models not seen (p = {own_p:.2g}); no scorer is better beyond noise"
    return Leader(DEFAULT_PROXY, None, f"{words} ({best.scorer}: {rho:+.2f})", own_p, held_out=True)
