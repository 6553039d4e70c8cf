"""Tensors of GGUF files."""

import gguf
import pytest

from forecast.engines.gguf_weights import read_once


def test_the_reader_is_put_back_after_an_error() -> None:
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    with pytest.raises(KeyError), read_once():
        assert gguf.GGUFReader is not before[0]
        raise KeyError
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
