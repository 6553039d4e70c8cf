"""The former name of the entry, kept until nothing imports it."""

from forecast.tokenstats.entry import token_stats

__all__ = ["token_stats"]
