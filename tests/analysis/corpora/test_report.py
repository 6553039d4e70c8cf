"""The report: frames, the cells of the document and what a terminal leaves out."""

import dataclasses
import io
from pathlib import Path

import pytest
from analysis.corpora.small_runs import OBS, QUICK, find, report, world
from rich.console import Console

from forecast.analysis.corpora.compute_cost import Given
from forecast.analysis.corpora.corpora_result import CorporaResult
from forecast.analysis.corpora.report import document
from forecast.report import html, terminal
from forecast.report.document import Document, Paragraph, Table, Warning


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> CorporaResult:
    """Six corpora, two checkpoints of each run; a budget that nothing is within, and one that serves."""
    observed, targets = world(corpora=6)
    tokens = {"10M": 1e9, "30M": 3e9, "100M": 1e10, "300M": 3e10}
    rows = [[*row, tokens[row[1]] * row[3] / 200] for row in observed]
    options = dataclasses.replace(QUICK, laws=True, given=Given(target_size="300M"), budgets=(1e-9, 0.1))
    return report(tmp_path_factory.mktemp("t"), rows, targets, options, columns=(*OBS, "tokens"))


def tables(document: Document, heading: str) -> list[Table]:
    (section,) = (section for section in document.sections if section.heading == heading)
    return [part for part in section.parts if isinstance(part, Table)]


def cells(table: Table, row: int = 0) -> dict[str, str]:
    return dict(zip((column.label for column in table.columns), table.cells()[row], strict=True))


def test_frames_hold_every_row_of_the_result(result: CorporaResult) -> None:
    frames = result.frames()
    assert frames["decisions"]["decision_accuracy"].to_list() == [r.decision_accuracy for r in result.rows]
    assert set(frames["decisions"]["step"]) == {"100", "200"}
    assert frames["best_of_many"]["task"].to_list() == ["macro", "x", "y"]
    assert frames["noise_ceilings"]["decision_accuracy"].to_list() == [
        ceiling.decision_accuracy for ceiling in result.ceilings
    ]
    assert frames["noise_ceiling_seeds"].filter(task="x")["seed"].to_list() == ["0", "1", "2"]
    assert frames["frontiers"].height == sum(map(len, result.frontiers.values()))
    choices = frames["budget_choices"].filter(task="macro")
    chosen = next(c for c in result.choices if c.task == "macro" and c.way is not None)
    assert chosen.regret is not None
    assert choices["regret"].to_list() == [None, chosen.regret.observed]
    assert frames["scaling_laws"].height == len(result.laws)
    assert frames["scaling_law_forecasts"]["predicted"].to_list() == [
        value for row in result.laws for value in (row.predicted or {}).values()
    ]


def test_frames_without_laws_and_costs_are_empty_but_typed(tmp_path: Path, result: CorporaResult) -> None:
    bare = report(tmp_path, *world(corpora=3, seeds=1, steps=(100,)))
    for name, frame in bare.frames().items():
        empty = name in (
            "corpus_pairs",
            "frontiers",
            "budget_choices",
            "scaling_laws",
            "scaling_law_forecasts",
        )
        assert (frame.height == 0) == empty, name
        assert frame.columns == result.frames()[name].columns
    headings = [section.heading for section in document(bare, "x").sections]
    assert "Budget-constrained choice" not in headings
    assert not any(heading.startswith("Scaling laws") for heading in headings)


def answer(result: CorporaResult) -> str:
    """The text before the first table."""
    return " ".join(
        part.text for part in document(result, "x").sections[0].parts if isinstance(part, Paragraph)
    )


def test_answer_is_first_and_notes_are_last(result: CorporaResult) -> None:
    ranking = result.ranking
    assert ranking is not None and ranking.over == "corpora"
    first = ranking.places[0]
    text = answer(result)
    assert text.startswith(f"Choose {first.corpus} for macro")
    row = find(result, metric=ranking.metric, size=ranking.size, step=200, task="macro", seed="mean")
    for shown in (ranking.basis, f"{row.decision_accuracy:.3f}", "Next: train"):
        assert shown in text
    assert f"{first.expected_regret:.4f}" in text
    table, pairs = tables(document(result, "x"), "Corpora")
    assert pairs.frame.height == len(ranking.places)
    assert [table.frame["corpus"][i] for i in (0, -1)] == [first.corpus, ranking.places[-1].corpus]
    sections = document(result, "x").sections
    notes = [part.text for part in sections[-1].parts if isinstance(part, Warning)]
    assert sections[-1].heading == "Notes" and set(result.warnings) < set(notes)
    assert not any(isinstance(part, Warning) for section in sections[:-1] for part in section.parts)


