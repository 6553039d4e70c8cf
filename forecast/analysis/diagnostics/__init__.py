"""Diagnostics: what could make a ranking look better, or other, than it is.

Each module holds one idea as pure functions; `diagnose.py` applies them all to one run, `frames.py` and
`report.py` show the result. A figure that does not apply is None and its `reason` says why.
"""
