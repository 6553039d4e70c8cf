"""What a ranking by proxies has to beat: forecasts from other scores, from compute and from plain losses.

Pure functions on arrays and frames; nothing here reads a lake or knows a configuration.
"""
