"""Scorers against slow references: loops over scipy, every triple by hand."""

import json
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from worlds import design, table_of, world

from forecast.analysis.ranking.feature_table import Design
from forecast.analysis.ranking.scorers.base import held_in, predict_many
from forecast.analysis.ranking.scorers.mean_score import standings
from forecast.analysis.ranking.scorers.registry import OWN_MEAN, SCORERS, load, make_scorer, save
from forecast.analysis.ranking.scorers.sparse_linear import FittedSparse, Sparse3
from forecast.analysis.ranking.scorers.univariate import FittedUnivariate, Univariate
from forecast.analysis.ranking.splits import PROTOCOLS, make_protocol
from forecast.errors import ConfigError, FitError, InputError

Array = NDArray[np.float64]


def rho(x: Array, y: Array) -> float:
    """Spearman over the cells with a score; 0 for a constant side, as the scorers have it."""
    known = np.isfinite(y)
    a, b = np.round(x[known], 8), y[known]
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def odd_table(seed: int) -> tuple[Design, Array]:
    """Few features, tied and missing scores, twins, a constant feature."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(5, 11, 7))
    values[:, 4] = values[:, 3]
    values[2, :, 1] = 1.0
    values[0, 10] = np.nan
    scores = np.round(rng.normal(size=(5, 11)) + values[:, :, 2], 1)
    scores[1, [0, 5]] = np.nan
    made = design(table_of(np.round(values, 2), scores))
    return made, np.where(made.usable, scores, np.nan)


@pytest.mark.parametrize("seed", range(4))
def test_univariate_is_the_best_mean_absolute_rho(seed: int) -> None:
    made, scores = odd_table(seed)
    rhos = np.array([[rho(made.z[t, :, f], scores[t]) for f in range(7)] for t in range(5)])
    best = int(np.abs(rhos).mean(axis=0).argmax())
    fitted = Univariate().fit(made, scores)
    assert fitted == FittedUnivariate(made.features[best], 1 if rhos[:, best].mean() >= 0 else -1)
    np.testing.assert_array_equal(np.isfinite(fitted.score(made)), made.usable)


@pytest.mark.parametrize("seed", range(3))
def test_sparse_3_is_the_best_of_all_signed_triples(seed: int) -> None:
    made, scores = odd_table(seed)
    merits = {}
    for triple in combinations(range(7), 3):
        for signs in product((1, -1), repeat=3):
            total = made.z[:, :, triple] @ np.array(signs, float)
            merits[triple, signs] = np.mean([rho(total[t], scores[t]) for t in range(5)])
    fitted = Sparse3().fit(made, scores)
    key = tuple(made.features.index(f) for f in fitted.features)
    assert merits[key, fitted.signs] == pytest.approx(max(merits.values()), abs=1e-6)
    expected = made.z[:, :, key] @ np.array(fitted.signs, float) / 3
    np.testing.assert_allclose(fitted.score(made)[made.usable], expected[made.usable])


def test_sparse_3_searches_through_many_chunks() -> None:
    """The one triple that tells everything is found wherever it stands; single features tell little."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(4, 12, 40))
    scores = design(table_of(values, values[:, :, 0])).z[:, :, [3, 21, 38]] @ np.array([1.0, -1, 1])
    fitted = Sparse3().fit(design(table_of(values, scores)), scores)
    assert fitted == FittedSparse(("f03", "f21", "f38"), (1, -1, 1))


@pytest.mark.parametrize("features", [1, 2])
def test_sparse_3_of_fewer_features_takes_what_there_is(features: int) -> None:
    table = world("ability", 3, 9, 4, features)
    made = design(table)
    fitted = Sparse3().fit(made, table.scores)
    options = [z for s in product((1, -1), repeat=features) for z in [made.z @ np.array(s, float)]]
    best = max(np.mean([rho(z[t], table.scores[t]) for t in range(4)]) for z in options)
    own = fitted.score(made)
    assert len(fitted.features) == features
    assert np.mean([rho(own[t], table.scores[t]) for t in range(4)]) == pytest.approx(best)


def test_own_mean_is_the_mean_share_beaten() -> None:
    scores = np.array([[1.0, 2, 3, np.nan], [5, 5, 9, 1]])
    np.testing.assert_allclose(standings(scores), [(0 + 0.5) / 2, (0.5 + 0.5) / 2, 1.0, 0.0])
    made = design(world("noise", 0, 4, 2, 2))
    fitted = make_scorer(OWN_MEAN).fit(made, scores)
    np.testing.assert_allclose(fitted.score(made)[1], standings(scores))


