"""Scaling laws: known parameters are found again, and what cannot be fitted says so."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis.corpora.small_runs import OBS, QUICK, report
from scipy.special import expit

from forecast.analysis.corpora.compute_cost import Given
from forecast.analysis.corpora.scaling_law_forecasts import size_sets
from forecast.analysis.stats.scaling_laws import FORMS, FitError, fit_accuracy, fit_link, fit_loss
from forecast.inputs.published.datadecide import SIZES

SMALL = list(SIZES)[:-1]
FEW = SMALL[::2]
N = np.array([SIZES[s].parameters for s in SMALL]) / SIZES["1B"].parameters
D = np.array([SIZES[s].tokens() for s in SMALL]) / SIZES["1B"].tokens()


def test_two_and_three_parameters_are_found_again() -> None:
    two = fit_loss("2-parameter", N, D, 0.5 * (N * D) ** -0.07)
    assert two.parameters == pytest.approx({"A": 0.5, "a": 0.07}, rel=1e-5)
    three = fit_loss("3-parameter", N, D, 0.4 + 0.2 * (N * D) ** -0.12)
    assert three.parameters == pytest.approx({"A": 0.2, "a": 0.12, "E": 0.4}, rel=1e-5)
    assert three.at_target() == pytest.approx(0.6, rel=1e-6) and three.rmse < 1e-8


def test_five_parameters_need_sizes_and_tokens_that_differ() -> None:
    n, d = np.tile(N, 3), np.concatenate([D, D / 2, D / 5])
    law = fit_loss("5-parameter", n, d, 0.4 + 0.1 * n**-0.25 + 0.1 * d**-0.3)
    assert law.parameters == pytest.approx({"A": 0.1, "a": 0.25, "B": 0.1, "b": 0.3, "E": 0.4}, rel=1e-4)
    along = fit_loss("5-parameter", N, D, 0.4 + 0.1 * N**-0.25 + 0.1 * D**-0.3)
    assert along.at_target() == pytest.approx(0.6, rel=1e-3)  # only the sum is determined


@pytest.mark.parametrize("form", FORMS)
def test_noise_is_survived(form: Any) -> None:
    rng = np.random.default_rng(0)
    found = [
        fit_loss(
            form, N, D, (0.4 + 0.2 * (N * D) ** -0.12) * np.exp(0.01 * rng.normal(size=len(N)))
        ).at_target()
        for _ in range(20)
    ]
    bias = abs(np.mean(found) - 0.6)
    assert bias < (0.1 if form == "2-parameter" else 0.03)  # a law without E cannot follow


def test_steps_to_accuracy_are_found_again() -> None:
    loss = 0.4 + 0.2 * (N * D) ** -0.12
    accuracy = 0.25 + 0.6 * expit(-6 * (loss - 0.8))
    for top in (1.0, 100.0):
        link = fit_link(loss, top * accuracy, top=top)
        assert link.parameters == pytest.approx({"b": 0.25, "s": 0.6, "k": 6.0, "m": 0.8}, rel=1e-3)
        assert link.at(np.array([0.6]))[0] == pytest.approx(top * (0.25 + 0.6 * expit(1.2)), rel=1e-4)
    single = fit_accuracy("3-parameter", N, D, 0.25 + 0.6 * expit(3.0 - 1.5 * (N * D) ** -0.15))
    assert single.at_target() == pytest.approx(0.25 + 0.6 * expit(1.5), rel=1e-3)
    five = fit_accuracy("5-parameter", N, D, 0.25 + 0.6 * expit(3.0 - 0.7 * N**-0.3 - 0.8 * D**-0.3))
    assert five.at_target() == pytest.approx(0.25 + 0.6 * expit(1.5), rel=1e-3)


def test_helper_points_lead_to_a_perfect_score() -> None:
    loss = np.linspace(2.0, 1.5, 8)
    accuracy = 0.25 + 0.001 * np.arange(8)
    with_helper, without = fit_link(loss, accuracy, helper_points=True), fit_link(loss, accuracy)
    assert with_helper.at(np.array([0.0]))[0] == pytest.approx(1.0, abs=0.02)
    assert abs(without.at(np.array([0.0]))[0] - 1.0) > 0.1


def test_a_link_never_rises_with_the_loss() -> None:
    loss = np.linspace(1.0, 2.0, 8)
    link = fit_link(loss, 0.2 + 0.3 * (loss - 1.0))
    assert np.ptp(link.at(loss)) < 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_loss("3-parameter", N[:2], D[:2], np.ones(2)), "2 different points, this form needs 3"),
        (
            lambda: fit_loss("5-parameter", N[[0, 0, 1, 1, 2]], D[[0, 0, 1, 1, 2]], np.ones(5)),
            "3 different points",
        ),
        (lambda: fit_loss("2-parameter", N, D, np.zeros(len(N))), "not positive"),
        (lambda: fit_loss("2-parameter", N, D, np.full(len(N), np.nan)), "not finite"),
        (lambda: fit_accuracy("3-parameter", N, D, np.full(len(N), 1.5)), "outside 0..1"),
        (lambda: fit_accuracy("2-parameter", N, D, np.full(len(N), 0.5)), "single step"),
        (lambda: fit_link(np.ones(6), np.ones(6)), "1 different points"),
    ],
)
def test_what_cannot_be_fitted_says_so(call: Any, message: str) -> None:
    with pytest.raises(FitError, match=message):
        call()


def test_sets_of_sizes() -> None:
    assert size_sets("abcde") == [tuple(s) for s in ("abc", "abcd", "abcde", "bcde", "cde")]
    assert size_sets("abcd", dropping=False) == [tuple(s) for s in ("abc", "abcd")]
    assert size_sets("ab") == []


def law_tables(steps: tuple[float, ...] = (0.2, 0.6, 1.0)) -> tuple[list[list[Any]], list[list[Any]]]:
    """Four corpora: losses are 3-parameter laws with floors of their own, accuracies a sigmoid of them."""
    observed: list[list[Any]] = []
    targets: list[list[Any]] = []
    for c in range(4):
        floor = 0.3 + 0.03 * c

        def loss_of(n: float, d: float, floor: float = floor) -> float:
            return floor + 0.2 * (n * d) ** -0.12

        def accuracy_of(loss: float) -> float:
            return 0.25 + 0.6 / (1 + np.exp(6 * (loss - 0.8)))

        for size in FEW:
            own = SIZES[size]
            for part in steps:
                step = round(part * own.steps)
                n = own.parameters / SIZES["1B"].parameters
                d = own.tokens(step) / SIZES["1B"].tokens()
                loss = loss_of(n, d)
                head = [f"c{c}", size, 0, step, "x"]
                observed += [[*head, "nll", loss], [*head, "accuracy", accuracy_of(loss)]]
        targets.append([f"c{c}", "mean", "x", "accuracy", accuracy_of(loss_of(1.0, 1.0))])
    return observed, targets


def test_laws_of_corpora_forecast_the_target(tmp_path: Path) -> None:
    observed, targets = law_tables()
    found = report(tmp_path, observed, targets, dataclasses.replace(QUICK, laws=True))
    rows = {(row.law, row.sizes): row for row in found.laws}
    assert {row.law for row in found.laws} == {
        *FORMS,
        *(
            f"{form} two-step{words}"
            for form in FORMS
            for words in ("", ", helper points", ", late checkpoints", ", helper points, late checkpoints")
        ),
        "3-parameter single-step",
        "5-parameter single-step",
    }
    most = tuple(FEW)
    two_step = rows["3-parameter two-step", most]
    assert two_step.decision_accuracy == 1.0 and two_step.absolute_error < 1e-3
    assert two_step.relative_error < 2e-3 and two_step.compared_with == "the target"
    assert rows["3-parameter", most].compared_with.endswith("not observed")
    assert rows["3-parameter", most].predicted["c0"] == pytest.approx(0.5, rel=1e-4)
    few = rows["5-parameter", most[:3]]
    assert few.decision_accuracy is None and few.reason == "3 different points, this form needs 5"
    cost = sum(SIZES[s].parameters * SIZES[s].tokens() for s in most) / (
        SIZES["1B"].parameters * SIZES["1B"].tokens()
    )
    assert two_step.cost_fraction == pytest.approx(cost)
    kinds = {way.kind for way in found.ways["x"]}
    assert kinds == {"accuracy", "cross-entropy", "scaling law"}


def test_final_checkpoints_only_have_no_filters_of_their_own(tmp_path: Path) -> None:
    observed, targets = law_tables((1.0,))
    found = report(tmp_path, observed, targets, dataclasses.replace(QUICK, laws=True))
    assert not any("late" in row.law for row in found.laws)
    assert any("two-step, helper points" in row.law for row in found.laws)


def test_too_few_sizes_or_no_counts_say_so(tmp_path: Path) -> None:
    observed, targets = law_tables((1.0,))
    two = [row for row in observed if row[1] in FEW[:2]]
    options = dataclasses.replace(QUICK, laws=True)
    words = " ".join(report(tmp_path, two, targets, options).warnings)
    assert "tokens and nll: 2; a scaling law needs 3" in words
    unknown = [[row[0], f"size {row[1]}", *row[2:]] for row in observed]
    words = " ".join(report(tmp_path, unknown, targets, options).warnings)
    assert "parameters and tokens of the target are not known" in words
    no_loss = [row for row in observed if row[5] != "nll"]
    words = " ".join(report(tmp_path, no_loss, targets, options).warnings)
    assert "no metric is a cross-entropy by its name" in words


def test_the_actual_loss_is_that_of_the_targets_size(tmp_path: Path) -> None:
    rows = [
        [f"c{c}", size, 0, None, "x", "nll", value + 0.1 * c, n, d]
        for c in range(3)
        for size, n, d, value in (
            ("s1", 1, 1, 4.0),
            ("s2", 10, 10, 3.0),
            ("s3", 100, 100, 2.5),
            ("s4", 1000, 1000, 2.0),
        )
    ]
    targets = [[f"c{c}", "mean", "x", "accuracy", 0.5 - 0.1 * c] for c in range(3)]
    options = dataclasses.replace(QUICK, laws=True, given=Given(target_size="s4"))
    found = report(tmp_path, rows, targets, options, columns=(*OBS, "parameters", "tokens"))
    law = next(row for row in found.laws if row.law == "2-parameter")
    apart = [abs(law.predicted[f"c{c}"] - (2.0 + 0.1 * c)) for c in range(3)]
    assert law.absolute_error == pytest.approx(np.mean(apart))
    assert law.relative_error == pytest.approx(np.mean([a / (2.0 + 0.1 * c) for c, a in enumerate(apart)]))
    assert law.sizes == ("s1", "s2", "s3")
