"""The benchopt benchmark runs as benchopt runs it: every dataset, model and solver that fits, without benchopt itself."""

from __future__ import annotations

import importlib.util
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from gramian.adapters.data.problem_files import write_problem
from gramian.proofs.kit.strategies import normal_layer

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "benchopt"
SOLVERS = sorted(FOLDER.glob("solvers/*.py"))


class Base:
    """What the tests need of benchopt's base classes: parameters become attributes."""

    parameters: ClassVar[dict[str, list[Any]]] = {}

    def __init__(self, **chosen: Any) -> None:
        for name, values in self.parameters.items():
            setattr(self, name, chosen.get(name, values[0]))

    def skip(self, **given: Any) -> tuple[bool, str | None]:
        return False, None


@pytest.fixture(scope="module", autouse=True)
def benchopt():
    stub = ModuleType("benchopt")
    for name in ("BaseObjective", "BaseSolver", "BaseDataset"):
        setattr(stub, name, type(name, (Base,), {}))
    before = sys.modules.get("benchopt")
    sys.modules["benchopt"] = stub
    yield
    del sys.modules["benchopt"]
    if before is not None:
        sys.modules["benchopt"] = before


def loaded(path: Path, name: str) -> type:
    spec = importlib.util.spec_from_file_location(f"benchopt_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def objective(model: str, data: dict[str, np.ndarray], reg: float = 0.1) -> Any:
    found = loaded(FOLDER / "objective.py", "Objective")(model=model, reg=reg)
    found.set_data(**data)
    return found


def solved(path: Path, given: dict[str, Any], budget: float) -> np.ndarray | None:
    """The weights of a solver, or None if it skips the model."""
    solver = loaded(path, "Solver")()
    skipped, reason = solver.skip(**given)
    if skipped:
        assert reason
        return None
    solver.set_objective(**given)
    solver.run(budget)
    return solver.get_result()["weights"]


def test_datasets(tmp_path):
    simulated = loaded(FOLDER / "datasets" / "simulated.py", "Dataset")
    data = simulated(tokens=50, inputs=12, outputs=4).get_data()
    assert data["X"].shape == (50, 12) and data["Y"].shape == (50, 4)
    assert np.mean(data["X"][:, 3] * data["X"][:, 4]) > 0.3
    layer = normal_layer(1, 30, 8, 3)
    file = tmp_path / "layer.safetensors"
    write_problem(file, layer.problem(_numpy()), tokens=1)
    read = loaded(FOLDER / "datasets" / "layer.py", "Dataset")
    data = read(file=str(file)).get_data()
    gram = layer.inputs.T @ layer.inputs  # the file has it in float32
    np.testing.assert_allclose(data["X"].T @ data["X"], gram, atol=1e-6 * np.max(gram))
    np.testing.assert_allclose(data["X"].T @ data["Y"], gram @ layer.weight.T, atol=1e-4 * np.max(gram))
    with pytest.raises(ValueError, match="name a problem file"):
        read().get_data()


def _numpy() -> Any:
    from gramian.proofs.kit.backends import backends

    return next(backend for backend in backends() if backend.name == "numpy")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("model, path", [*product(["lasso", "elastic net", "non-negative", "l0"], SOLVERS)], ids=str)
def test_every_solver_on_every_model(model, path):
    """Solvers that iterate end at the value of those that are exact; none ends above that of zero weights."""
    if path.stem == "scikit_learn":
        pytest.importorskip("sklearn")
    layer = normal_layer(2, 40, 10, 3, condition=4.0)
    asked = objective(model, {"X": layer.inputs, "Y": layer.outputs + 0.1})
    zero = asked.evaluate_result(**asked.get_one_result())
    assert zero["nonzeros"] == 0
    weights = solved(path, asked.get_objective(), 3000 if path.stem == "scikit_learn" else 1e-9)
    if weights is None:
        assert (model == "l0") != (path.stem == "gramian_l0") or path.stem == "scipy_nnls"
        return
    found = asked.evaluate_result(weights)
    assert found["value"] < zero["value"]
    ours = FOLDER / "solvers" / f"gramian_{'l0' if model == 'l0' else 'lasso'}.py"
    reference = solved(ours, asked.get_objective(), 1e-9)
    assert reference is not None
    assert found["value"] == pytest.approx(asked.evaluate_result(reference)["value"], rel=1e-7)


def test_weights_off_the_set_have_no_value():
    layer = normal_layer(3, 20, 6, 2)
    data = {"X": layer.inputs, "Y": layer.outputs}
    assert objective("non-negative", data).evaluate_result(np.full((2, 6), -1.0))["value"] == np.inf
    assert objective("l0", data).evaluate_result(np.ones((2, 6)))["value"] == np.inf
    assert objective("lasso", data).evaluate_result(np.ones((2, 6)))["value"] < np.inf
