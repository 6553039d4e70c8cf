"""What the difference between two setups does to the proxies, to the order of the candidates and to rho.

Values and orders are over the same candidates and texts on both sides; relative differences are parts of the
base's value, and null where that is 0. Orders are those of `forecast rank`: proxies turned so that high is
good (entropy as it is), z-scored within each task and averaged where there are several tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.single_proxy import best_of, rank_candidates
from forecast.analysis.stats.figures import number
from forecast.analysis.stats.rank_correlation import kendall, ranks, spearman
from forecast.config.schema import RankingConfig
from forecast.proxies.token_proxies import PLAIN_CROSS_ENTROPY, PROXIES
from forecast.warehouse.features import features
from forecast.warehouse.population import Population

Array = NDArray[np.float64]
_NAMES = [proxy.name for proxy in PROXIES]


@dataclass(frozen=True)
class ProxyCell:
    """One candidate's proxy of one task under both setups."""

    candidate: str
    task: str
    base: float
    against: float


@dataclass(frozen=True)
class ProxyParity:
    """One proxy over all candidates and tasks, and the order that it puts the candidates in."""

    proxy: str
    metric: str
    weighting: str
    largest: float  # of |against - base|
    median: float
    largest_at: ProxyCell
    largest_relative: float | None  # of |against - base| / |base|
    median_relative: float | None
    largest_relative_at: ProxyCell | None
    spearman: float | None  # between the two orders; None with fewer than three candidates
    kendall: float | None
    swapped: int  # pairs of candidates in opposite order
    tied_in_one: int  # pairs of candidates that one setup tells apart and the other does not


@dataclass(frozen=True)
class Standing:
    """A candidate's place, 1 is best, under both setups; half places where candidates tie."""

    candidate: str
    base: float
    against: float


@dataclass(frozen=True)
class Order:
    """The places of all candidates by one proxy."""

    proxy: str
    standings: tuple[Standing, ...]  # best of the base first

    @property
    def moved(self) -> tuple[Standing, ...]:
        """Those whose place differs."""
        return tuple(s for s in self.standings if s.base != s.against)


@dataclass(frozen=True)
class RhoChange:
    """Spearman's rho of one proxy with the measured scores under both setups; None where it is undefined."""

    proxy: str
    base: float | None
    against: float | None


@dataclass(frozen=True)
class TargetParity:
    """All proxies against one measured target."""

    target: str
    proxies_of: tuple[str, ...]  # tasks
    n_candidates: int
    rhos: tuple[RhoChange, ...]  # in the order of PROXIES
    best_base: str | None  # the proxy that agrees best
    best_against: str | None

    def of(self, proxy: str) -> RhoChange:
        """The figures of one proxy."""
        return self.rhos[_NAMES.index(proxy)]

    def widest(self) -> RhoChange | None:
        """The proxy whose rho changes most; None where none has two."""
        known = [r for r in self.rhos if r.base is not None and r.against is not None]
        return max(known, key=lambda r: abs(r.against - r.base), default=None)  # type: ignore[operator]


@dataclass(frozen=True)
class Effects:
    """All that follows from the tokens."""

    instances: dict[str, int]  # by task: read by every candidate under both setups
    pairs: int  # of candidates
    proxies: tuple[ProxyParity, ...]  # in the order of PROXIES
    orders: tuple[Order, ...]  # by plain cross-entropy and, with measured scores, the base's leading proxy
    targets: tuple[TargetParity, ...]  # the first is what an order would be learned from


def effects_of(base: Population, against: Population, settings: RankingConfig) -> Effects:
    """Compare two populations of the same candidates and instances; measured scores are those of `base`."""
    tasks = tuple(base.proxies)
    columns = [features(p, tasks) for p in (base, against)]
    targets, learned = _targets(base, against, settings)
    n = len(base.candidates)
    return Effects(
        instances={task: len(base.proxies[task].instances) for task in tasks},
        pairs=n * (n - 1) // 2,
        proxies=_proxies(base, against, *columns),
        orders=tuple(
            _order(base.candidates, name, sign, *(c[:, _NAMES.index(name)] for c in columns))
            for name, sign in {PLAIN_CROSS_ENTROPY: 1, **learned}.items()
        ),
        targets=targets,
    )


