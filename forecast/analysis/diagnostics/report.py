"""The diagnostics as one document: a section for each question, no arithmetic beyond formatting."""

from typing import Any

import polars as pl

from forecast.analysis.diagnostics import charts
from forecast.analysis.diagnostics.diagnose import DiagnoseResult
from forecast.analysis.diagnostics.ties import KS
from forecast.report.document import Chart, Column, Document, Paragraph, Part, Section, Table, Warning
from forecast.report.format import INTEGER, NUMBER, YES_NO, Cell, Format, fixed, interval, is_missing
from forecast.report.records import frame_with

Frames = dict[str, pl.DataFrame]

_SIGNED = fixed(2, signed=True)
_SHARE = Format(lambda value: f"{value:.1%}", d3=".1%")
_SMALL_SHARE = Format(lambda value: f"{value:.2%}", d3=".2%")
_SIGNED_NUMBER = Format(lambda value: f"{value:+.4g}")
_RANK = Format(lambda value: f"{value:,.1f}")
_INTERVAL = Format(lambda low, high: f"[{low:+.3g}, {high:+.3g}]")
_REPEAT = Format(lambda value, n: f"{value:+.3f} (n = {n})")


def _with_interval(value: float, low: Cell, high: Cell) -> str:
    return _SIGNED(value) if is_missing(low) else f"{_SIGNED(value)} {interval(2, signed=True)(low, high)}"


_RHO = Format(_with_interval)
_N = Column("n", "n", INTEGER, "Candidates with both values.", wide_only=True)
_REASON = Column("reason", "reason", help="Why a number is missing.")
_TARGET_REASON = Column("target_reason", "reason (target)", help="Why a rho is missing.", wide_only=True)
_TAU = Column("tau_b", "tau-b", _SIGNED, "Kendall's tau-b of the two orders.", wide_only=True)
_MEDIAN = Column("median_rho", "median of 80", _SIGNED, "Median rho over all 80 proxies.")


def document(result: DiagnoseResult, source: str | None = None) -> Document:
    """Everything that `forecast diagnose` reports; `source` names the configuration in the title."""
    frames = result.frames()
    sections = (
        _summary(result, frames),
        _experts(frames),
        _agreement(result, frames),
        _ties(frames),
        _windows(frames),
        _forms(result, frames),
        _tokenizers(result, frames),
        _instances(result, frames),
        _min_k(result, frames),
        _contamination(result, frames),
    )
    failures = tuple(Warning(failure["error"]) for failure in result.failed)
    notes = (
        Section("Notes", tuple(map(Warning, result.warnings))),
        # A terminal has them below the report.
        Section("" if result.warnings else "Notes", failures, wide_only=True),
    )
    title = f"Diagnostics of {source or result.name}"
    return Document(title, "", (*sections, *(section for section in notes if section.parts)))


def _summary(result: DiagnoseResult, frames: Frames) -> Section:
    """The most notable figure of each check, and what to do about it."""
    rows = []
    if worst := _largest(frames["experts"], "favour"):
        text = (
            "most favour for its family: {expert}, {favour:+.2f} places ({proxy}); see the order without it"
        )
        rows.append(["experts", text.format(**worst)])
    if worst := _largest(frames["ties"], "tied_share"):
        text = "at most {tied_share:.1%} of the tokens are tied ({candidate}, {task}); float32 has fewer ties"
        rows.append(["ties", text.format(**worst)])
    if worst := _largest(frames["windows"].with_columns(change=-pl.col("median_rho")), "change"):
        text = "order by the last {last_tokens} tokens, the most different: median rho {median_rho:+.2f}"
        rows.append(["window", text.format(**worst)])
    if (ways := result.tokenizers.readings) > 1:
        rows.append(["tokenizers", f"the texts are tokenized in {ways} ways: rank with --over bytes"])
    if widest := _largest(frames["instances"], "half_width"):
        text = "rho with {target} is known to ±{half_width:.2f} from {n} instances ({proxy})"
        rows.append(["instances", text.format(**widest)])
    if worst := _largest(frames["min_k"], "excess"):
        text = "{candidate} knows {task} best beyond the other tasks: excess {excess:+.2f}; a hint at most"
        rows.append(["Min-K%", text.format(**worst)])
    if not result.contamination.reason:
        text = f"texts with matches in the corpus: {len(result.contamination.matches)}"
        rows.append(["contamination", text])
    intro = (
        f"Diagnostics of {result.name}. Proxies: {', '.join(result.proxies)}; "
        f"{result.confidence:.0%} confidence intervals; seed {result.seed}."
    )
    table = Table(frame_with(rows, "check:s finding:s"), _named("check", "finding"))
    return Section("", (Paragraph(intro), table) if rows else (Paragraph(intro),))


