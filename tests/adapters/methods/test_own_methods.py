"""A method of the user's own, by `module:name`: found, walked as it says, refused in one line, and held to the laws."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WINDOWS, parameters, tiny_model, tiny_tokenizer

import gramian
from gramian.adapters import PruneConfig, save
from gramian.adapters.cli.main import main
from gramian.adapters.methods.registry import WEIGHT_METHODS, file_of, resolve
from gramian.proofs import laws
from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import NM, TopK
from gramian.solvers.support.baselines import magnitude

PROBLEM = normal_layer(0, 60, 24, 10, condition=30).problem(np)
MINE = '''
from gramian.adapters.methods.registry import Method
from gramian.solvers import refit


def curvature(problem, pattern, *, power=1.0):
    """Keep the weights whose removal alone costs most, w^2 G_jj^power, and refit them."""
    score = problem.anchor**2 * problem.diagonal**power
    return refit(problem, pattern.select(score))


walked = Method(curvature, settings={"calibrate_on": "dense", "target": "block", "per_row": True})
number = 3
answers = lambda problem, pattern: problem.anchor
short = lambda: None
strange = lambda problem, pattern, table=object(): problem


class Family:
    def __call__(self, problem, pattern):
        return curvature(problem, pattern)

    @staticmethod
    def member(problem, pattern):
        return curvature(problem, pattern)


instance = Family()


def noted(problem, pattern):
    found = curvature(problem, pattern)
    found.detail["kept"] = problem.diagonal.astype("float32").sum()
    return found


def worded(problem, pattern):
    found = curvature(problem, pattern)
    found.detail["kind"] = "fine"
    return found


class Wanting:
    def __init__(self, power):
        self.power = power
'''
DEFECTIVE = """
import numpy as np
from gramian.adapters import UnitScores


def by_channel(module):
    problem = module.inputs()
    return UnitScores((np.asarray(problem.anchor) ** 2).sum(axis=0)[1:])


def bare(module):
    return np.ones(module.count)


def undefined(module):
    return UnitScores(np.full(module.count, np.nan))
