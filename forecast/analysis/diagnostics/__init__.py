"""Diagnostics: what could make a ranking look better, or other, than it is.

Each module holds one idea as pure functions; `report.py` asks them all about one run. A figure that does not
apply is None and its `reason` says why.
"""
