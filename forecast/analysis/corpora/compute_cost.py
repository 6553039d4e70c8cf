"""Compute of a decision, as a share of the training compute of one target run.

    compute_fraction = (6 N D + 2 N T) / (6 N D of the target)

N: parameters that a token is multiplied with: all but an input embedding from which rows are looked up (where
it is the output head too, it counts), of a mixture of experts those active for a token. DataDecide publishes
the same, so its 4M has 3.74M, while its files hold 6.96M. `parameters` without `input_embedding` are taken as
such; with it, as all of them, of which it is taken off. D: tokens of training up to the checkpoint. T: tokens
that are read to score the checkpoint, prompts included. It is the cost of one run of one corpus; the mean
over k seeds costs k times as much (`cost_fraction`), and so many runs are trained for every corpus. Making
the experts' solutions (2 N T of the expert) is paid once for all corpora and listed apart.

Where the numbers come from, the first that is there: the options, the table's columns, DataDecide's sizes
where every size has a DataDecide name, and for N alone the number in the size's name. Unknown numbers leave
the fraction null.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from forecast.analysis.corpora.decision_accuracy import Array
from forecast.analysis.corpora.observation_arrays import OWN_LAST, Panel, Point, size_number
from forecast.analysis.corpora.targets import Targets
from forecast.analysis.stats.figures import number
from forecast.errors import ConfigError
from forecast.inputs.published import datadecide


@dataclass(frozen=True)
class Given:
    """Counts given by options; by size where it differs between sizes."""

    parameters: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, float] = field(default_factory=dict)  # of a whole run
    scored_tokens: float | None = None  # for each run, prompts included
    target_size: str | None = None
    expert_parameters: float | None = None
    expert_tokens: float | None = None  # made by the experts, all solutions together


@dataclass(frozen=True)
class Accounting:
    """Sizes of runs and of the target; NaN where unknown."""

    parameters: Array  # [points], those that a token is multiplied with
    tokens: Array  # [points]
    scored: Array  # [points, tasks] by the table
    scored_per_run: float | None  # by an option, whatever tasks are used
    target_size: str | None
    target_parameters: float
    target_tokens: float
    expert_flops: float | None
    source: str  # of the numbers, in words
    warnings: tuple[str, ...]

    @property
    def target_flops(self) -> float:
        """6 N D of one target run; NaN where it is unknown or nothing."""
        flops = 6 * self.target_parameters * self.target_tokens
        return flops if flops > 0 else float("nan")

    def training(self) -> Array:
        """[points] 6 N D."""
        return 6 * self.parameters * self.tokens

    def scoring(self, tasks: list[int]) -> Array:
        """[points] 2 N T over these tasks; T is 0 where it is unknown."""
        given = self.scored_per_run
        tokens = np.nansum(self.scored[:, tasks], axis=1) if given is None else given
        return 2 * self.parameters * tokens

    def fractions(self, tasks: list[int]) -> Array:
        """[points], of one run; NaN where N, D or the target's are unknown."""
        return (self.training() + self.scoring(tasks)) / self.target_flops

    def reason(self, point: int) -> str | None:
        """Why a point has no fraction."""
        if np.isfinite(self.parameters[point] * self.tokens[point]):
            known = np.isfinite(self.target_flops)
            return None if known else "parameters or tokens of the target are not known"
        lacking = "parameters" if np.isnan(self.parameters[point]) else "tokens"
        option = "--parameters" if lacking == "parameters" else "--training-tokens"
        return f"no {lacking} of this size: give a column {lacking}, or {option} SIZE=N"


def multiplied(parameters: float, input_embedding: float) -> float | None:
    """Parameters that a token is multiplied with; None where `parameters` is NaN."""
    return number(parameters - (0.0 if np.isnan(input_embedding) else input_embedding))


