"""Scales go both ways, names keep their places, and only candidates with a score are drawn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from populations import measured, population_of, proxies_of

from app.charts.proxy_scatter import Dot, dots_of, scale_of, scatter
from app.labels import DOT, LONGEST, _box, place, shortened
from forecast.analysis.ranking.single_proxy import rank_candidates
from forecast.config.schema import RankingConfig
from forecast.proxies.token_proxies import PROXIES

BY_NAME = {proxy.name: proxy for proxy in PROXIES}
POINT = st.tuples(st.floats(0, 700), st.floats(0, 340))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_scale_and_its_inverse(log: bool, reverse: bool) -> None:
    scale = scale_of([2.0, 5.0, 300.0], log, reverse)
    for value in (2.0, 5.0, 300.0):
        assert 0 < scale.share(value) < 1
        assert scale.value(scale.share(value)) == pytest.approx(value)
    assert (scale.share(300.0) < scale.share(2.0)) == reverse


@pytest.mark.parametrize(("value", "log"), [(0.0, False), (0.4, False), (-3.0, False), (1.0, True)])
def test_scale_of_one_value_has_it_inside(value: float, log: bool) -> None:
    assert 0 < scale_of([value, value], log).share(value) < 1


@settings(max_examples=50, deadline=None)
@given(st.lists(POINT, min_size=1, max_size=25), st.integers(1, 60))
def test_names_cover_neither_each_other_nor_a_dot(dots: list[tuple[float, float]], length: int) -> None:
    names = ["n" * length] * len(dots)
    spots = place(dots, names, 700, 340)
    boxes = [_box(spot, names[0]) for spot in spots if spot is not None]
    for i, box in enumerate(boxes):
        assert box.left >= 0 and box.right <= 700 and box.top >= 0 and box.bottom <= 340
        assert not any(box.touches(other) for other in boxes[i + 1 :])
        for x, y in dots:
            # Exactly: the circle's square. A name never lies on any of them.
            assert not (
                box.left < x + DOT and x - DOT < box.right and box.top < y + DOT and y - DOT < box.bottom
            )


def test_a_name_is_nearest_to_its_own_dot_or_joined_to_it() -> None:
    dots = [(300.0, 100.0), (301.0, 112.0), (299.0, 121.0), (330.0, 115.0)]
    spots = place(dots, ["a name"] * 4, 700, 340)
    for own, spot in zip(dots, spots, strict=True):
        assert spot is not None
        distances = {dot: math.dist(dot, (spot.x, spot.y)) for dot in dots}
        assert spot.far or distances[own] <= min(distances.values()) + 2


def test_names_keep_clear_of_bars_where_they_can() -> None:
    free = place([(300.0, 100.0)], ["a"], 700, 340, [(60.0, 140.0)])
    barred = place([(300.0, 100.0), (311.0, 200.0)], ["a", "b"], 700, 340, [(60.0, 140.0), (60.0, 210.0)])
    assert free[0] is not None and free[0].align == "left"
    assert barred[0] is not None and barred[0].align == "right"


def test_a_name_without_room_is_left_out() -> None:
    assert place([(50.0, 50.0)], ["a long name"], 60, 340) == [None]
    assert len(shortened("n" * 100)) == LONGEST


def test_dots_are_the_candidates_with_a_score() -> None:
    quality = np.arange(12, dtype=float).reshape(4, 3)
    population = population_of(
        {"sums": proxies_of(quality)},
        measured("sums", [0.1, np.nan, 0.3, 0.4], [0.01, np.nan, np.nan, 0.02]),
    )
    report = rank_candidates(population, RankingConfig(bootstraps=0, permutations=0)).reports[0]
    dots = dots_of(population, report, BY_NAME["cross_entropy__uniform"])
    assert dots == [
        Dot("c00", "unknown", -1.0, 0.1, 0.01),
        Dot("c02", "unknown", -7.0, 0.3, None),
        Dot("c03", "unknown", -10.0, 0.4, 0.02),
    ]


@pytest.mark.parametrize(
    ("name", "kind", "reverse"),
    [
        ("cross_entropy__uniform", "linear", True),
        ("rank__frequency", "log", True),
        ("entropy__uniform", "linear", False),
    ],
)
def test_every_layer_has_the_axes_of_the_plot(name: str, kind: str, reverse: bool) -> None:
    """A layer that leaves its scale open would draw 0 into the picture, or turn the axis."""
    dots = [Dot("a", "f", 1.5, 0.2, 0.02), Dot("b", "g", 90.0, 0.4, None), Dot("c", "g", 90.0, 0.4, None)]
    chart, unnamed = scatter(dots, BY_NAME[name], "exam")
    assert unnamed == 0
    for layer in chart.to_dict()["layer"]:
        scale = layer["encoding"]["x"]["scale"]
        assert (scale["type"], scale["reverse"]) == (kind, reverse)
        assert scale["domain"][0] > 0 or kind == "linear"
        assert 0 < layer["encoding"]["y"]["scale"]["domain"][0] < 0.18