def _largest(frame: pl.DataFrame, column: str) -> dict[str, Any] | None:
    """The row with the largest value, of equals the first; None where there is no value."""
    known = frame.drop_nulls(column).sort(column, descending=True, maintain_order=True)
    return known.row(0, named=True) if known.height else None


def _experts(frames: Frames) -> Section:
    left_out = (
        *_named("expert", "family"),
        Column("known_by", "family known by", wide_only=True),
        Column("own_family", "own family", INTEGER, "Candidates of the expert's family."),
        Column("tasks_lost", "tasks lost", help="Tasks with solutions by this expert only.", wide_only=True),
        Column("proxy", "proxy"),
        Column("rho", "order with / without", _RHO, "Rho of both orders.", also=("low", "high")),
        _TAU,
        _N,
        Column("target", "target"),
        Column("rho_with", "rho with", _RHO, "With all experts.", also=("low_with", "high_with")),
        Column("rho_without", "rho without", _RHO, "Without it.", also=("low_without", "high_without")),
        Column("n_without", "n (target)", INTEGER, "Measured candidates.", wide_only=True),
        Column("favour", "favour", _SIGNED, "Places the family loses without it, less those others lose."),
        _REASON,
        _TARGET_REASON,
    )
    shifts = (
        *_named("expert", "proxy", "candidate", "family"),
        Column("own_family", "own family", YES_NO),
        Column("place_with", "place", NUMBER, "Place with all experts; 1 is best."),
        Column("place_without", "place without", NUMBER),
        Column("lost", "lost", NUMBER, "Places lost without the expert."),
    )
    places = frames["shifts"].sort("expert", "proxy", "place_with", maintain_order=True)
    text = (
        "Each expert is left out in turn. Favour: the mean places that candidates of the expert's family "
        "lose without it, less what the others lose."
    )
    table = Table(frames["experts"], left_out, group_by="expert")
    by_place = Table(places, shifts, "Places without each expert", group_by="expert", wide_only=True)
    return Section("Does an expert favour its own family?", (Paragraph(text), table, by_place))


def _agreement(result: DiagnoseResult, frames: Frames) -> Section:
    heading = "Do experts agree about the candidates?"
    if result.expert_agreement.reason:
        return _skipped(heading, result.expert_agreement.reason)
    columns = (
        *_named("task"),
        Column("first", "first expert"),
        Column("second", "second expert"),
        Column("instances_first", "instances", INTEGER, "Of the first expert."),
        Column("instances_second", "instances", INTEGER, "Of the second expert."),
        Column("same_instances", "the same", YES_NO, "Whether both experts solved the same instances."),
        Column("proxy", "proxy"),
        Column("rho", "rho", _RHO, "Rho of the two experts' orders of candidates.", also=("low", "high")),
        Column("tau_b", "tau-b", _SIGNED, "Kendall's tau-b of the two orders."),
        Column("n", "n", INTEGER, "Candidates."),
        _MEDIAN,
        Column("reason", "reason", wide_only=True),
    )
    caption = "Rank correlation of two experts' orders of the candidates; intervals over candidates"
    return Section(heading, (Table(frames["agreement"], columns, caption),))


def _ties(frames: Frames) -> Section:
    frame = frames["ties"]
    columns = (
        *_named("candidate", "dtype", "task"),
        Column("tokens", "tokens", INTEGER),
        Column("tied_share", "tied", _SHARE, "Share of tokens whose logit other entries equal."),
        *(
            Column(f"top{k}_uncertain", f"top-{k} uncertain", _SMALL_SHARE, "Share of tokens that may be in.")
            for k in KS
        ),
        Column("mean_rank_best", "mean rank, best", _RANK, "By the best place of each token."),
        Column("mean_rank_worst", "worst", _RANK, "By the worst place of each token."),
    )
    text = (
        "Where other vocabulary entries have exactly the same logit as the expert's token, its rank is any "
        "of several places; the lake keeps the best of them. Uncertain: tokens that are among the first k "
        "by the best place and not by the worst."
    )
    bars = frame.select("candidate", "task", low="top1_worst", high="top1_best").to_dicts()
    caption = "Top-1 accuracy, from worst to best place"
    chart = Chart(lambda: charts.bars(bars), caption, "Range of top-1 accuracy of every candidate")
    table = Table(frame, columns, "Shares of the tokens")
    return Section("How much rests on ties?", (Paragraph(text), chart, table))


