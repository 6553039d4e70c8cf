"""Exact statistics of a candidate's full next-token distribution at each scored token.

Five numbers are enough for every proxy metric (see `forecast.proxies`): logprob, entropy, rank, ties and
top1_logprob. A sixth, top1_id, says which token the model preferred. `token_stats` computes them from hidden
states and an output head in bounded memory, `logit_stats` from existing logits. `reference` computes the same
in fp64, slowly, for tests.

Names are imported when they are first used: planning reads `version` and must not need torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forecast.tokenstats.dispatch import logit_stats, token_stats
    from forecast.tokenstats.types import TokenStats

__all__ = ["TokenStats", "logit_stats", "token_stats"]


def __getattr__(name: str) -> object:
    if name in ("logit_stats", "token_stats"):
        from forecast.tokenstats import dispatch

        return getattr(dispatch, name)
    if name == "TokenStats":
        from forecast.tokenstats.types import TokenStats

        return TokenStats
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
