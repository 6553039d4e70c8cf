"""The 80 proxies, 10 core metrics of a token times 8 weightings: written once, as SQL over token values.

The score of an instance under a weighting w and a metric m is `sum(w * m) / sum(w)` over its scored tokens,
and the plain mean of m where all weights are 0. Names after the paper (arXiv 2605.18607); where it gives no
formula the definition here is ours, as docs/concepts/proxies.md says.

The expressions may use these token values, all DOUBLE:
    logprob, top1_logprob   nats
    rank                    1-based, strictly greater logits + 1
    h                       entropy / log V, 0..1
    f                       relative frequency of the token id among the scored tokens of candidate and task
    ce_mean, ce_sd          mean and population standard deviation of -logprob within the instance; ce_sd is
                            exactly 0 where all are equal

Why the sums can be trusted: an instance's values are first laid out as lists in the order of their positions,
then multiplied and added in that order. The bits of the result do not depend on the number of threads or on
the order of files and rows, which DuckDB's floating-point aggregates over rows do not promise. No term is
negative, so a plain sum of n terms is good to n * 1e-16. (`sum(x ORDER BY position)` for each of the 88 sums
would do the same and took 20 times as long, 18 against 2 us a token: every aggregate sorts for itself.)
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A core metric of one token; `better` says in which direction a good model moves it."""

    name: str
    sql: str
    better: Literal["high", "low", "learned"]
    meaning: str


@dataclass(frozen=True)
class Weighting:
    """How much one token counts within its instance."""

    name: str
    sql: str
    meaning: str


METRICS = (
    Metric("cross_entropy", "-logprob", "low", "nats the expert's token costs"),
    Metric(
        "top1_accuracy",
        "(rank <= 1)::DOUBLE",
        "high",
        "share of expert tokens that are the model's first choice",
    ),
    Metric("top2_accuracy", "(rank <= 2)::DOUBLE", "high", "... among its first two"),
    Metric("top3_accuracy", "(rank <= 3)::DOUBLE", "high", "... among its first three"),
    Metric("top5_accuracy", "(rank <= 5)::DOUBLE", "high", "... among its first five"),
    Metric("entropy", "h", "learned", "uncertainty of the next-token distribution, 0..1"),
    Metric("rank", "rank", "low", "place of the expert's token, 1 is best"),
    Metric("reciprocal_rank", "1 / rank", "high", "1 over that place"),
    Metric(
        "margin",
        "exp(top1_logprob) - exp(logprob)",
        "low",
        "lead in probability of the first choice over the expert's token",
    ),
    Metric(
        "wrong_confidence",
        "CASE WHEN rank > 1 THEN exp(top1_logprob) ELSE 0 END",
        "low",
        "probability of the first choice where it is not the expert's token",
    ),
)

WEIGHTINGS = (
    Weighting("uniform", "1.0::DOUBLE", "every token counts the same"),
    Weighting("probability", "exp(logprob)", "tokens the model expects count more"),
    Weighting("disagreement", "1 - exp(logprob)", "tokens the model does not expect count more"),
    Weighting("entropy", "h", "tokens where the model is unsure count more"),
    Weighting("inverse_entropy", "1 / (h + 0.01)", "tokens where the model is sure count more"),
    Weighting("frequency", "f", "common tokens of the task count more"),
    Weighting("inverse_frequency", "1 / f", "rare tokens of the task count more"),
    Weighting(
        "gaussian_nll",
        "CASE WHEN ce_sd > 0 THEN exp(-pow(-logprob - ce_mean, 2) / (2 * pow(ce_sd, 2))) ELSE 1 END",
        "tokens of typical difficulty within the trajectory count more",
    ),
)


@dataclass(frozen=True)
class Proxy:
    """One of the 80."""

    metric: Metric
    weighting: Weighting

    @property
    def name(self) -> str:
        """Its column in the warehouse, e.g. `cross_entropy__uniform`."""
        return f"{self.metric.name}__{self.weighting.name}"

    @property
    def sign(self) -> int:
        """+1 where higher is better or the direction is learned, -1 where lower is better."""
        return -1 if self.metric.better == "low" else 1

    @property
    def learned(self) -> bool:
        """Whether measured scores must say which direction is better."""
        return self.metric.better == "learned"


PROXIES = tuple(Proxy(metric, weighting) for metric in METRICS for weighting in WEIGHTINGS)
PLAIN_CROSS_ENTROPY = "cross_entropy__uniform"


def token_lists() -> str:
    """SQL select list that gathers an instance's tokens as lists `m_METRIC`, `w_WEIGHTING`, by position."""
    columns = [(f"m_{m.name}", m.sql) for m in METRICS] + [(f"w_{w.name}", w.sql) for w in WEIGHTINGS]
    return ",\n    ".join(f"list(({sql})::DOUBLE ORDER BY position) AS {name}" for name, sql in columns)


def instance_scores() -> str:
    """SQL select list of the 80 scores of an instance, from the lists of `token_lists` and `n_tokens`."""
    return ",\n    ".join(
        _score(f"m_{p.metric.name}", f"w_{p.weighting.name}") + f" AS {p.name}" for p in PROXIES
    )


def _score(m: str, w: str) -> str:
    weighted = f"list_dot_product({w}, {m}) / list_sum({w})"
    return f"CASE WHEN list_sum({w}) > 0 THEN {weighted} ELSE list_sum({m}) / n_tokens END"
