"""How many parameters a loaded model has, and how many of them no token is multiplied with."""

from typing import Any


def parameters_of(model: Any) -> tuple[int, int]:
    """All parameters, each once; and those of an input embedding that is not the output head too.

    From such an embedding rows are looked up, so it costs no operations. A tied one serves as output head and
    does, so it is not counted: 0.
    """
    own = list(model.parameters())  # shared ones once
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    weight = getattr(table, "weight", None)
    tied = head is not None and getattr(head, "weight", None) is weight
    alone = 0 if weight is None or tied else int(weight.numel())
    return sum(p.numel() for p in own), alone
