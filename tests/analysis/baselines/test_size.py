"""Parameters and training FLOPs as predictors."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from forecast.analysis.baselines.size import fit_size_law, size_agreement
from forecast.errors import FitError, InputError


def test_a_sigmoid_in_log_flops_is_recovered_and_unknown_sizes_stay_unknown() -> None:
    flops = np.logspace(19, 26, 30)
    score = 0.25 + 0.6 / (1 + np.exp(-1.2 * (np.log10(flops) - 22.5)))
    flops[5] = np.nan
    found = fit_size_law(flops, score).predict(flops)
    assert np.isnan(found.values[5]) and found.reasons[5] == "training FLOPs not known"
    known = np.arange(30) != 5
    np.testing.assert_allclose(found.values[known], score[known], atol=1e-4)


def test_agreement_counts_whom_it_leaves_out() -> None:
    rng = np.random.default_rng(0)
    sizes, scores = rng.uniform(1, 9, 20), rng.uniform(0, 1, 20)
    sizes[:3], scores[2:5] = np.nan, np.nan
    found = size_agreement("parameters", sizes, scores)
    assert (found.n_models, found.n_unknown) == (15, 2)
    assert found.spearman == pytest.approx(spearmanr(sizes[5:], scores[5:]).statistic)
    assert size_agreement("parameters", np.full(5, 7.0), np.linspace(0, 1, 5)).spearman is None
    assert size_agreement("parameters", np.array([1.0, 2]), np.array([0.1, 0.2])).spearman is None


def test_bad_sizes_are_refused_in_words() -> None:
    scores = np.linspace(0.1, 0.9, 6)
    with pytest.raises(InputError, match="parameters of model 2: 0, expected a positive number"):
        size_agreement("parameters", np.array([1.0, 0, 2, 3, 4, 5]), scores)
    with pytest.raises(InputError, match="training tokens of model 1: inf"):
        size_agreement("training tokens", np.array([np.inf]), np.array([0.5]))
    with pytest.raises(InputError, match="divide percentages by 100"):
        fit_size_law(np.arange(1, 7), 100 * scores)
    with pytest.raises(FitError, match="one value for all 6 models"):
        fit_size_law(np.full(6, 1e9), scores)