def _windows(frames: Frames) -> Section:
    frame = frames["windows"]
    columns = (
        Column("last_tokens", "last tokens", INTEGER),
        Column("shortened", "trajectories cut", INTEGER, "Candidate and solution, with more tokens."),
        Column("readings", "of", INTEGER, "All pairs of candidate and solution."),
        Column("proxy", "proxy"),
        Column("rho", "order: rho", _RHO, "Against the order by all tokens.", also=("low", "high")),
        _TAU,
        _N,
        _MEDIAN,
        Column("target", "target"),
        Column("rho_all", "rho, all tokens", _SIGNED),
        Column("rho_window", "rho, window", _SIGNED),
        _REASON,
        _TARGET_REASON,
    )
    text = (
        "All proxies again from the last tokens alone, as if scored with that window: rho of the order with "
        "that by all scored tokens, and of each with the measured scores."
    )
    parts: list[Part] = [Paragraph(text)]
    shown = frame.filter(pl.col("rho").is_not_null()).unique(["last_tokens", "proxy"], maintain_order=True)
    if shown["last_tokens"].n_unique() > 1:
        lines = shown.select("proxy", "rho", "last_tokens").to_dicts()
        caption = "Order by a window against the order by all scored tokens"
        alt = "Rank correlation of the orders by shorter windows with the full order"
        parts.append(Chart(lambda: charts.lines(lines), caption, alt))
    parts.append(Table(frame, columns, group_by="last_tokens"))
    return Section("Does the window matter?", tuple(parts))


def _forms(result: DiagnoseResult, frames: Frames) -> Section:
    heading = "Does the prompt form matter?"
    if result.prompt_forms.reason:
        return _skipped(heading, result.prompt_forms.reason)
    differences = (
        Column("raw", "candidate, raw"),
        Column("chat", "candidate, chat"),
        *_named("task", "proxy"),
        Column("raw_mean", "raw", NUMBER, "Mean over the solutions."),
        Column("chat_mean", "chat", NUMBER, "Mean over the solutions."),
        Column("difference", "difference", _SIGNED_NUMBER, "Chat less raw."),
        Column("low", "interval", _INTERVAL, "Student's, over the solutions.", also=("high",)),
        Column("solutions", "solutions", INTEGER),
    )
    orders = (Column("proxy", "proxy"), *_order("Rho of the models' orders in both forms."))
    models = f"{result.prompt_forms.models} models in both forms; differences paired over the solutions"
    by_order = Table(frames["prompt_form_orders"], orders, "Order of the models in both forms")
    return Section(heading, (Table(frames["prompt_forms"], differences, models), by_order))


def _tokenizers(result: DiagnoseResult, frames: Frames) -> Section:
    heading, effect = "Do tokenizers matter?", result.tokenizers
    if effect.reason:
        return _skipped(heading, effect.reason)
    note: Part = Paragraph(
        "All candidates tokenize the texts alike: orders differ only by how proxies are spread over bytes."
    )
    if effect.readings > 1:
        note = Warning(
            f"The candidates tokenize the texts in {effect.readings} ways: means over tokens are not "
            "comparable between them; compare bits per byte and the proxies over bytes."
        )
    columns = (
        *_named("candidate", "task"),
        Column("vocab_size", "vocabulary", INTEGER),
        Column("bytes_per_token", "bytes per token", fixed(3)),
        Column("bits_per_byte", "bits per byte", fixed(4)),
    )
    orders = (Column("proxy", "over bytes"), Column("against", "against"), *_order("Rho of the two."))
    caption = "Orders over bytes; with scores, positive: ranks good candidates high"
    parts = (note, Table(frames["tokenizers"], columns), Table(frames["byte_orders"], orders, caption))
    return Section(heading, parts)


def _named(*names: str) -> tuple[Column, ...]:
    """Columns of text whose label is their name."""
    return tuple(Column(name, name) for name in names)


def _order(help: str) -> tuple[Column, ...]:
    rho = Column("rho", "rho", _RHO, help, also=("low", "high"))
    return (rho, _TAU, Column("n", "n", INTEGER, "Candidates with both values."), _REASON)


def _instances(result: DiagnoseResult, frames: Frames) -> Section:
    confidence = f"{result.confidence:.0%}"
    text = (
        f"Instances drawn without replacement: rho with the measured scores, and {confidence} of the draws. "
        "The half-width is for fresh instances and covers the noise of the texts alone. Order repeats: rho "
        "between the orders by two draws that share no instance."
    )
    parts: list[Part] = [Paragraph(text)]
    curve = frames["instance_curve"]
    first = result.instances_needed[0].target  # of which a plot is drawn
    drawn = curve.filter(pl.col("rho").is_not_null() & (pl.col("target").eq_missing(first))).to_dicts()
    if drawn:
        caption = f"rho with {first} against instances of each task; bands: {confidence} of the draws"
        alt = "Rank correlation against the number of instances"
        parts.append(Chart(lambda: charts.curve(drawn), caption, alt))
    needed = [name for name in frames["instances"].columns if name.startswith("needed_")]
    columns = (
        *_named("target", "proxy"),
        Column("n", "instances", INTEGER, "Of each task."),
        Column("n_candidates", "candidates", INTEGER, "With a measured score.", wide_only=True),
        Column("rho", "rho", _SIGNED, "With all instances."),
        Column("half_width", "half-width", fixed(3), f"Of rho's {confidence} interval."),
        *(
            Column(name, f"for ±{name.removeprefix('needed_')}", INTEGER, "Instances of each task needed.")
            for name in needed
        ),
        Column("repeat", "order repeats", _REPEAT, "Rho of two disjoint draws of n.", also=("repeat_n",)),
        _REASON,
    )
    points = (
        *_named("target", "proxy"),
        Column("n", "n", INTEGER, "Instances of each task."),
        Column("rho", "rho", NUMBER, "Mean of the draws."),
        Column("low", "low", NUMBER),
        Column("high", "high", NUMBER),
        Column("sd", "sd (fresh)", NUMBER, "Standard deviation of rho over fresh samples of n."),
        Column("repeat", "order repeats", NUMBER),
    )
    by_number = Table(curve, points, "Rho by the number of instances", wide_only=True)
    return Section("How many instances are needed?", (*parts, Table(frames["instances"], columns), by_number))


