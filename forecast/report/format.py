"""How reports and alerts write numbers: alike everywhere, and a dash for what is missing."""

MISSING = "–"


def figure(value: float | None, signed: bool = False) -> str:
    """Four significant digits, never in exponents below a million: 0.5123, 1.919, 40.49, 9612."""
    if value is None:
        return MISSING
    text = f"{value:{'+' if signed else ''}.4g}"
    return f"{value:{'+' if signed else ''},.0f}" if "e+" in text and abs(value) < 1e6 else text


def step_text(step: int | None) -> str:
    """A training step: 143,000."""
    return MISSING if step is None else f"{step:,}"