def _proxies(
    base: Population, against: Population, base_features: Array, against_features: Array
) -> tuple[ProxyParity, ...]:
    tasks = tuple(base.proxies)
    a, b = (  # [candidates, tasks, 80]
        np.stack([p.proxies[task].means() for task in tasks], axis=1) for p in (base, against)
    )
    size = np.abs(b - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(a != 0, size / np.abs(a), np.nan)
    rho = spearman(base_features.T, against_features.T)

    def cell(k: int, place: int) -> ProxyCell:
        c, t = divmod(place, len(tasks))
        return ProxyCell(base.candidates[c], tasks[t], float(a[c, t, k]), float(b[c, t, k]))

    found = []
    for k, proxy in enumerate(PROXIES):
        own, own_relative = size[..., k].ravel(), relative[..., k].ravel()
        some = bool(np.isfinite(own_relative).any())
        widest = int(np.nanargmax(own_relative)) if some else None
        swapped, tied_in_one = _swaps(base_features[:, k], against_features[:, k])
        found.append(
            ProxyParity(
                proxy=proxy.name,
                metric=proxy.metric.name,
                weighting=proxy.weighting.name,
                largest=float(own.max()),
                median=float(np.median(own)),
                largest_at=cell(k, int(own.argmax())),
                largest_relative=None if widest is None else float(own_relative[widest]),
                median_relative=float(np.nanmedian(own_relative)) if some else None,
                largest_relative_at=None if widest is None else cell(k, widest),
                spearman=number(rho[k]),
                kendall=number(kendall(base_features[:, k], against_features[:, k])),
                swapped=swapped,
                tied_in_one=tied_in_one,
            )
        )
    return tuple(found)


def _swaps(base: Array, against: Array) -> tuple[int, int]:
    """Pairs in opposite order, and pairs that are equal on one side only."""
    first, second = np.triu_indices(len(base), 1)
    a, b = np.sign(base[first] - base[second]), np.sign(against[first] - against[second])
    return int((a * b < 0).sum()), int(((a == 0) != (b == 0)).sum())


def _order(candidates: Sequence[str], proxy: str, sign: int, base: Array, against: Array) -> Order:
    places = zip(candidates, ranks(sign * base), ranks(sign * against), strict=True)
    standings = [Standing(name, float(a), float(b)) for name, a, b in places]
    return Order(proxy, tuple(sorted(standings, key=lambda s: (s.base, s.candidate))))


def _targets(
    base: Population, against: Population, settings: RankingConfig
) -> tuple[tuple[TargetParity, ...], dict[str, int]]:
    """All targets, and the base's leading proxy with the direction that its scores give it."""
    if not base.targets:
        return (), {}
    plain = settings.model_copy(update={"bootstraps": 0, "permutations": 0})
    reports, others = rank_candidates(base, plain).reports, rank_candidates(against, plain).reports
    found = []
    for report, other in zip(reports, others, strict=True):
        best, best_other = best_of(report.correlations), best_of(other.correlations)
        found.append(
            TargetParity(
                target=report.target,
                proxies_of=report.tasks,
                n_candidates=report.n_candidates,
                rhos=tuple(
                    RhoChange(a.proxy, a.spearman, b.spearman)
                    for a, b in zip(report.correlations, other.correlations, strict=True)
                ),
                best_base=best.proxy if best else None,
                best_against=best_other.proxy if best_other else None,
            )
        )
    leading = best_of(reports[0].correlations) if reports else None
    if leading is None or leading.spearman is None:
        return tuple(found), {}
    turned = -1 if PROXIES[_NAMES.index(leading.proxy)].learned and leading.spearman < 0 else 1
    return tuple(found), {leading.proxy: turned}
