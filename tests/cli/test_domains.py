"""`gramian prune --calibration A=0.7 --calibration B=0.3`: one run on several texts, judged on each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call, model_fixture, no_network_fixture, short_builtin_text_fixture  # noqa: F401
from safetensors.torch import load_file

METHOD = ["--method", "wanda", "--sparsity", "0.5", "--samples", "4", "--length", "32", "--heldout", "2"]


@pytest.fixture(name="domains")
def domains_fixture(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("law.txt").write_text(" ".join(f"whereas {number}" for number in range(900)))
    Path("news.txt").write_text(" ".join(f"today {number * 7}" for number in range(900)))
    return ["--calibration", "law.txt=0.7", "--calibration", "news.txt=0.3"]


def weights(folder: str) -> dict[str, bytes]:
    """Every tensor as bytes, in however many files a run has written them."""
    found = {name: value for file in Path(folder).glob("*.safetensors") for name, value in load_file(file).items()}
    return {name: value.numpy().tobytes() for name, value in found.items()}


def test_every_domain_has_its_figures(domains, model, capsys):
    assert call("prune", model, "--out", "one", *METHOD, *domains) == 0
    shown = capsys.readouterr().out
    document = json.loads(Path("one/gramian.json").read_text())
    assert [(each["name"], each["weight"], each["windows"]) for each in document["domains"]] == [
        ("law.txt", 0.7, 3), ("news.txt", 0.3, 1),
    ]  # fmt: skip
    for each in document["domains"]:
        assert each["mean_error"] > 0 and each["mean_heldout_error"] > 0 and each["heldout_windows"] == 2
        assert each["name"] in shown
        pair = document["perplexity"]["domains"][each["name"]]
        assert pair["dense"] > 1 and pair["pruned"] > 1 and pair["standard_error"] > 0
    page = Path("one/report.html").read_text()
    assert "Domain by domain" in page and page.count("law.txt") > 1
    assert call("prune", model, "--out", "two", "--recipe", "one") == 0
    assert weights("one") == weights("two")
    assert call("prune", model, "--out", "one", *METHOD, *domains, "--resume") == 0  # it is finished, and says so
    assert call("prune", model, "--out", "three", *METHOD, *domains, "--memory", "stream") == 0
    assert weights("one") == weights("three")
    assert call("prune", model, "--out", "four", *METHOD, *domains, "--memory", "offload") == 0
    assert weights("one") == weights("four")


def test_a_weight_of_nothing_is_judged_and_not_fitted(domains, model):
    plain = [*METHOD, "--no-perplexity"]
    assert call("prune", model, "--out", "alone", *plain, "--calibration", "law.txt") == 0
    both = ["--calibration", "law.txt=1", "--calibration", "news.txt=0"]
    assert call("prune", model, "--out", "both", *plain, *both) == 0
    assert weights("alone") == weights("both")
    news = json.loads(Path("both/gramian.json").read_text())["domains"][1]
    assert news["windows"] == 0 and news["mean_error"] is None and news["mean_heldout_error"] > 0


@pytest.mark.parametrize(
    ("sources", "code", "message"),
    [
        (["law.txt=0.7", "news.txt"], 2, "has no weight and others have"),
        (["law.txt=0.7", "law.txt=0.3"], 2, "is given twice"),
        (["law.txt=0.7", "none.txt=0.3"], 1, "no calibration text 'none.txt'"),
        (["law.txt=0.7", "self=0.3"], 2, "cannot be one of several domains"),
        (["law.txt=-1", "news.txt=2"], 2, "finite number of at least 0"),
    ],
)
def test_mistakes_are_reported_at_once(domains, model, capsys, sources, code, message):
    options = [part for source in sources for part in ("--calibration", source)]
    assert call("prune", model, "--out", "one", *METHOD, *options) == code
    assert message in capsys.readouterr().err
    assert not Path("one").exists()