@pytest.mark.parametrize(
    ("p", "budgets", "ways", "wanted"),
    [
        (0.5, None, True, "do not decide by these runs"),
        (0.01, (1e-9,), True, "give a larger --budget"),
        (0.01, (1e-9,), False, "give --parameters and --training-tokens"),
        (None, (), False, "see Notes for what is missing"),
    ],
)
def test_answer_says_what_is_lacking(
    result: CorporaResult, p: float | None, budgets: tuple[float, ...] | None, ways: bool, wanted: str
) -> None:
    best, row = result.best["macro"]
    null = dataclasses.replace(best.null, p=p)
    changed = dataclasses.replace(
        result,
        best={} if p is None else {"macro": (dataclasses.replace(best, null=null), row)},
        ranking=result.ranking if budgets is None else None,
        options=dataclasses.replace(result.options, budgets=budgets or ()),
        ways=result.ways if ways else dict.fromkeys(result.ways, ()),
    )
    assert wanted in answer(changed)


def test_decisions_have_a_column_per_seed(result: CorporaResult) -> None:
    (table,) = tables(document(result, "x.csv"), "Decision accuracy")
    rows = [r for r in result.rows if r.task == "macro" and r.seed == "mean"]
    # The best first, those of the target's own size last.
    rows.sort(key=lambda r: (r.size == "300M", -r.decision_accuracy, r.cost_fraction, r.metric == "accuracy"))
    assert table.frame["decision_accuracy"].to_list() == [r.decision_accuracy for r in rows]
    assert table.frame.height == 16 and set(table.frame["size"][12:]) == {"300M"}
    metric, size, step = rows[5].metric, rows[5].size, rows[5].step
    shown = cells(table, 5)
    assert (shown["metric"], shown["size"], shown["step"]) == (metric, size, f"{step:g}")
    for seed, label in (("0", "seed 0"), ("2", "seed 2"), ("mean", "mean of seeds")):
        row = find(result, metric=metric, size=size, step=step, task="macro", seed=seed)
        assert shown[label] == f"{row.decision_accuracy:.3f}"
    (every,) = tables(document(result, "x.csv"), "All rows")
    assert every.frame.height == len(result.rows) and cells(every, 3)["seed"] == "mean of 3"


def test_budget_below_every_cost_has_no_choice(result: CorporaResult) -> None:
    (table,) = tables(document(result, "x.csv"), "Budget-constrained choice")
    none, chosen = cells(table), cells(table, 1)
    assert none["metric"] == "none within the budget" and none["regret"] == none["interval"] == "–"
    choice = next(c for c in result.choices if c.task == "macro" and c.way is not None)
    assert choice.way is not None and choice.regret is not None
    assert chosen["size"] == choice.way.size
    assert chosen["regret"] == f"{choice.regret.observed:.4f}"
    assert chosen["interval"] == f"[{choice.regret.low:.4f}, {choice.regret.high:.4f}]"


def test_laws_show_the_smallest_the_best_and_the_largest_set(result: CorporaResult) -> None:
    short, every = tables(document(result, "x.csv"), "Scaling laws for macro")
    own = [row for row in result.laws if row.task == "macro"]
    assert every.wide_only and every.frame.height == len(own)
    first = [row for row in own if (row.law, row.metrics) == (own[0].law, own[0].metrics)]
    best = max(first, key=lambda row: row.decision_accuracy or 0.0)
    wanted = list(dict.fromkeys([first[0].sizes, best.sizes, first[-1].sizes]))
    shown = short.frame.filter(law=own[0].law)["sizes"].to_list()[: len(wanted)]
    assert [tuple(sizes) for sizes in shown] == wanted


def test_charts_and_all_rows_are_only_in_the_page(result: CorporaResult) -> None:
    made = document(result, "x.csv")
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal.render(made))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Pareto frontier" in shown and "Decisions about x" not in shown
    assert "All rows" not in shown and "What is counted as compute" not in shown
    page = html.render(made)
    assert page.count("<svg") == 3 and "All rows" in page and "What is counted as compute" in page


def test_answer_says_what_the_best_of_as_many_rows_reaches_by_chance(result: CorporaResult) -> None:
    best, _ = result.best["macro"]
    assert best.null.mean is not None
    assert f"the best of {best.n_rows} rows by chance: {best.null.mean:.2f}" in answer(result)