"""


def example(readme: str, file: str) -> str:
    """The code of a file that a README shows."""
    text = (Path(__file__).parents[3] / readme).read_text(encoding="utf-8")
    return text.split(f"# {file}\n")[1].split("```")[0]


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A module in the current directory, which an installed command does not have on its path."""
    (tmp_path / "mymethod.py").write_text(MINE)
    (tmp_path / "myunits.py").write_text(example("adapters/README.md", "myunits.py"))
    (tmp_path / "defective.py").write_text(DEFECTIVE)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    (tmp_path / "faulty.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    for name in ("mymethod", "myunits", "defective", "broken", "faulty"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_names_are_resolved(mine):
    for name, method in WEIGHT_METHODS.items():
        assert resolve(name) is method
    expected = resolve("mymethod:curvature").tried({})(PROBLEM, NM(2, 4)).weights
    for name in ("instance", "Family", "Family.member", "walked"):
        found = resolve(f"mymethod:{name}").tried({})(PROBLEM, NM(2, 4)).weights
        np.testing.assert_array_equal(found, expected)
    plain = resolve("mymethod:curvature")
    assert dict(plain.settings) == {}
    how = PruneConfig("mymethod:walked")
    assert [how.own(name) for name in ("calibrate_on", "target", "per_row")] == ["dense", "block", True]
    assert plain.defaults == {"power": 1.0}
    bound = plain.tried({"power": 0.0})(PROBLEM, TopK(0.5)).weights
    np.testing.assert_array_equal(bound != 0, magnitude(PROBLEM, TopK(0.5)).weights != 0)
    with pytest.raises(ValueError, match="curvature has no option 'sparsity'; it has power"):
        plain.tried({"sparsity": 0.5})
    with pytest.raises(ValueError, match="Family has no option 'power'; it has none"):
        resolve("mymethod:instance").tried({"power": 1.0})


def test_the_path_is_as_it_was_and_the_file_is_known(mine):
    """Whether the import succeeds or not, and whatever the module itself adds to the path."""
    before = sys.path[:]
    for name in ("mymethod:curvature", "broken:x", "faulty:x", "nowhere:x"):
        with suppress(ValueError):
            resolve(name)
        assert sys.path == before
    assert file_of("mymethod:curvature") == mine / "mymethod.py"
    assert file_of("wanda") is None and file_of("nowhere:x") is None
    (mine / "adding.py").write_text("import sys\nsys.path.insert(0, 'mine')\nf = lambda problem, pattern: None\n")
    resolve("adding:f")
    assert sys.path == ["mine", *before]
    sys.path.append(str(mine))  # where it stands already it stays
    del sys.modules["mymethod"]
    resolve("mymethod:curvature")
    assert sys.path == ["mine", *before, str(mine)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("magic", "no method 'magic'; there are fistapruner, .*, and module:name for one of your own"),
        ("mymethod:", "no method 'mymethod:'"),
        (":curvature", "no method ':curvature'"),
        ("", "no method ''"),
        ("mymethods:curvature", "method 'mymethods:curvature' cannot be imported: ModuleNotFoundError: No module named"),
        ("mymethod:curve", "method 'mymethod:curve' cannot be imported: AttributeError: .* no attribute 'curve'"),
        ("broken:x", "method 'broken:x' cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("faulty:x", "method 'faulty:x' cannot be imported: ZeroDivisionError: division by zero"),
        ("mymethod:number", r"method 'mymethod:number' cannot be called as solve\(problem, pattern\)"),
        ("mymethod:short", "cannot be called as solve"),
        ("mymethod:Wanting", "cannot be called as solve.* missing 1 required positional argument"),
        ("mymethod:strange", "cannot be called as solve.* not JSON serializable"),
    ],
)
def test_names_that_lead_nowhere(mine, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        resolve(name)
    assert len(str(caught.value).splitlines()) == 1


def test_the_example_of_the_readme(mine):
    """It is 20 lines, holds to the laws, and prunes a model."""
    code = example("README.md", "mymethod.py")
    assert len(code.splitlines()) <= 20
    (mine / "mymethod.py").write_text(code)
    laws.check_method(resolve("mymethod:MyMethod"))
    model, out = save(tiny_model("llama"), tiny_tokenizer(), mine / "model"), mine / "sparse"
    (mine / "text.txt").write_text(" ".join(map(str, range(400))))
    texts = ["--calibration", "text.txt", "--samples", "2", "--length", "16", "--heldout", "0", "--no-perplexity"]
    assert main(["prune", str(model), "--out", str(out), "--method", "mymethod:MyMethod", *texts]) == 0
    assert json.loads((out / "gramian.json").read_text())["settings"]["options"] == {"power": 0.5}


def test_an_answer_that_is_no_solution(mine):
    with pytest.raises(ValueError, match="<lambda> returned ndarray, not a gramian"):
        resolve("mymethod:answers").tried({})(PROBLEM, TopK(0.5))


def test_figures_are_numbers_and_answers_are_known_to_be_so_before_work(mine, capsys):
    """Numbers of numpy become plain ones, and what is no number, or no answer, is refused before a run begins."""
    solution = resolve("mymethod:noted").tried({})(PROBLEM, TopK(0.5))
    assert type(solution.detail["kept"]) is float
    model = save(tiny_model("llama"), tiny_tokenizer(), mine / "model")
    (mine / "text.txt").write_text(" ".join(map(str, range(400))))
    texts = ["--calibration", "text.txt", "--samples", "2", "--length", "16", "--heldout", "1", "--include", "0.mlp"]
    assert main(["capture", str(model), *texts[:6], *texts[8:], "--out", "problems"]) == 0
    files = sorted(map(str, (mine / "problems").iterdir()))
    for name, message in (("worded", "returned detail['kind'] of type str, not a number"), ("answers", "returned ndarray")):
        for command in (["prune", str(model), *texts, "--dry-run"], ["prune", str(model), *texts, "--out", "other"],
                        ["solve", *files, "--out", "solved"]):  # fmt: skip
            capsys.readouterr()
            assert main([*command, "--method", f"mymethod:{name}"]) == 1
            assert message in capsys.readouterr().err
    assert not (mine / "other").exists() and not (mine / "solved").exists()


def test_the_laws_hold_for_it(mine):
    laws.check_method(resolve("mymethod:curvature"), examples=10)


def test_it_prunes_and_solves_on_the_command_line(mine, capsys):
    """`prune` and `solve` of a real model, its estimate included; what cannot be imported ends with one line and code 1."""
    model, out = save(tiny_model("llama"), tiny_tokenizer(), mine / "model"), mine / "sparse"
    texts = ["--calibration", "text.txt", "--samples", "2", "--length", "16", "--include", "0.mlp"]
    (mine / "text.txt").write_text(" ".join(map(str, range(400))))
    command = ["prune", str(model), *texts, "--heldout", "0", "--no-perplexity"]
    assert main([*command, "--out", str(out), "--method", "mymethod:walked"]) == 0
    assert f"the method mymethod:walked is what {mine / 'mymethod.py'} says" in capsys.readouterr().err
    report = json.loads((out / "gramian.json").read_text())
    settings = report["settings"]
    assert settings["method"] == "mymethod:walked" and settings["pattern"] == "50% per row"
    assert settings["options"] == {"power": 1.0} and settings["target"] == "block" and settings["calibrate_on"] == "dense"
    assert all(row["residual"] < 1e-5 for row in report["operators"]) and report["sparsity"] >= 0.5

    assert main([*command, "--dry-run", "--method", "mymethod:curvature"]) == 0
    assert "working arrays of mymethod:curvature" in capsys.readouterr().out
    assert main(["capture", str(model), *texts, "--out", "problems"]) == 0
    files = sorted(map(str, (mine / "problems").iterdir()))
    assert main(["solve", *files, "--method", "mymethod:curvature", "--sparsity", "2:4", "--json", "rows.json"]) == 0
    rows = json.loads((mine / "rows.json").read_text())
    assert {row["method"] for row in rows} == {"mymethod:curvature"} and rows[0]["certificate"]["residual"] < 1e-5

    capsys.readouterr()
    for each in ([*command, "--out", "other"], ["solve", *files]):
        assert main([*each, "--method", "faulty:x"]) == 1
        line = "gramian: error: method 'faulty:x' cannot be imported: ZeroDivisionError: division by zero"
        assert capsys.readouterr().err.splitlines()[-1] == line
        assert main([*each, "--method", "mymethod:answers"]) == 1
        assert "returned ndarray, not a gramian.solvers.Solution" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--out", "other", "--method", "mymethod.curvature"])
    assert "no method 'mymethod.curvature'; there are fistapruner, " in capsys.readouterr().err
    assert not (mine / "other").exists()


# -- methods that remove units -----------------------------------------------------------------------------------------


def test_a_function_of_a_module_removes_units(mine):
    """It is told apart by its parameter, holds to the laws, and removes what it scores least."""
    method = resolve("myunits:score")
    assert method.granularity == "units" and dict(method.settings) == {} and method.defaults == {"power": 2.0}
    laws.check_method(method, examples=10)
    laws.check_method(method.decide, examples=10)
    model = tiny_model("llama")
    report = gramian.prune(model, WINDOWS, "myunits:score", ratio=0.2, progress=False)
    assert abs(report.ratio - 0.2) < 0.05 and report.parameters[1] < report.parameters[0]
    settings = report.settings
    assert [settings[name] for name in ("method", "allocation", "compensate")] == ["myunits:score", "equal", False]
    assert settings["options"] == {"power": 2.0}


def test_its_option_and_its_own_settings_count(mine):
    """Scores at the power 2 differ from those at 0, and a `Method` around the function makes up for what is removed."""

    def pruned(name, **settings):
        return gramian.prune(tiny_model("llama"), WINDOWS, f"myunits:{name}", ratio=0.3, progress=False, **settings)

    plain, flat, named = pruned("score"), pruned("score", options={"power": 0.0}), pruned("equal")
    assert any(not np.array_equal(flat.keep[module], kept) for module, kept in plain.keep.items())
    assert all(np.array_equal(named.keep[module], kept) for module, kept in plain.keep.items())
    assert (named.settings["allocation"], named.settings["compensate"]) == ("equal", True)
    assert named.mean_error < plain.mean_error
    assert pruned("equal", compensate=False).mean_error == plain.mean_error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("by_channel", r"by_channel returned scores of shape \(1,\) for 2 units: one for each"),
        ("bare", "bare returned ndarray, not gramian.adapters.UnitScores"),
        ("undefined", "undefined returned scores that are NaN"),
    ],
)
def test_answers_that_are_no_scores_are_refused_before_any_work(mine, name, message):
    model = tiny_model("llama")
    before = parameters(model)
    with pytest.raises(ValueError, match=message):
        PruneConfig(f"defective:{name}", ratio=0.2)
    with pytest.raises(ValueError, match=message):
        gramian.prune(model, WINDOWS, f"defective:{name}", ratio=0.2, progress=False)
    assert all(torch.equal(each, before[other]) for other, each in model.named_parameters())
    with pytest.raises(AssertionError, match=r"every unit has a finite score"):
        laws.check_method(resolve(f"defective:{name}"), examples=10)


def test_a_method_of_units_on_the_command_line(mine, capsys):
    model, out = save(tiny_model("llama"), tiny_tokenizer(), mine / "model"), mine / "smaller"
    (mine / "text.txt").write_text(" ".join(map(str, range(400))))
    texts = ["--calibration", "text.txt", "--samples", "2", "--length", "16", "--heldout", "0", "--no-perplexity"]
    command = ["prune", str(model), "--out", str(out), "--ratio", "0.2", *texts]
    assert main([*command, "--method", "defective:by_channel"]) == 1
    assert "by_channel returned scores of shape (1,) for 2 units" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--method", "myunits:equal"]) == 0
    assert json.loads((out / "gramian.json").read_text())["settings"]["method"] == "myunits:equal"
