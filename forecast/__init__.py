"""Forecast the downstream performance of language models from proxy metrics on expert trajectories."""

__version__ = "0.1.0"
