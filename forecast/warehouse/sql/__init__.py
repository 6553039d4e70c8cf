"""The SQL statements of this package, kept as `.sql` files."""

from importlib.resources import files


def statement(name: str, **parts: str) -> str:
    """The text of `sql/NAME.sql` with each `{key}` replaced by its part."""
    text = (files("forecast.warehouse") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    for key, part in parts.items():
        text = text.replace(f"{{{key}}}", part)
    return text
