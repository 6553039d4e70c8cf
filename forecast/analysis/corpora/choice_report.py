"""The ranking of corpora as a section of a report, and the report of a ranking without targets."""

from typing import Any

from forecast.analysis.corpora.choose import CorpusRanking
from forecast.analysis.corpora.corpora_result import CorporaChoice, corpora_frame
from forecast.report.document import Column, Document, Paragraph, Section, Table, Warning
from forecast.report.format import INTEGER, PERCENT, Format, fixed
from forecast.report.records import record_of

_MOST_SHORT = 10  # corpora on a terminal
_SMALL = fixed(4)
_RANK = Format(lambda rank: f"{rank:g}")
_RANGE = Format(lambda low, high: f"{low:g} to {high:g}")


def answer(ranking: CorpusRanking) -> str:
    """Which corpus leads, and how sure that is, in one sentence."""
    first = ranking.places[0]
    if len(ranking.places) > 1 and all(place.rank == first.rank for place in ranking.places):
        return f"no corpus leads, all are equal by {ranking.basis}."
    known = "" if first.p_best is None else f": {chances(ranking)}"
    return f"{first.corpus} leads for {ranking.task} by {ranking.basis}{known}."


def chances(ranking: CorpusRanking) -> str:
    """The probability that the first is the best, and the interval of its rank."""
    first = ranking.places[0]
    assert first.p_best is not None and first.rank_low is not None and first.rank_high is not None
    return (
        f"the best of {len(ranking.places)} with a probability of {PERCENT(first.p_best)}, "
        f"rank {_RANGE(first.rank_low, first.rank_high)}"
    )


def ranking_section(ranking: CorpusRanking, confidence: float) -> Section:
    """The table of corpora; ten of them on a terminal."""
    frame = corpora_frame(ranking)
    over = {"corpora": "held-out corpora", "seeds": "seeds", None: ""}[ranking.over]
    columns = (
        Column("rank", "rank", _RANK, "1 is best; equal forecasts share one."),
        Column("corpus", "corpus"),
        Column(
            "rank_low",
            f"{100 * confidence:g}% interval",
            _RANGE,
            f"Of the rank, over {over}.",
            also=("rank_high",),
        ),
        Column("p_best", "P(best)", PERCENT),
        Column("p_above_next", "P(above next)", PERCENT),
        Column(
            "expected_regret",
            "expected regret",
            _SMALL,
            f"Best corpus less this one, on average; in {ranking.unit}.",
        ),
        Column(
            "value",
            ranking.metric,
            _SMALL,
            f"At {ranking.size}, mean of seeds; the corpora are ranked by it.",
        ),
        Column("n_seeds", "seeds", INTEGER, wide_only=True),
        Column(
            "forecast",
            "forecast",
            _SMALL,
            f"Of {ranking.unit}, learned from the other corpora.",
            wide_only=True,
        ),
        Column("measured", "measured", _SMALL, "Of the target run, where it is known.", wide_only=True),
    )
    rests = "chosen by its decision accuracy" if ranking.chosen == "decision accuracy" else "the default"
    caption = f"Ranked by {ranking.basis} ({rests}). " + (
        ranking.reason or "Figures are over held-out corpora"
    )
    return Section("Corpora", (Table(frame, columns, caption, terminal_rows=_MOST_SHORT),))


def document(result: CorporaChoice, source: str) -> Document:
    """The answer, the corpora, notes."""
    ranking = result.ranking
    sections = []
    if ranking is None:
        sections.append(
            Section(
                "", (Paragraph("No choice: no metric of known direction. Next: give --higher or --lower."),)
            )
        )
    else:
        lines = [answer(ranking)]
        if ranking.reason:
            lines.append(f"How sure: {ranking.reason}.")
        lines.append(
            "Next: train one or two corpora at the target size and give their scores with --targets; "
            "from five on they calibrate the ranking."
        )
        sections += [
            Section("", tuple(map(Paragraph, lines))),
            ranking_section(ranking, result.options.confidence),
        ]
    notes = list(result.warnings)
    if ranking is not None and ranking.left_out:
        notes.append(f"without a value of {ranking.basis}: {', '.join(ranking.left_out)}")
    if notes:
        sections.append(Section("Notes", tuple(map(Warning, notes))))
    n = len(ranking.places) if ranking else 0
    return Document(
        f"Corpora of {source}", f"{n} corpora, no targets; seed {result.options.seed}", tuple(sections)
    )


def ranking_record(ranking: CorpusRanking | None) -> dict[str, Any]:
    """`corpora`, the best first, and what the ranking rests on, as JSON."""
    if ranking is None:
        return {"corpora": [], "ranking": None}
    about = record_of(ranking)
    return {"corpora": about.pop("places"), "ranking": about}


def record(result: CorporaChoice, source: str) -> dict[str, Any]:
    """All of a result as JSON."""
    return {
        "source": source,
        **ranking_record(result.ranking),
        "confidence": result.options.confidence,
        "warnings": list(result.warnings),
    }
