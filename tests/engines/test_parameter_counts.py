"""Parameters that a token is multiplied with, of tied and untied output heads."""

import pytest
import transformers

from forecast.engines.parameter_counts import parameters_of
from forecast.inputs.published.datadecide import SIZES


def model(tied: bool) -> transformers.PreTrainedModel:
    """DataDecide's 4M: hidden 64, 8 layers, SwiGLU of 256, 50,304 rows."""
    config = transformers.OlmoConfig(
        vocab_size=50_304,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=tied,
    )
    return transformers.OlmoForCausalLM(config)


@pytest.mark.parametrize("tied", [True, False])
def test_an_input_embedding_counts_only_where_it_is_the_output_head(tied: bool) -> None:
    every, looked_up = parameters_of(model(tied))
    assert looked_up == (0 if tied else 50_304 * 64)
    assert every == sum(p.numel() for p in model(tied).parameters())
    # Its layer norms have weights of their own, 17 of 64, which this class does not have.
    assert every - looked_up + 17 * 64 == SIZES["4M"].parameters
