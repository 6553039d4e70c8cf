"""Predictions of the same fits when a task's instances are drawn again: how much of a rho is luck of texts.

The fits stay as they are, like everywhere in these intervals; features are computed anew from the drawn
instances and z-scored anew over the candidates. Tables from elsewhere have no instances.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from forecast.analysis.ranking.cross_validation import Outcome, predictions_of
from forecast.analysis.ranking.feature_table import Design, standardised
from forecast.analysis.ranking.splits import Protocol

Array = NDArray[np.float64]


def with_redrawn_instances(
    outcomes: Sequence[Outcome], protocols: Sequence[Protocol], design: Design, drawings: Iterator[Array]
) -> list[Outcome]:
    """The outcomes with `redrawn` panels [D, K, C]; one without fits stays as it is.

    Args:
        protocols: of each outcome.
        drawings: values [T, C, F] of the design's tasks and features, one array for each of D drawings.
    """
    panels: list[list[Array]] = [[] for _ in outcomes]
    for values in drawings:
        z, _ = standardised(np.where(design.usable[:, :, None], values, np.nan))
        again = replace(design, z=np.where(design.usable[:, :, None], z, 0.0))
        for own, outcome, protocol in zip(panels, outcomes, protocols, strict=True):
            if any(fit is not None for fit in outcome.fits):
                own.append(predictions_of(outcome, protocol, again))
    return [
        replace(outcome, redrawn=np.stack(own)) if own else outcome
        for own, outcome in zip(panels, outcomes, strict=True)
    ]