def _min_k(result: DiagnoseResult, frames: Frames) -> Section:
    frame = frames["min_k"]
    name = f"Min-{result.min_k.percent:g}%"
    text = (
        f"{name}: the mean log-probability of the least likely tokens. Excess: how much higher, in standard "
        "deviations over the candidates, it is in this task than in the others. A hint at most."
    )
    parts: list[Part] = [Paragraph(text)]
    dots = frame.filter(pl.col("excess").is_not_null()).select("candidate", "task", "excess").to_dicts()
    if dots:
        alt = "Excess of Min-K% of every candidate and task"
        parts.append(Chart(lambda: charts.dots(dots), "Excess of each task", alt))
    columns = (
        *_named("candidate", "task"),
        Column("instances", "instances", INTEGER, wide_only=True),
        Column("value", f"{name} (nats)", fixed(3)),
        Column("z", "z", _SIGNED, "Among the candidates of the task."),
        Column("others", "z elsewhere", _SIGNED, "Mean z in the other tasks."),
        Column("excess", "excess", _SIGNED),
        _REASON,
    )
    ordered = frame.sort("excess", descending=True, nulls_last=True, maintain_order=True)
    heading = "Does a candidate know the texts of one task suspiciously well?"
    return Section(heading, (*parts, Table(ordered, columns)))


def _contamination(result: DiagnoseResult, frames: Frames) -> Section:
    heading, c = "Are the texts in a corpus?", result.contamination
    if c.reason:
        return _skipped(heading, c.reason)
    columns = (
        Column("task", "task"),
        Column("part", "text"),
        Column("texts", "texts", INTEGER),
        Column("too_short", "too short", INTEGER, "Shorter than n: they cannot match."),
        Column("matched", "matched", INTEGER, "Texts with a match."),
        Column("mean_share", "mean share", _SMALL_SHARE, "Of n-grams that match."),
    )
    without_text = f", rows without text: {c.rows_without_text:,}" if c.rows_without_text else ""
    caption = f"Matches of {c.n} {c.unit}; documents: {c.documents:,}, files: {c.files:,}{without_text}"
    parts: list[Part] = [Table(frames["contamination"], columns, caption)]
    if c.matches:
        excerpt = Format(lambda text: text[:300], right=False)
        matches = (
            Column("task", "task"),
            Column("instance_id", "instance"),
            Column("part", "text"),
            Column("expert", "expert", wide_only=True),
            Column("longest_run", c.unit, INTEGER, "Length of the longest match."),
            Column("share", "share", _SHARE, "Of the text's n-grams."),
            Column("excerpt", "longest match", excerpt),
        )
        shown = frames["matches"].head(100)
        more = f" of {len(c.matches)}" if len(c.matches) > shown.height else ""
        parts.append(Table(shown, matches, f"The longest matches{more}", terminal_rows=10))
        if c.without_reason:
            parts.append(Paragraph(f"No ranking without matches: {c.without_reason}."))
    if c.without:
        without = (
            Column("proxy", "proxy"),
            Column("rho", "order: rho", _RHO, "With and without matches.", also=("low", "high")),
            Column("n", "n", INTEGER, "Candidates."),
            Column("target", "target"),
            Column("rho_all", "rho, all", _SIGNED),
            Column("rho_without", "rho, without matches", _SIGNED),
            Column("n_without", "n (target)", INTEGER, "Measured candidates.", wide_only=True),
            _REASON,
            _TARGET_REASON,
        )
        caption = "Order and rho without instances that match"
        parts.append(Table(frames["without_matches"], without, caption, group_by="proxy"))
    return Section(heading, tuple(parts))


def _skipped(heading: str, reason: str) -> Section:
    return Section(heading, (Paragraph(f"Skipped: {reason.removesuffix('.')}."),))
