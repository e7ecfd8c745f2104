"""GGUF files are read once for all parts of a model, to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gramian.adapters.models.gguf_files import read_once

gguf = pytest.importorskip("gguf")


@pytest.fixture
def path(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_token_list(["a", "bc", "é"])
    writer.add_context_length(64)
    writer.add_tensor("weight", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "model.gguf"


def contents(reader):
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return fields, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def test_a_file_is_read_once_and_alike(path):
    usual = gguf.GGUFReader
    fields, tensors = contents(usual(path))
    assert fields["tokenizer.ggml.tokens"] == ["a", "bc", "é"]
    with read_once():
        first = gguf.GGUFReader(str(path))
        assert gguf.GGUFReader(path) is first and isinstance(first, usual)
        assert contents(first)[0] == fields
        np.testing.assert_array_equal(contents(first)[1]["weight"], tensors["weight"])
    assert gguf.GGUFReader is usual
    with read_once():
        assert gguf.GGUFReader(path) is not first


def test_the_library_is_as_it_was_after_an_error(tmp_path):
    usual = gguf.GGUFReader
    (tmp_path / "model.gguf").write_bytes(b"damaged, and long enough")
    with pytest.raises(ValueError, match="GGUF magic invalid"), read_once():
        gguf.GGUFReader(tmp_path / "model.gguf")
    assert gguf.GGUFReader is usual
