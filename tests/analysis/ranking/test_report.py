"""The report shows what the frames hold: the same numbers, a dash for what is missing, names as they are."""

import io
import math
import re

import numpy as np
import pytest
from populations import measured, noise, population_of, task_of
from rich.console import Console, RenderableType
from worlds import imported, world

from forecast.analysis.ranking.held_out import HeldOutResult, RankOptions, evaluate_held_out
from forecast.analysis.ranking.held_out_report import RANKS
from forecast.analysis.ranking.report import document
from forecast.analysis.ranking.single_proxy import Ranking, rank_candidates
from forecast.config.schema import RankingConfig
from forecast.proxies.token_proxies import METRICS
from forecast.report import html, terminal
from forecast.report.console import failures_text
from forecast.report.document import Chart, Document, Paragraph, Table, Warning
from forecast.report.format import MISSING
from forecast.warehouse.population import Population, Target


def printed(shown: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=250).print(shown)
    return stream.getvalue()


def tables(found: Document, heading: str) -> list[Table]:
    (section,) = (section for section in found.sections if section.heading == heading)
    return [part for part in section.parts if isinstance(part, Table)]


def row_of(table: Table, name: str, column: int = 0) -> list[str]:
    """The cells of the row that has this name in this column; all columns."""
    return next(row for row in table.cells() if row[column] == name)


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
DASHES = [MISSING] * 7


def test_frames_hold_every_standing_correlation_and_target() -> None:
    ranking = ranking_of(SCORES, measured("exam", [0.3, 0.1, 0.2, 0.6, 0.5, 0.4]))
    frames = ranking.frames()
    first, leading = ranking.standings[0], ranking.shown[0]
    row = frames["standings"].row(0, named=True)
    assert (row["candidate"], row["measured"], row["rank"]) == (
        first.candidate,
        first.measured,
        first.rank,
    )
    assert (row[leading], row[f"{leading}_rank"]) == (first.values[leading], first.ranks[leading])
    assert frames["standings"]["measured"].null_count() == 0, "one of two tasks is half of them"
    assert frames["correlations"].height == 80 * len(ranking.reports)
    assert frames["targets"]["target"].to_list() == [report.target for report in ranking.reports]
    best = ranking.reports[1].best()
    assert best is not None
    target = frames["targets"].row(1, named=True)
    assert (target["best"], target["best_spearman"]) == (best.proxy, best.spearman)
    assert target["plain_spearman"] == ranking.reports[1].plain_cross_entropy().spearman


def test_standings_are_the_rankings() -> None:
    ranking = ranking_of(SCORES)
    (table,) = tables(document("run.yaml", ranking), "Standings")
    for s in ranking.standings:
        row = row_of(table, s.candidate, column=2)
        assert row[:2] == [f"{s.rank:g}", RANKS(s.rank_low, s.rank_high)]
        assert row[4] == (MISSING if s.parameters is None else "135M")
        assert row[5] == (MISSING if s.p_above_next is None else f"{s.p_above_next:.2f}")
        if s.measured is None:
            assert row[6:8] == [MISSING, MISSING]
        else:
            error = "" if s.measured_stderr is None else f" ± {s.measured_stderr:.3f}"
            assert row[6:8] == [f"{s.measured:.3f}{error}", f"{s.measured_rank:g}"]
        assert row[8:] == [f"{s.values[name]:.4g} ({s.ranks[name]:g})" for name in ranking.shown]
    assert "instances read: t (4)" in table.caption
    assert [column.name for column in table.columns if column.wide_only] == [
        "family",
        "parameters",
        *(name for name in ranking.shown if name != ranking.leader.proxy),
    ]


def test_warnings_are_in_every_document() -> None:
    ranking = ranking_of(SCORES)
    found = document("run.yaml", ranking)
    assert (
        tuple(p.text for s in found.sections for p in s.parts if isinstance(p, Warning)) == ranking.warnings
    )
    assert len(ranking.warnings) > 1


