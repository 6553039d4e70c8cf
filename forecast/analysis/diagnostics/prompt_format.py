"""Does the prompt form matter? The same model read after raw text and after its chat template."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from forecast.analysis.diagnostics.run_data import Member
from forecast.analysis.diagnostics.selection import PLACES, Selection
from forecast.analysis.stats.figures import OrderRho, number
from forecast.warehouse.features import features
from forecast.warehouse.population import Population


@dataclass(frozen=True)
class FormDifference:
    """One model, task and proxy: chat - raw, paired over the solutions."""

    raw: str  # the names of the two candidates
    chat: str
    task: str
    proxy: str
    raw_mean: float
    chat_mean: float
    difference: float
    low: float | None  # Student's interval over the solutions; None for a single one
    high: float | None
    solutions: int


@dataclass(frozen=True)
class FormEffect:
    """Every model that is there in both forms."""

    models: int
    differences: tuple[FormDifference, ...]
    order_rho: tuple[OrderRho, ...]  # of the models' orders in the two forms, all tasks
    reason: str | None


def form_effect(population: Population, members: Sequence[Member], selection: Selection) -> FormEffect:
    """Compare pairs of candidates that differ in nothing but `prompt_form`.

    Args:
        members: in the order of the population.
    """
    raw, chat = (
        {m.model: i for i, m in reversed(list(enumerate(members))) if m.prompt_form == form}
        for form in ("raw", "chat")
    )
    pairs = sorted((place, chat[model]) for model, place in raw.items() if model in chat)
    if not pairs:
        forms = ", ".join(sorted({m.prompt_form for m in members}))
        reason = f"no model is there both as raw and as chat (all are {forms}); name a candidate twice, "
        return FormEffect(0, (), (), reason + "with prompt_form: raw and prompt_form: chat")
    found = [
        _difference(population, members, pair, task, proxy, selection.confidence)
        for pair in pairs
        for task in population.proxies
        for proxy in selection.proxies
    ]
    first, second = ([pair[k] for pair in pairs] for k in (0, 1))
    columns = features(population, tuple(population.proxies))
    orders = selection.order_rhos(columns[first], columns[second])
    return FormEffect(len(pairs), tuple(found), orders, None)


def _difference(
    population: Population,
    members: Sequence[Member],
    pair: tuple[int, int],
    task: str,
    proxy: str,
    confidence: float,
) -> FormDifference:
    experts = population.proxies[task].experts.values()
    raw, chat = (np.concatenate([e.values[i, :, PLACES[proxy]] for e in experts]) for i in pair)
    delta = chat - raw
    reach = None
    if len(delta) > 1:
        error = float(delta.std(ddof=1)) / len(delta) ** 0.5
        reach = float(stats.t.ppf(0.5 + confidence / 2, len(delta) - 1)) * error
    mean = float(delta.mean())
    return FormDifference(
        raw=members[pair[0]].name,
        chat=members[pair[1]].name,
        task=task,
        proxy=proxy,
        raw_mean=float(raw.mean()),
        chat_mean=float(chat.mean()),
        difference=mean,
        low=None if reach is None else number(mean - reach),
        high=None if reach is None else number(mean + reach),
        solutions=len(delta),
    )