def accounting_of(panel: Panel, targets: Targets, given: Given) -> Accounting:
    """Gather parameters and tokens of every point and of the target.

    Raises:
        ConfigError: an option names a size that no table has.
    """
    warnings: list[str] = []
    labels = {*panel.sizes, *([targets.size] if targets.size else [])}
    published = {label: datadecide.SIZES.get(label.upper()) for label in labels}
    is_datadecide = bool(labels) and all(published.values())
    size = _target_size(panel, targets, given, is_datadecide, warnings)
    for option, by_size in (("--parameters", given.parameters), ("--training-tokens", given.tokens)):
        for name in by_size:
            if name not in {*labels, size}:
                raise ConfigError(f"{option} {name}=...: no such size; sizes are {', '.join(panel.sizes)}")
    # One step for all sizes: DataDecide's schedules differ, so it stands for the final checkpoint of each.
    same_step = is_datadecide and len(panel.sizes) > 1 and len({point.step for point in panel.points}) == 1
    sources: set[str] = set()

    def of_point(i: int, point: Point) -> tuple[float, float]:
        known = published[point.size] if is_datadecide else None
        n = _first(
            sources,
            ("options", lambda: given.parameters.get(point.size)),
            ("columns", lambda: number(panel.counts["active_parameters"][i])),
            (
                "columns",
                lambda: multiplied(panel.counts["parameters"][i], panel.counts["input_embedding"][i]),
            ),
            ("DataDecide's sizes", lambda: None if known is None else float(known.parameters)),
            ("names of sizes", lambda: size_number(point.size)),
        )
        step = None if same_step or point.step == OWN_LAST else point.step
        d = _first(
            sources,
            ("options", lambda: _share_of_run(panel, point, given.tokens.get(point.size))),
            ("columns", lambda: number(panel.counts["tokens"][i])),
            ("DataDecide's sizes", lambda: None if known is None else known.tokens(step)),
        )
        return n, d

    pairs = np.array([of_point(i, point) for i, point in enumerate(panel.points)]).reshape(-1, 2)
    if given.scored_tokens is None and not np.isfinite(panel.scored).any():
        warnings.append(
            "tokens that are read to score a run are not known (column scored_tokens, or --scored-tokens): "
            "compute fractions are of training alone"
        )
    n, d = _target_counts(panel, targets, given, size, is_datadecide, pairs)
    warnings += _words(panel, is_datadecide, same_step, sources)
    expert = None
    if given.expert_parameters is not None and given.expert_tokens is not None:
        expert = 2 * given.expert_parameters * given.expert_tokens
    return Accounting(
        parameters=pairs[:, 0],
        tokens=pairs[:, 1],
        scored=panel.scored,
        scored_per_run=given.scored_tokens,
        target_size=size,
        target_parameters=n,
        target_tokens=d,
        expert_flops=expert,
        source=", ".join(sorted(sources)) or "nothing",
        warnings=tuple(warnings),
    )


def _target_size(
    panel: Panel, targets: Targets, given: Given, is_datadecide: bool, warnings: list[str]
) -> str | None:
    if given.target_size is not None or targets.size is not None:
        return given.target_size or targets.size
    if is_datadecide:
        return datadecide.TARGET_SIZE
    if targets.counts.get("parameters") or targets.counts.get("active_parameters"):
        return None
    warnings.append(
        f"the target's size is not told: {panel.sizes[-1]}, the largest one observed, is taken "
        "(--target-size names another)"
    )
    return panel.sizes[-1]


def _target_counts(
    panel: Panel, targets: Targets, given: Given, size: str | None, is_datadecide: bool, pairs: Array
) -> tuple[float, float]:
    """N and D of one target run."""
    counts = targets.counts
    last = [i for i, point in enumerate(panel.points) if point.size == size]
    end = last[int(np.argmax(np.nan_to_num(pairs[last, 1])))] if last else None
    own = np.array([np.nan, np.nan]) if end is None else pairs[end]
    own_n = multiplied(counts.get("parameters", np.nan), counts.get("input_embedding", np.nan))
    n = given.parameters.get(size or "", counts.get("active_parameters", np.nan if own_n is None else own_n))
    d = given.tokens.get(size or "", counts.get("tokens", np.nan))
    published = datadecide.SIZES.get((size or "").upper()) if is_datadecide else None
    if np.isnan(n):
        n = published.parameters if published and not last else own[0]
    if np.isnan(d):
        in_table = end is not None and np.isfinite(panel.counts["tokens"][end])
        d = published.tokens() if published and not in_table else own[1]
    if np.isnan(n) and size is not None:
        n = size_number(size) or np.nan
    return float(n), float(d)


def _share_of_run(panel: Panel, point: Point, tokens: float | None) -> float | None:
    """Tokens at a step of a run whose end has so many."""
    if tokens is None or point.step is None or point.step == OWN_LAST:
        return tokens
    steps = [p.step for p in panel.points if p.size == point.size and isinstance(p.step, float)]
    return tokens * point.step / max(steps) if max(steps) > 0 else tokens


def _words(panel: Panel, is_datadecide: bool, same_step: bool, sources: set[str]) -> list[str]:
    words = []
    if "DataDecide's sizes" in sources:
        words.append("sizes have the names of DataDecide's: its parameters, batches and schedules are taken")
        step = panel.points[0].step
        if same_step and step is not None:
            words.append(
                f"step {step:g} is the only one, for all sizes: taken as the final checkpoint of a full "
                "schedule (a column tokens says otherwise)"
            )
        for label in datadecide.STOPS_EARLY:
            if label in panel.sizes and (
                same_step or all(isinstance(p.step, str | None) for p in panel.points)
            ):
                words.append(
                    f"DataDecide's {label} runs stop early: their compute fraction is an upper bound"
                )
    elif "names of sizes" in sources:
        words.append("parameters are taken from the names of sizes (a column parameters says it exactly)")
    if panel.uneven:
        words.append(f"{', '.join(panel.uneven)} differ between runs of one size: their mean is taken")
    return words


def _first(sources: set[str], *ways: tuple[str, Callable[[], float | None]]) -> float:
    """The first number that is there; NaN, and no source, where there is none."""
    for source, way in ways:
        if (found := way()) is not None:
            sources.add(source)
            return float(found)
    return float("nan")
