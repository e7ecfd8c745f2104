"""Problem files keep the problem, and say what is wrong with one that does not hold any."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from gramian.adapters import Layer, read_problem, write_problem
from gramian.adapters.data.problem_files import problem_bytes, read_gram
from gramian.solvers import Quadratic

TOKENS, OUTPUTS, INPUTS = 50, 5, 7


@pytest.fixture
def problem() -> Quadratic:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((OUTPUTS, INPUTS))
    return Quadratic.from_data(generator.standard_normal((TOKENS, INPUTS)), weight)


@pytest.fixture
def moved() -> Quadratic:
    """X* != X."""
    generator = np.random.default_rng(1)
    inputs, drift = generator.standard_normal((2, TOKENS, INPUTS))
    return Quadratic.from_data(inputs + 0.1 * drift, generator.standard_normal((OUTPUTS, INPUTS)), inputs)


def tensors(**changed) -> dict[str, np.ndarray]:
    """A valid file's content, with changes; None leaves a tensor out."""
    upper = np.eye(INPUTS)[np.triu_indices(INPUTS)]
    content = {"weight": np.ones((OUTPUTS, INPUTS)), "gram_upper": upper, **changed}
    return {
        name: np.asarray(tensor, dtype=getattr(tensor, "dtype", None)) for name, tensor in content.items() if tensor is not None
    }


def test_round_trip_per_token(problem, moved, tmp_path):
    for name, each in (("same", problem), ("moved", moved)):
        path = tmp_path / f"{name}.safetensors"
        write_problem(path, each, tokens=TOKENS, metadata={"operator": "a.b", "layer": "3"})
        read, metadata = read_problem(path)
        assert metadata["operator"] == "a.b" and metadata["layer"] == "3" and metadata["tokens"] == str(TOKENS)
        assert metadata["gram"] == "mean of x x^T over tokens, upper triangle, row-major (numpy.triu_indices)"
        trial = np.random.default_rng(2).standard_normal(each.shape)
        assert read.anchor.dtype == np.float64
        assert read.loss(trial) == pytest.approx(each.loss(trial) / TOKENS, rel=1e-5)
        assert read.relative_error(trial) == pytest.approx(each.relative_error(trial), rel=1e-5)
        np.testing.assert_array_equal(read.gram, read.gram.T)
        assert (read.slope is None) == (each.slope is None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved.safetensors", "same.safetensors"]


def test_the_size_of_a_file_is_known_before_it_is_written(problem, moved, tmp_path):
    for each, drifted in ((problem, False), (moved, True)):
        write_problem(tmp_path / "layer.safetensors", each, tokens=TOKENS)
        beside = (tmp_path / "layer.safetensors").stat().st_size - problem_bytes((OUTPUTS, INPUTS), drifted)
        assert 0 < beside < 1000  # names, shapes, metadata


def test_layout_is_that_of_triu_indices(problem, tmp_path):
    write_problem(tmp_path / "a.safetensors", problem, tokens=TOKENS)
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        upper = file.get_tensor("gram_upper")
        assert set(file.keys()) == {"weight", "gram_upper"} and upper.dtype == np.float32
    np.testing.assert_allclose(upper, problem.gram[np.triu_indices(INPUTS)] / TOKENS, rtol=1e-6)
    np.testing.assert_allclose(read_gram(tmp_path / "a.safetensors"), problem.gram / TOKENS, rtol=1e-6)


def test_a_layer_of_torch_is_written(tmp_path):
    layer = Layer("fc", torch.nn.Linear(INPUTS, OUTPUTS))
    layer.moments.update(torch.randn(TOKENS, INPUTS, generator=torch.Generator().manual_seed(0)))
    write_problem(tmp_path / "fc.safetensors", layer.problem(), tokens=layer.moments.tokens)
    read, _ = read_problem(tmp_path / "fc.safetensors")
    np.testing.assert_allclose(read.anchor, layer.weight.numpy(), rtol=1e-6)


def test_moments_alone(tmp_path):
    save_file({"gram_upper": tensors()["gram_upper"].astype(np.float32)}, tmp_path / "gram.safetensors")
    np.testing.assert_array_equal(read_gram(tmp_path / "gram.safetensors"), np.eye(INPUTS))
    with pytest.raises(ValueError, match=r"holds the tensors \['gram_upper'\] but a problem needs 'weight'"):
        read_problem(tmp_path / "gram.safetensors")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": None}, "needs 'weight'"),
        ({"gram_upper": None}, "needs 'gram_upper'"),
        ({"gram_upper": np.ones(29)}, r"\(29,\) but a triangle of width p has"),
        ({"gram_upper": np.ones((7, 4))}, "a triangle of width p has"),
        ({"gram_upper": np.ones(0)}, "a triangle of width p has"),
        ({"weight": np.ones((5, 8))}, r"weight is \(5, 8\) but gram_upper is the triangle of a \(7, 7\) matrix"),
        ({"weight": np.ones(7)}, r"weight is \(7,\) but must be a matrix"),
        ({"weight": np.full((5, 7), np.nan)}, "weight holds NaN or Inf"),
        ({"gram_upper": np.full(28, np.inf)}, "gram_upper holds NaN or Inf"),
        ({"gram_upper": -np.ones(28)}, "negative entries on the diagonal"),
        ({"weight": np.ones((5, 7), dtype=np.int32)}, "weight is I32"),
        ({"slope": np.ones((5, 7))}, "slope and floor come together"),
        ({"slope": np.ones((4, 7)), "floor": np.ones(5)}, r"slope is \(4, 7\)"),
        ({"slope": np.ones((5, 7)), "floor": np.ones(4)}, r"floor is \(4,\)"),
    ],
)
def test_malformed_content(changed, message, tmp_path):
    path = tmp_path / "bad.safetensors"
    save_file(tensors(**changed), path)
    with pytest.raises(ValueError, match=message) as raised:
        read_problem(path)
    assert "bad.safetensors" in str(raised.value) and "\n" not in str(raised.value)


def test_other_floating_types_are_read(tmp_path):
    for dtype in (np.float16, np.float64):
        save_file({name: tensor.astype(dtype) for name, tensor in tensors().items()}, tmp_path / "a.safetensors")
        assert read_problem(tmp_path / "a.safetensors")[0].gram.dtype == np.float64


def test_no_safetensors_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no problem file"):
        read_problem(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("this is no safetensors file")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read_problem(tmp_path / "text.safetensors")


def test_nothing_is_left_of_a_failed_write(problem, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="not finite in float32"):
        write_problem(tmp_path / "a.safetensors", Quadratic(problem.gram, 1e300 * problem.anchor), tokens=1)
    with pytest.raises(ValueError, match="at least one token"):
        write_problem(tmp_path / "a.safetensors", problem, tokens=0)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_problem(tmp_path / "a.safetensors", problem, tokens=TOKENS)
    assert not list(tmp_path.iterdir())
