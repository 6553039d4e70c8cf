"""Do two engines, dtypes or devices give the same numbers, and does it matter?

The same trajectories are scored under two setups of one configuration (`setups`), each with a lake of its own
below `OUTPUT/parity`. The lakes are compared token by token (`tokens`), then by what becomes of the proxies
and of the order of the candidates (`effects`); `compare` puts it together, `tables` prints it.
"""