@pytest.mark.parametrize("name", [*SCORERS, OWN_MEAN])
@pytest.mark.parametrize("protocol", PROTOCOLS[:2])
def test_many_fits_at_once_are_the_single_fits(name: str, protocol: str) -> None:
    """`fit` and `predict_many` share little of the SVMs: one is solved by scikit-learn, one by `svm_many`."""
    table = world("ability", 2, 9, 5, 6)
    made = design(table)
    rng = np.random.default_rng(0)
    many = np.stack([table.scores, table.scores[:, rng.permutation(9)], rng.normal(size=(5, 9))])
    folds = make_protocol(protocol, table.families, np.isfinite(table.scores), 0)
    some = [fold for fold in folds.folds if (fold.train == folds.folds[0].train).all()][:3]
    scorer = make_scorer(name)
    found = predict_many(scorer, made, many, some, folds.groups, 0)
    if name == OWN_MEAN and folds.pooled:
        assert np.isnan(found.values).all() and "no held-in score" in str(found.reason)
        return
    for p, f in np.ndindex(3, len(some)):
        tasks = list(some[f].tasks)
        fitted = scorer.fit(made, held_in(many[p], some[f]), folds.groups, 0)
        batched = found.fits[f]
        if p == 0 and name != OWN_MEAN:
            assert batched is not None and fitted.chosen() == batched.chosen()
            # What it keeps is what it predicted with.
            np.testing.assert_allclose(batched.score(made)[tasks], found.values[0, f, tasks], atol=1e-9)
        np.testing.assert_allclose(found.values[p, f, tasks], fitted.score(made)[tasks], atol=0.03)
        others = [t for t in range(5) if t not in tasks]
        assert np.isnan(found.values[p, f, others]).all()


@pytest.mark.parametrize("name", [*SCORERS, OWN_MEAN])
def test_saved_and_loaded_it_scores_the_same(name: str, tmp_path: Path) -> None:
    table = world("ability", 4, 9, 4, 5)
    made = design(table)
    fitted = make_scorer(name).fit(made, table.scores)
    save(fitted, tmp_path / "scorer.json")
    record = json.loads((tmp_path / "scorer.json").read_text())
    assert record["versions"].keys() >= {"numpy", "scikit-learn"} and "features" in record
    again = load(tmp_path / "scorer.json")
    np.testing.assert_allclose(again.score(made), fitted.score(made), atol=1e-12)
    turned = made.select(made.features[::-1])
    np.testing.assert_allclose(again.score(turned), fitted.score(made), atol=1e-12)
    if name != OWN_MEAN:
        assert np.std(fitted.score(made)) > 0
        with pytest.raises(InputError, match=f"needs the feature '{record['features'][0]}'"):
            again.score(made.select([f for f in made.features if f != record["features"][0]]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "not a saved scorer"),
        ("no JSON", "not a saved scorer"),
        ('{"kind": "univariate", "format": 99}', "format 99, expected 1"),
        ('{"kind": "oracle", "format": 1, "features": []}', "unknown kind 'oracle'"),
        ('{"kind": "univariate", "format": 1, "features": ["a", "b"], "signs": [1]}', "damaged"),
        ('{"kind": "sparse-3", "format": 1, "features": ["a"], "signs": [2]}', "neither 1 nor -1"),
        (
            '{"kind": "ranksvm-rbf", "format": 1, "features": ["a"], "gamma": 1, "c": 1, '
            '"cells": [[NaN]], "weights": [1]}',
            "not finite",
        ),
    ],
)
def test_what_is_no_saved_scorer(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "s.json")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "absent.json")


@pytest.mark.parametrize("name", SCORERS)
def test_nothing_to_learn_from_is_an_error(name: str) -> None:
    table = world("ability", 0, 6, 3, 4)
    made = design(table)
    for scores in (np.full((3, 6), np.nan), np.ones((3, 6))):
        with pytest.raises(FitError):
            make_scorer(name).fit(made, scores)
    flat = design(table_of(np.ones((3, 6, 4)), table.scores))
    with pytest.raises(FitError, match="the same for all candidates"):
        make_scorer(name).fit(flat, table.scores)


def test_unknown_names_are_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ranksvm-rbf'"):
        make_scorer("ranksvm-rfb")
