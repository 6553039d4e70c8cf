"""Names of training runs: candidates with a `step` are checkpoints of the run that the other fields name."""

from collections.abc import Sequence

RUN_COLUMNS = ("family", "corpus", "seed", "quantize_bits", "drop_layers")  # of the table of candidates


def run_name(parts: Sequence[object]) -> str:
    """The run of a checkpoint with this family, corpus, seed, bits of rounding and layers dropped."""
    family, *rest = parts
    words = ("corpus {}", "seed {}", "{}-bit", "without layers {}")
    known = [word.format(value) for word, value in zip(words, rest, strict=True) if value is not None]
    return ", ".join([str(family or "run"), *known])
