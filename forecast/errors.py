"""Errors that a user can act on: each says what is wrong, where, and what to do about it."""


class ForecastError(Exception):
    """Base of every error whose message alone is enough for the user; shown without a traceback."""


class ConfigError(ForecastError):
    """The configuration cannot be used; nothing was started."""


class InputError(ForecastError):
    """A file of trajectories, choices or measured scores is wrong; names the file and the line."""


class CandidateError(ForecastError):
    """The candidate itself is at fault (weights, tokenizer, numbers): retrying elsewhere cannot help."""


class NoDataError(ForecastError):
    """What was asked for has not been computed yet; the message names the command that does."""
