"""Tables print what the records say: the same numbers, a dash for what is missing, names as they are."""

import io
import math
import re

import numpy as np
import pytest
from populations import measured, noise, population_of, task_of
from rich.console import Console, RenderableType

from forecast.analysis.ranking.results import Ranking
from forecast.analysis.ranking.tables import count, plan_table, ranking_tables
from forecast.analysis.ranking.univariate import rank_candidates
from forecast.config.schema import RankingConfig
from forecast.proxies.token_proxies import METRICS
from forecast.report.console import failures_text
from forecast.warehouse.population import Population, Target

PLAN = {
    "name": "run",
    "output": "/out",
    "window": "last-1000-tokens",
    "units": 12,
    "done": 3,
    "tasks": {"t": 40},
    "direct_evaluation": {},
    "candidates": [
        {
            "candidate": "a",
            "dtype": "float32",
            "parameters": None,
            "units": 6,
            "done": 3,
            "estimated_tokens": 12345,
            "estimated_flops": None,
        },
        {
            "candidate": "b",
            "dtype": "bfloat16",
            "parameters": 134_515_008,
            "units": 6,
            "done": 0,
            "estimated_tokens": 7,
            "estimated_flops": 1.25e12,
        },
    ],
}


def printed(table: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=250).print(table)
    return stream.getvalue()


def cells(text: str, name: str, column: int = 0) -> list[str]:
    """The cells of the row that has this name in this column."""
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines()]
    return next(row for row in rows if len(row) > column and row[column] == name)


def ranking_of(
    *targets: Target, names: tuple[str, ...] = (), instances: int = 4, **settings: float
) -> Ranking:
    values = noise(np.random.default_rng(0), 6, instances)
    base = population_of({"t": task_of({"x": values})}, *targets)
    population = Population(
        names or base.candidates,
        base.identities,
        base.families,
        (135_000_000, None, None, None, None, None),
        base.proxies,
        base.targets,
        base.training_flops,
    )
    return rank_candidates(
        population, RankingConfig.model_validate({"bootstraps": 50, "permutations": 50, **settings})
    )


SCORES = measured("t", [0.1, 0.2, 0.3, 0.4, 0.5, math.nan], [0.01, 0.02, 0.03, math.nan, 0.05, math.nan])


def test_plan_with_dashes_for_what_is_unknown() -> None:
    text = printed(plan_table(PLAN))
    assert cells(text, "a") == ["a", "float32", "-", "6", "3", "12,345", "-"]
    assert cells(text, "b") == ["b", "bfloat16", "135M", "6", "0", "7", "1.2e+12"]
    assert "Plan of run: 3 of 12 units done" in text
    assert "tasks: t (40 trajectories); window: last-1000-tokens" in text
    assert "direct evaluation" not in text
    assert "direct evaluation: q (5 items)" in printed(plan_table({**PLAN, "direct_evaluation": {"q": 5}}))
    assert "tasks: none" in printed(plan_table({**PLAN, "tasks": {}}))


def test_standings_are_the_rankings() -> None:
    ranking = ranking_of(SCORES)
    text = printed(ranking_tables(ranking))
    for s in ranking.standings:
        row = cells(text, s.candidate, column=1)
        assert row[0] == f"{s.forecast_rank:g}"
        assert row[2] == ("-" if s.parameters is None else "135M")
        if s.measured is None:
            assert row[3:5] == ["-", "-"]
        else:
            error = "" if s.measured_stderr is None else f" ± {s.measured_stderr:.3f}"
            assert row[3:5] == [f"{s.measured:.3f}{error}", f"{s.measured_rank:g}"]
        assert row[5:] == [f"{s.values[name]:.4g} ({s.ranks[name]:g})" for name in ranking.shown]
    assert "instances read: t (4)" in text
    assert "n = 5 candidates" in text
    for warning in ranking.warnings:
        assert "note: " + warning in text.replace("\n", " ").replace("  ", " ")