def test_answer_stands_first_and_notes_last(held_out: HeldOutResult) -> None:
    assert held_out.order is not None
    leaders = (
        (ranking_of(SCORES), None, "may be chance (p = "),
        (None, held_out, "for models not seen"),
    )
    unverified = ranking_of(), None, "Next: measure 3 candidates or more"
    for ranking, evaluated, words in (*leaders, unverified):
        found = document("x", ranking, evaluated)
        lines = [part.text for part in found.sections[0].parts if isinstance(part, Paragraph)]
        assert words in " ".join(lines)
        first = (ranking.standings if ranking else held_out.order.places)[0].candidate
        assert lines[0].startswith(f"{first} leads") and lines[-1].startswith("Next: ")
        assert found.sections[-1].heading == "Notes"


def test_families_are_the_correlations() -> None:
    ranking = ranking_of(SCORES, confidence=0.999)
    (table,) = tables(document("run.yaml", ranking), "Proxy families")
    report = ranking.reports[0]
    assert [column.label for column in table.columns].count("99.9% interval") == 2
    assert "n = 5 candidates" in table.caption
    assert row_of(table, "plain cross-entropy")[1] == f"{report.plain_cross_entropy().spearman:+.2f}"
    assert table.frame["plain"].to_list() == [True] + [False] * len(METRICS)
    for metric in METRICS:
        own = {c.weighting: c for c in report.correlations if c.metric == metric.name}
        uniform = own["uniform"]
        best = max(own.values(), key=lambda c: c.agreement)
        assert row_of(table, metric.name) == [
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
    (table,) = tables(document("run.yaml", ranking), "Measured tasks")
    for report in ranking.reports:
        best, plain = report.best(), report.plain_cross_entropy()
        assert best is not None
        assert row_of(table, report.target) == [
            report.target,
            "t",
            str(report.n_candidates),
            MISSING,
            f"{plain.spearman:+.2f} [{plain.ci_low:+.2f}, {plain.ci_high:+.2f}]",
            best.proxy,
            f"{best.spearman:+.2f} [{best.ci_low:+.2f}, {best.ci_high:+.2f}]",
            f"{report.best_p:.3f}",
        ]


def test_all_80_proxies_are_in_the_wide_report_only() -> None:
    ranking = ranking_of(SCORES)
    found = document("run.yaml", ranking)
    heading = f"All proxies against {ranking.reports[0].target}"
    (table,) = tables(found, heading)
    assert len(table.cells()) == 80
    c = ranking.reports[0].correlations[7]
    interval = MISSING if c.ci_low is None else f"[{c.ci_low:+.2f}, {c.ci_high:+.2f}]"
    assert table.cells()[7] == [
        c.metric,
        c.weighting,
        f"{c.spearman:+.2f}",
        interval,
        f"{c.kendall:+.2f}",
        str(c.n_candidates),
    ]
    assert heading not in printed(terminal.render(found))
    page = html.render(found)
    assert heading in page and page.count("<svg") == 2


def test_figures_that_do_not_exist_are_dashes() -> None:
    flat = measured("flat", [0.5] * 6)
    found = document("run.yaml", ranking_of(flat, measured("few", [0.5, 0.6, *[math.nan] * 4])))
    (families,), (targets,) = tables(found, "Proxy families"), tables(found, "Measured tasks")
    for metric in METRICS:
        assert row_of(families, metric.name)[1:] == DASHES
    for name, n in (("flat", "6"), ("few", "2")):
        assert row_of(targets, name)[1:] == ["t", n, *[MISSING] * 5]
    charts = [s.heading for s in found.sections for part in s.parts if isinstance(part, Chart)]
    assert charts == ["Standings"], "no grid of proxies"
    text = printed(terminal.render(found, wide=True))
    assert "+0.00" not in text and "nan" not in text and "None" not in text


def test_rho_without_interval() -> None:
    found = document("x", ranking_of(SCORES, measured("u", [1, 2, 3, 4, 5, 6.0]), instances=1))
    (families,), (targets,) = tables(found, "Proxy families"), tables(found, "Measured tasks")
    assert row_of(families, "rank")[2] == MISSING
    assert re.fullmatch(r"[+-]\d\.\d\d", row_of(targets, "u")[4])


def test_without_scores_there_is_a_ranking_alone() -> None:
    text = printed(terminal.render(document("x", ranking_of()), wide=True))
    assert (
        "6 candidates by cross_entropy__uniform over tokens; rank intervals over instances; instances read"
        in text
    )
    assert "proxy family" not in text
    assert "note: no measured scores" in text


def test_names_are_printed_as_they_are() -> None:
    names = ("[bold]", "[/x]", "a[red]b", ":smile:", "[link=http://x]y", "ok")
    target = measured("[i]exam[/i]", [1, 2, 3, 4, 5, 6.0])
    ranking = ranking_of(target, measured("[b]", [1, 2, 3, 4, 5, 6.0]), names=names)
    text = printed(terminal.render(document("x", ranking)))
    for name in (*names, "[i]exam[/i]", "[b]"):
        assert name in text, name


@pytest.fixture(scope="module")
def held_out() -> HeldOutResult:
    table = world("ability", 0, candidates=9, tasks=4, features=4, family=2)
    options = RankOptions(scorers=("univariate",), permutations=9, bootstraps=50)
    return evaluate_held_out(imported(table), options)


def test_held_out_frames_hold_every_row(held_out: HeldOutResult) -> None:
    frames = held_out.frames()
    assert frames["held_out"].height == len(held_out.rows)
    assert frames["held_out"]["null_p"].to_list() == [row.null.p for row in held_out.rows]
    assert frames["held_out"]["n_rhos"].to_list() == [row.n_panels for row in held_out.rows]
    assert frames["comparisons"]["difference"].to_list() == [c.difference for c in held_out.comparisons]
    assert held_out.order is not None
    assert frames["standings"]["candidate"].to_list() == [place.candidate for place in held_out.order.places]


def test_held_out_tables_are_the_result(held_out: HeldOutResult) -> None:
    found = document("t.csv", held_out=held_out)
    scorers, choices = tables(found, "Held-out evaluation")
    assert [column.name for column in scorers.columns if column.wide_only] == [
        "n_families",
        "n_tasks",
        "n_rhos",
        "repeat_low",
        "smallest_detectable_rho",
    ]
    protocols = list(dict.fromkeys(scorers.frame["protocol"]))
    assert protocols == [name for name in held_out.options.protocols if name in protocols]
    for row in held_out.rows:
        own = [
            cells for cells in scorers.cells() if cells[0] == row.protocol and cells[1].startswith(row.scorer)
        ]
        assert len(own) == 1
        rho, interval, p = own[0][2], own[0][3], own[0][6]
        assert rho == (MISSING if row.spearman is None else f"{row.spearman:+.2f}")
        assert interval == (MISSING if row.ci_low is None else f"[{row.ci_low:+.2f}, {row.ci_high:+.2f}]")
        assert p == (MISSING if row.null.p is None else f"{row.null.p:.3f}")
    reasons = {(row.protocol, row.scorer): row.reason for row in held_out.rows if row.spearman is None}
    said = {(cells[0], cells[1].removesuffix(" (baseline)")): cells[2] for cells in choices.cells()}
    assert reasons and all(said[key] == reason for key, reason in reasons.items())
    assert re.fullmatch(r"[+-]f\d\d \(\d+ of \d+\).*", said["leave-models-out", "univariate"])


def test_order_and_comparisons_are_the_result(held_out: HeldOutResult) -> None:
    found = document("t.csv", held_out=held_out)
    (order,), (pairs,) = tables(found, "Standings"), tables(found, "Scorers compared")
    assert held_out.order is not None
    place = held_out.order.places[0]
    assert order.cells()[0] == [
        f"{place.rank:g}",
        f"{place.rank_low:g} to {place.rank_high:g}",
        place.candidate,
        place.family,
        f"{place.forecast:+.2f}",
        f"{place.p_above_next:.2f}",
        f"{place.measured_rank:g}",
        str(place.n_tasks_measured),
    ]
    assert order.cells()[-1][5] == MISSING, "nobody stands below the last"
    pair = held_out.comparisons[0]
    assert pairs.cells()[0][:4] == [pair.protocol, pair.first, pair.second, f"{pair.difference:+.2f}"]
    assert pairs.cells()[0][-1] == str(pair.n_candidates)
    assert "9 candidates of 5 families, 4 tasks, 4 features; seed 0" in found.subtitle
    assert html.render(found).count("<svg") == 2


def test_failures_are_listed_and_the_rest_counted() -> None:
    text = printed(failures_text([{"candidate": "a", "error": f"[{i}] bad\nline two"} for i in range(23)]))
    assert "23 failed:" in text
    assert "[0] bad" in text and "[19] bad" in text and "[20] bad" not in text
    assert "    line two" not in text and "  line two" in text
    assert "... and 3 more" in text
