"""The ranking of corpora as a section of a report, and the report of a ranking without targets."""

from typing import Any

import polars as pl

from forecast.analysis.corpora.choose import CorpusRanking
from forecast.analysis.corpora.corpora_result import CorporaChoice, ranking_frames
from forecast.report.document import Column, Document, Paragraph, Section, Table, Warning
from forecast.report.format import INTEGER, PERCENT, Format, fixed
from forecast.report.records import record_of

_MOST_SHORT = 10  # corpora on a terminal
_MOST_NAMES = 3  # in a sentence
_SMALL = fixed(4)
_SHARE = fixed(2)
_RANK = Format(lambda rank: f"{rank:g}")
_RANGE = Format(lambda low, high: f"{low:g} to {high:g}")


def answer(ranking: CorpusRanking) -> str:
    """Which corpus leads, and how sure that is, in one sentence."""
    first = ranking.places[0]
    if len(ranking.places) == 1:
        return f"One corpus, {first.corpus}: there is nothing to choose from."
    if len(ranking.places) > 1 and all(place.rank == first.rank for place in ranking.places):
        return f"No corpus leads, all are equal by {ranking.basis}."
    known = "" if first.p_best is None else f": {chances(ranking)}"
    return f"{first.corpus} leads for {ranking.task} by {ranking.basis}{known}."


def chances(ranking: CorpusRanking) -> str:
    """The probability that the first is the best, and the interval of its rank."""
    first = ranking.places[0]
    assert first.p_best is not None and first.rank_low is not None and first.rank_high is not None
    seeds = "with further seeds " if ranking.over == "seeds" else ""
    return (
        f"{seeds}the best of {len(ranking.places)} with a probability of {PERCENT(first.p_best)}, "
        f"rank {_RANGE(first.rank_low, first.rank_high)}"
    )


def ranking_section(ranking: CorpusRanking, confidence: float) -> Section:
    """The table of corpora, ten of them on a terminal; and the leading ones two by two."""
    frame = ranking_frames(ranking)["corpora"]
    calibrated = ranking.over == "corpora"
    of = f"in {ranking.unit}" if calibrated else f"in {ranking.metric}"
    over = {"corpora": "over targets not seen", "seeds": "over other seeds", None: ""}[ranking.over]
    columns = (
        Column("rank", "rank", _RANK, "1 is best; equal forecasts share one."),
        Column("corpus", "corpus"),
        Column(
            "rank_low",
            f"{100 * confidence:g}% ranks",
            _RANGE,
            f"Of the rank, {over}.",
            also=("rank_high",),
        ),
        Column("p_best", "P(best)", PERCENT, f"Of being the best of them all, {over}."),
        Column("p_above_next", "P(above next)", PERCENT, wide_only=True),
        Column(
            "expected_regret",
            "expected regret",
            _SMALL,
            f"Best corpus less this one, on average; {of}, {over}.",
        ),
        Column(
            "value",
            ranking.metric,
            _SMALL,
            f"At {ranking.size}, mean of the runs; what the corpora are ranked by.",
            wide_only=calibrated,
        ),
        Column("n_seeds", "runs", INTEGER, wide_only=True),
        Column(
            "forecast",
            "forecast",
            _SMALL,
            f"Of {ranking.unit}, learned from the other corpora."
            if calibrated
            else f"Of {ranking.metric} over many further seeds.",
            wide_only=not calibrated,
        ),
        Column(
            "measured", "measured", _SMALL, "Of the target run, where it is known.", wide_only=not calibrated
        ),
    )
    rests = "chosen by its decision accuracy" if ranking.chosen == "decision accuracy" else "the default"
    caption = f"Ranked by {ranking.basis} ({rests})."
    if calibrated:
        caption += " Figures of a corpus do not use its own target."
    shown = tuple(c for c in columns if c.name != "measured" or frame["measured"].null_count() < frame.height)
    parts = [Table(frame, shown, caption, terminal_rows=_MOST_SHORT)]
    if ranking.pairwise:
        parts.append(_pairwise(ranking))
    return Section("Corpora", tuple(parts))


def _pairwise(ranking: CorpusRanking) -> Table:
    """Probabilities that the corpus of a row is better than that of a column."""
    known = {(pair.corpus, pair.other): pair.p_better for pair in ranking.pairwise}
    names = list(dict.fromkeys(name for pair in known for name in pair))
    rows = {
        name: [
            known.get((name, other), 1 - known[other, name] if (other, name) in known else None)
            for other in names
        ]
        for name in names
    }
    frame = pl.DataFrame(
        {"corpus": names, **{f"{k + 1}": [rows[n][k] for n in names] for k in range(len(names))}}
    )
    columns = (
        Column("corpus", "corpus"),
        *(Column(f"{k + 1}", f"{k + 1}", _SHARE) for k in range(len(names))),
    )
    caption = (
        "Probability of being better than each of the leading corpora, which are numbered as in the rows"
    )
    return Table(frame, columns, caption)


def document(result: CorporaChoice, source: str) -> Document:
    """The answer, the corpora, notes."""
    ranking = result.ranking
    sections = []
    if ranking is None:
        none = "No choice: no metric of known direction. Next: give --higher or --lower."
        sections.append(Section("", (Paragraph(none),)))
    else:
        lines = [answer(ranking)]
        if ranking.reason:
            lines.append(f"How sure: {ranking.reason}{agreed(ranking)}.")
        lines.append(f"Next: {next_step(ranking)}.")
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


def agreed(ranking: CorpusRanking) -> str:
    """How alike seeds or variants order the corpora, where there are several."""
    if ranking.agreement is None:
        return ""
    what = "variant" if "variants" in ranking.basis else "seed"
    return f"; one {what} orders {PERCENT(ranking.agreement)} of pairs as the mean of the others"


def next_step(ranking: CorpusRanking) -> str:
    """What to train where targets are missing: corpora that may be the best."""
    calibrate = "five scores given with --targets calibrate the ranking"
    leading = [place.corpus for place in ranking.places if place.rank_low == 1]
    if not leading:
        return f"run several seeds of each corpus, or train some at the target size: {calibrate}"
    few = ", ".join(leading[:_MOST_NAMES])
    more = f" and {len(leading) - _MOST_NAMES} more" if len(leading) > _MOST_NAMES else ""
    return f"train at the target size those that may be the best ({few}{more}); {calibrate}"


def ranking_record(ranking: CorpusRanking | None) -> dict[str, Any]:
    """`corpora`, the best first, the leading two by two, and what the ranking rests on, as JSON."""
    if ranking is None:
        return {"corpora": [], "corpus_pairs": [], "ranking": None}
    about = record_of(ranking)
    return {"corpora": about.pop("places"), "corpus_pairs": about.pop("pairwise"), "ranking": about}


def record(result: CorporaChoice, source: str) -> dict[str, Any]:
    """All of a result as JSON."""
    return {
        "source": source,
        **ranking_record(result.ranking),
        "confidence": result.options.confidence,
        "warnings": list(result.warnings),
    }
