"""When a forecast for the end of training has fallen by more than its interval.

The forecast is compared with two earlier ones of the same number: that of the checkpoints before (a sudden
fall), and the newest one that had seen at most half of the training that is seen now (a slow one, of which
every night's step is too small to be noticed). It has fallen where it lies below the lower end of either's
interval. A 90% interval leaves 5% below its lower end for the score at the end, and an honest forecast moves
towards that score by steps that nobody can foresee; so it crosses that line on its way at most twice as often
(the reflection of a random walk) as the score ends beyond it. For forecasts that are a random walk with 90%
intervals that are right, the chance of one false alarm in the whole of a training, simulated, is:

    checkpoints                            10     30    100
    against the one before alone          1.2%   1.2%   1.1%
    against both, as here                 6.2%   9.6%    12%
    against all earlier ones             12.5%    27%    42%

On the real OLMo-2 7B run (41 series, a forecast every 50,000 steps, 656 in all) there is no false alarm. With
0.06 taken from its accuracies gradually between steps 400,000 and 600,000, and a forecast every 20,000, the
fall of the mean of six tasks is detected at step 620,000; with 0.12, at 560,000; 0.03 stays within the
intervals.

After a fall the earlier forecasts are disproved and no longer compared with: what falls further is compared
with the fallen forecast.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from forecast.nightly.records import EndForecast

Dated = tuple[str, EndForecast]  # the night (YYYY-MM-DD) and its forecast


@dataclass(frozen=True)
class Fall:
    """A forecast that lies below the interval of an earlier one."""

    reference: Dated  # the earlier one
    first: Dated  # of the nights that looked at the same checkpoints as the newest, the first


def fall_of(history: Sequence[Dated]) -> Fall | None:
    """Whether the newest of these forecasts has fallen.

    Args:
        history: forecasts of one number by one method, oldest first. Nights that looked at the same
            checkpoints count as one, with the numbers of the last of them.

    Returns:
        None where it has not fallen, or where it had fallen before and has seen more checkpoints since.
    """
    fits = _one_for_each_fit(history)
    begin = 0  # earlier forecasts are disproved
    fallen_from = None
    for now in range(1, len(fits)):
        references = _references(fits, begin, now)
        fallen_from = next((r for r in references if _below(fits[now][1], fits[r][1])), None)
        begin = begin if fallen_from is None else now
    return None if fallen_from is None else Fall(fits[fallen_from], _first_of_the_newest(history))


def _below(now: EndForecast, reference: EndForecast) -> bool:
    """A forecast without an interval is no reference."""
    return reference.low is not None and now.forecast < reference.low


def _references(fits: Sequence[Dated], begin: int, now: int) -> list[int]:
    half = [i for i in range(begin, now) if 2 * fits[i][1].fit_until <= fits[now][1].fit_until]
    return [now - 1, *half[-1:]]


def _one_for_each_fit(history: Sequence[Dated]) -> list[Dated]:
    found: list[Dated] = []
    for dated in history:
        if found and found[-1][1].fit_until == dated[1].fit_until:
            found.pop()
        found.append(dated)
    return found


def _first_of_the_newest(history: Sequence[Dated]) -> Dated:
    """Of the nights at the end that looked at the same checkpoints, the first."""
    first = len(history) - 1
    while first > 0 and history[first - 1][1].fit_until == history[-1][1].fit_until:
        first -= 1
    return history[first]
