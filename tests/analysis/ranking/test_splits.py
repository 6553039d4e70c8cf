"""Protocols: what is held out together, and that nothing held out is learned from."""

import numpy as np
import pytest

from forecast.analysis.ranking.splits import (
    KNOWN_TASKS,
    LEAVE_2_TASKS_OUT,
    LEAVE_FAMILIES_OUT,
    LEAVE_MODELS_OUT,
    PROTOCOLS,
    deal,
    make_protocol,
)


def families(n: int, size: int) -> tuple[str, ...]:
    return tuple(f"f{i // size}" for i in range(n))


def test_six_tasks_give_fifteen_folds() -> None:
    protocol = make_protocol(LEAVE_2_TASKS_OUT, families(18, 1), np.ones((6, 18), bool), 0)
    assert len({fold.tasks for fold in protocol.folds}) == 15
    assert all(fold.train.all() and fold.test.all() and len(fold.tasks) == 2 for fold in protocol.folds)
    assert not protocol.pooled


def test_of_many_tasks_a_choice_that_is_even() -> None:
    protocol = make_protocol(LEAVE_2_TASKS_OUT, families(9, 1), np.ones((21, 9), bool), 3)
    counts = np.bincount([t for fold in protocol.folds for t in fold.tasks], minlength=21)
    assert len({fold.tasks for fold in protocol.folds}) == len(protocol.folds) >= 30
    assert counts.max() - counts.min() <= 2


@pytest.mark.parametrize("n_tasks", [2, 3, 4, 5, 6, 9])
@pytest.mark.parametrize(("name", "size"), [(LEAVE_MODELS_OUT, 3), (LEAVE_FAMILIES_OUT, 3)])
def test_every_cell_is_held_out_once_by_a_fold_that_saw_neither_side(
    name: str, size: int, n_tasks: int
) -> None:
    kin = families(17, size)
    protocol = make_protocol(name, kin, np.ones((n_tasks, 17), bool), 1)
    held = np.zeros((n_tasks, 17), int)
    for fold in protocol.folds:
        assert not (fold.train & fold.test).any() and (fold.train | fold.test).all()
        assert 0 < len(fold.tasks) < n_tasks
        held[np.ix_(fold.tasks, fold.test)] += 1
        if name == LEAVE_FAMILIES_OUT:
            out = {kin[c] for c in np.flatnonzero(fold.test)}
            assert not out & {kin[c] for c in np.flatnonzero(fold.train)}
    assert (held == 1).all()
    assert protocol.pooled


def test_seeds_deal_differently_and_repeat() -> None:
    def tests(seed: int) -> list[bytes]:
        made = make_protocol(LEAVE_MODELS_OUT, families(18, 1), np.ones((6, 18), bool), seed)
        return [fold.test.tobytes() for fold in made.folds]

    assert tests(0) == tests(0) != tests(1)


@pytest.mark.parametrize(
    ("name", "n_tasks", "size", "repeats"),
    [
        (LEAVE_MODELS_OUT, 3, 1, 3),  # 17 candidates in 6 groups
        (LEAVE_FAMILIES_OUT, 3, 3, 1),  # a group for each of 6 families, a task at a time
        (LEAVE_FAMILIES_OUT, 5, 3, 3),  # tasks in pairs
        (KNOWN_TASKS, 5, 3, 1),  # all tasks together
    ],
)
def test_folds_are_repeated_where_chance_deals_them(name: str, n_tasks: int, size: int, repeats: int) -> None:
    protocol = make_protocol(name, families(17, size), np.ones((n_tasks, 17), bool), 1, repeats=3)
    assert protocol.n_repeats == repeats
    held = np.zeros((repeats, n_tasks, 17), int)
    for fold in protocol.folds:
        held[fold.repeat][np.ix_(fold.tasks, fold.test)] += 1
    assert (held == 1).all()


def test_groups_are_dealt_evenly_by_those_that_count() -> None:
    groups = np.repeat(np.arange(5), [6, 3, 3, 2, 4])
    counted = np.ones(18, bool)
    fold_of = deal(groups, counted, 3, np.random.default_rng(0))
    assert sorted(np.bincount(fold_of)) == [6, 6, 6]
    counted[:6] = False
    fold_of = deal(groups, counted, 3, np.random.default_rng(0))
    assert sorted(np.bincount(fold_of[6:])) == [3, 4, 5]


@pytest.mark.parametrize(
    ("name", "shape", "size", "reason"),
    [
        (LEAVE_2_TASKS_OUT, (2, 9), 1, "takes 3 tasks"),
        (LEAVE_MODELS_OUT, (1, 9), 1, "takes 2 tasks"),
        (LEAVE_MODELS_OUT, (4, 3), 1, "leaves 2 candidates to learn from"),
        (LEAVE_FAMILIES_OUT, (4, 9), 9, "takes 2 families"),
        (LEAVE_FAMILIES_OUT, (4, 5), 3, "leaves 2 candidates to learn from"),
    ],
)
def test_what_a_table_is_too_small_for(name: str, shape: tuple[int, int], size: int, reason: str) -> None:
    protocol = make_protocol(name, families(shape[1], size), np.ones(shape, bool), 0)
    assert not protocol.folds
    assert reason in (protocol.reason or "")


def test_without_a_task_every_protocol_says_why() -> None:
    for name in PROTOCOLS:
        protocol = make_protocol(name, families(2, 1), np.zeros((0, 2), bool), 0)
        assert not protocol.folds and "no task has 3 candidates" in (protocol.reason or "")


def test_candidates_without_scores_are_predicted_but_not_counted() -> None:
    scored = np.ones((4, 10), bool)
    scored[:, 7:] = False
    protocol = make_protocol(LEAVE_MODELS_OUT, families(10, 1), scored, 0)
    tested = np.zeros(10, int)
    for fold in protocol.folds:
        tested += fold.test
        assert (fold.train & scored.any(axis=0)).sum() >= 3
    assert (tested == tested[0]).all()
