"""Do two engines, dtypes or devices give the same numbers, and does it matter?

The same trajectories are scored under two setups of one configuration (`setups`), each with a lake of its own
below `OUTPUT/parity`. The lakes are compared token by token (`token_diff`), then by the proxies and the order
of the candidates (`ranking_effects`); `compare` gives a `ParityResult`, `report` its document.
"""