def test_families_are_the_correlations() -> None:
    ranking = ranking_of(SCORES, confidence=0.999)
    text = printed(ranking_tables(ranking))
    report = ranking.reports[0]
    assert text.count("99.9% interval") == 2
    for metric in METRICS:
        own = {c.weighting: c for c in report.correlations if c.metric == metric.name}
        uniform = own["uniform"]
        best = max(own.values(), key=lambda c: c.agreement)
        row = cells(text.split("proxy family")[1], metric.name)
        assert row == [
            metric.name,
            f"{uniform.spearman:+.2f}",
            f"[{uniform.ci_low:+.2f}, {uniform.ci_high:+.2f}]",
            f"{uniform.kendall:+.2f}",
            best.weighting,
            f"{best.spearman:+.2f}",
            f"[{best.ci_low:+.2f}, {best.ci_high:+.2f}]",
            f"{best.kendall:+.2f}",
        ]


def test_targets_are_the_reports() -> None:
    ranking = ranking_of(SCORES, measured("exam", [0.3, 0.1, 0.2, 0.6, 0.5, 0.4]))
    text = printed(ranking_tables(ranking)).split("Per measured task")[1]
    for report in ranking.reports:
        best, plain = report.best(), report.plain_cross_entropy()
        assert best is not None
        row = cells(text, report.target)
        assert row[1:4] == ["t", str(report.n_candidates), "-"]
        assert row[4] == f"{plain.spearman:+.2f} [{plain.ci_low:+.2f}, {plain.ci_high:+.2f}]"
        assert row[5:] == [
            best.proxy,
            f"{best.spearman:+.2f} [{best.ci_low:+.2f}, {best.ci_high:+.2f}]",
            f"{report.best_p:.3f}",
        ]


def test_figures_that_do_not_exist_are_dashes() -> None:
    flat = measured("flat", [0.5] * 6)
    text = printed(ranking_tables(ranking_of(flat, measured("few", [0.5, 0.6, *[math.nan] * 4]))))
    families, targets = text.split("proxy family")[1].split("Per measured task")
    for metric in METRICS:
        assert cells(families, metric.name)[1:] == ["-"] * 7
    for name, n in (("flat", "6"), ("few", "2")):
        assert cells(targets, name)[1:] == ["t", n, "-", "-", "-", "-", "-"]
    assert "+0.00" not in text and "nan" not in text and "None" not in text


def test_rho_without_interval() -> None:
    text = printed(ranking_tables(ranking_of(SCORES, measured("u", [1, 2, 3, 4, 5, 6.0]), instances=1)))
    assert cells(text.split("proxy family")[1], "rank")[2] == "-"
    assert re.fullmatch(r"[+-]\d\.\d\d", cells(text.split("Per measured task")[1], "u")[4])


def test_without_scores_there_is_a_ranking_alone() -> None:
    text = printed(ranking_tables(ranking_of()))
    assert "6 candidates by cross_entropy__uniform; instances read" in text
    assert "proxy family" not in text
    assert "note: no measured scores" in text


def test_names_are_printed_as_they_are() -> None:
    names = ("[bold]", "[/x]", "a[red]b", ":smile:", "[link=http://x]y", "ok")
    target = measured("[i]exam[/i]", [1, 2, 3, 4, 5, 6.0])
    text = printed(ranking_tables(ranking_of(target, measured("[b]", [1, 2, 3, 4, 5, 6.0]), names=names)))
    for name in (*names, "[i]exam[/i]", "[b]"):
        assert name in text, name
    candidate = {**PLAN["candidates"][0], "candidate": "[bold]"}  # type: ignore[index]
    plan = {**PLAN, "name": "[/run]", "candidates": [candidate], "tasks": {"[t]": 1}, "output": "/[out]"}
    text = printed(plan_table(plan))
    assert all(name in text for name in ("[bold]", "Plan of [/run]", "[t] (1", "/[out]"))


def test_failures_are_listed_and_the_rest_counted() -> None:
    text = printed(failures_text([{"candidate": "a", "error": f"[{i}] bad\nline two"} for i in range(23)]))
    assert "23 failed:" in text
    assert "[0] bad" in text and "[19] bad" in text and "[20] bad" not in text
    assert "    line two" not in text and "  line two" in text
    assert "... and 3 more" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (134_515_008, "135M"),
        (999_499, "999k"),
        (999_999, "1M"),
        (7_615_616_512, "7.62B"),
        (1_000_000_000_000, "1T"),
    ],
)
def test_counts(value: int | None, expected: str) -> None:
    assert count(value) == expected
