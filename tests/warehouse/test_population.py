"""The population as the warehouse has it, and features from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lakes import config_of, fill, solutions, tell
from populations import PLACE, SIGNS, noise, population_of, proxies_of, task_of

from forecast.errors import NoDataError
from forecast.plan import Plan, make_plan
from forecast.proxies.token_proxies import PROXIES
from forecast.warehouse.build import build_warehouse
from forecast.warehouse.connect import open_warehouse
from forecast.warehouse.features import features
from forecast.warehouse.population import Population, load_population

FOUR = {"d": "fake://4", "b": "fake://2", "twin of d": "fake://4", "a": "fake://1"}
TASKS = {"t": [*solutions(*"vwxyz"), *solutions(*"xw", expert="model")], "u": solutions("x")}


def loaded(folder: Path, **settings: Any) -> tuple[Plan, Population]:
    plan = make_plan(config_of(folder, TASKS, FOUR, **settings))
    fill(plan)
    build_warehouse(plan)
    with open_warehouse(plan.config.output) as db:
        return plan, load_population(db)


def scores_file(folder: Path, text: str) -> list[dict[str, str]]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.csv").write_text(text)
    return [{"format": "csv", "path": str(folder / "scores.csv")}]


def test_means_are_the_warehouses_means(tmp_path: Path) -> None:
    plan, population = loaded(tmp_path)
    assert population.candidates == tuple(FOUR), "in the order of the configuration"
    assert population.identities[0] == population.identities[2]
    assert list(population.proxies) == ["t", "u"]
    with open_warehouse(plan.config.output) as db:
        rows = db.execute(
            "SELECT candidate, task, proxy, value FROM task_proxies JOIN candidates USING (candidate_id)"
        )
        expected = {row[:3]: row[3] for row in rows.fetchall()}
    for task, proxies in population.proxies.items():
        means = proxies.means()
        for c, name in enumerate(population.candidates):
            for proxy, k in PLACE.items():
                assert means[c, k] == pytest.approx(expected[name, task, proxy], rel=1e-12), (
                    task,
                    name,
                    proxy,
                )


def test_weighted_means_drop_an_expert_without_instances() -> None:
    rng = np.random.default_rng(0)
    x, y = noise(rng, 2, 3), noise(rng, 2, 1)
    task = task_of({"x": x, "y": y}, index={"x": [0, 1, 2], "y": [1]})
    weights = np.array([[1.0, 2.0, 0.0], [2.0, 0.0, 1.0]])
    found = task.means(weights)
    np.testing.assert_allclose(found[0], ((x[:, 0] + 2 * x[:, 1]) / 3 + y[:, 0]) / 2)
    np.testing.assert_allclose(found[1], (2 * x[:, 0] + x[:, 2]) / 3)


def test_imported_scores_with_and_without_error_and_missing_ones(tmp_path: Path) -> None:
    text = "candidate,task,metric,value,stderr\nb,exam,acc,0.5,0.02\nd,exam,acc,0.75,\n"
    _, population = loaded(tmp_path, measured_scores=scores_file(tmp_path, text))
    (target,) = population.targets
    assert (target.task, target.metric, target.items, target.n_items) == ("exam", "acc", None, None)
    np.testing.assert_array_equal(target.values, [0.75, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(target.stderr, [np.nan, 0.02, np.nan, np.nan])


def test_the_metric_of_a_task_with_several(tmp_path: Path) -> None:
    # One file gives one metric for a task; several come from several files.
    files = {
        "1": "candidate,task,metric,value\nd,exam,alphabetically first,1\n",
        "2": "candidate,task,metric,value\nb,exam,widest,2\nd,exam,widest,3\n",
        "3": "candidate,task,metric,value\nb,quiz,imported,0.9\nd,quiz,imported,0.8\na,quiz,imported,0.7\n",
    }
    sources = [source for name, text in files.items() for source in scores_file(tmp_path / name, text)]
    quiz = [{"id": str(i), "prompt": "p", "options": ["x", "y"], "answer": i % 2} for i in range(6)]
    _, population = loaded(tmp_path, measured_scores=sources, choices={"quiz": quiz})
    exam, measured_here = population.targets
    assert (exam.metric, exam.other_metrics) == ("widest", ("alphabetically first",))
    np.testing.assert_array_equal(exam.values, [3, 2, np.nan, np.nan])
    assert (measured_here.metric, measured_here.other_metrics) == ("accuracy_per_character", ("imported",))
    assert measured_here.items is not None
    assert measured_here.items.shape == (4, 6) and measured_here.n_items == 6
    np.testing.assert_allclose(measured_here.items.mean(axis=1), measured_here.values)
    np.testing.assert_array_equal(measured_here.items[0], measured_here.items[2])


def test_an_imported_score_by_the_name_of_direct_evaluation_does_not_replace_it(tmp_path: Path) -> None:
    text = "candidate,task,metric,value\nd,quiz,accuracy_per_character,77\n"
    quiz = [{"id": str(i), "prompt": "p", "options": ["x", "y"], "answer": i % 2} for i in range(6)]
    _, population = loaded(tmp_path, measured_scores=scores_file(tmp_path, text), choices={"quiz": quiz})
    (target,) = population.targets
    assert target.values.max() <= 1 and target.n_items == 6


def test_incomplete_candidates_are_not_ranked(tmp_path: Path) -> None:
    text = "candidate,task,metric,value\nd,exam,acc,0.7\nb,exam,acc,0.1\n"
    plan = make_plan(config_of(tmp_path, TASKS, FOUR, measured_scores=scores_file(tmp_path, text)))
    fill(plan, only=["d", "a"])
    build_warehouse(plan)
    with open_warehouse(plan.config.output) as db:
        population = load_population(db)
    assert population.candidates == ("d", "twin of d", "a")
    np.testing.assert_array_equal(population.targets[0].values, [0.7, np.nan, np.nan])


def test_nothing_that_all_have_read(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, {"t": solutions("1", "2")}, {"a": "fake://1", "b": "fake://2"}))
    unread = {("a", "1"), ("b", "2")}
    tell(plan, lambda u, t: "no" if (u.candidate.name, t.instance_id) in unread else [{"logprob": -1.0}])
    build_warehouse(plan)
    with (
        open_warehouse(plan.config.output) as db,
        pytest.raises(NoDataError, match="no solution was read by every"),
    ):
        load_population(db)


def test_tasks_of_a_target() -> None:
    population = population_of({"t": proxies_of(np.ones((2, 1))), "u": proxies_of(np.ones((2, 1)))})
    assert population.tasks_for("u", {}) == ("u",)
    assert population.tasks_for("exam", {}) == ("t", "u")
    assert population.tasks_for("exam", {"exam": ["u"]}) == ("u",)
    assert population.tasks_for("t", {"t": ["u", "absent"]}) == ("u",)


def test_features_of_one_task_are_its_means_with_the_sign_turned() -> None:
    values = noise(np.random.default_rng(0), 5, 4)
    found = features(population_of({"t": task_of({"x": values})}), ["t"])
    np.testing.assert_allclose(found, values.mean(axis=1) * SIGNS, atol=1e-9)
    names = [p.name for p in PROXIES]
    assert found[0, names.index("rank__uniform")] == pytest.approx(
        -values[0, :, names.index("rank__uniform")].mean()
    )


def test_features_of_several_tasks_do_not_depend_on_their_scales() -> None:
    rng = np.random.default_rng(0)
    t, u = noise(rng, 6, 4), noise(rng, 6, 4)
    plain = features(population_of({"t": task_of({"x": t}), "u": task_of({"x": u})}), ["t", "u"])
    scaled = features(population_of({"t": task_of({"x": 50 * t + 3}), "u": task_of({"x": u})}), ["t", "u"])
    np.testing.assert_allclose(plain, scaled, atol=1e-8)
    assert plain.mean(axis=0) == pytest.approx(0, abs=1e-8)


def test_a_proxy_that_is_the_same_for_all_adds_nothing() -> None:
    """0.1 and its like have no exact mean: what rounding leaves must not be blown up to a z-score."""
    rng = np.random.default_rng(0)
    t, u = noise(rng, 7, 9), noise(rng, 7, 9)
    t[:] = rng.permuted(np.tile(np.linspace(0.1, 0.7, 9), (7, 1)), axis=1)[
        :, :, None
    ]  # equal but for rounding
    found = features(population_of({"t": task_of({"x": t}), "u": task_of({"x": u})}), ["t", "u"])
    alone = features(population_of({"u": task_of({"x": u}), "v": task_of({"x": u})}), ["u", "v"])
    np.testing.assert_allclose(2 * found, alone, atol=1e-8)


def test_candidates_that_are_equal_but_for_rounding_are_tied() -> None:
    values = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.3, 0.1]])
    assert len({float(row.mean()) for row in values}) > 1, "this is what rounding does"
    found = features(population_of({"t": proxies_of(values)}), ["t"])
    assert (found == found[0]).all()


def test_averages_over_tasks_that_are_equal_but_for_rounding_are_tied() -> None:
    """A candidate that is good, fair, poor at three tasks and one that is fair, poor, good at them."""
    values = np.array([0.1, 0.5, 0.8, 0.3, 0.9])
    tasks = {name: proxies_of(np.tile(np.roll(values, i)[:, None], (1, 2))) for i, name in enumerate("tuvwx")}
    found = features(population_of(tasks), list(tasks))
    assert (found == 0).all()
