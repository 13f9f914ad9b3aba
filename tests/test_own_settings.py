"Notebooks with settings of their own: which jobs a run has, and what they wait for."
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from creative_nb.paper import load_paper
from creative_nb.pipeline import inputs, parameters, plan

DECLARED = """
title: A paper of mine
settings: {digits: {}, faces: {dataset: blobs}}
notebooks:
  01_training: {}
  12_faces: {}
  13_more: {after: [12_faces]}
  99_report: {after: all, per: paper}
scales:
  smoke: {settings: [digits], by_notebook: OWN}
"""
EACH = "paper: str = 'mine'\nsetting: str = 'digits'\nscale: str = 'quick'\n"
WHOLE = "paper: str = 'mine'\nsettings: list = []\nscale: str = 'quick'\n"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    "A checkout with a paper of four notebooks; called with what `by_notebook` says."
    (tmp_path / "settings.ini").touch()
    folder = tmp_path / "nbs" / "mine"
    folder.mkdir(parents=True)
    for name in ("01_training", "12_faces", "13_more", "99_report"):
        cell = new_code_cell(WHOLE if name.startswith("99") else EACH, metadata={"tags": ["parameters"]})
        nbformat.write(new_notebook(cells=[cell]), folder / f"{name}.ipynb")
    monkeypatch.chdir(tmp_path)
    return lambda own: (folder / "paper.yaml").write_text(DECLARED.replace("OWN", own))


def planned(**more): return [(j.notebook, j.setting) for j in plan("smoke", **more)]


def test_a_setting_of_one_notebook_is_no_business_of_the_others(checkout):
    checkout("{12_faces: [faces], 13_more: [faces]}")
    assert planned() == [("01_training", "digits"), ("12_faces", "faces"), ("13_more", "faces"), ("99_report", "all")]
    assert planned(settings="faces") == [("12_faces", "faces"), ("13_more", "faces")]
    assert planned(settings="digits") == [("01_training", "digits"), ("99_report", "all")]
    assert planned(settings="blobs digits")[:2] == [("01_training", "blobs"), ("01_training", "digits")]


def test_a_report_waits_for_what_runs_and_speaks_of_what_is_shared(checkout):
    checkout("{12_faces: [faces], 13_more: [faces]}")
    jobs = {j.notebook: j for j in plan("smoke")}
    made = {i for i in inputs(jobs["99_report"])}
    assert made == {"runs/smoke/mine/digits/01_training.ipynb", "runs/smoke/mine/faces/12_faces.ipynb",
                    "runs/smoke/mine/faces/13_more.ipynb"}
    assert parameters(jobs["99_report"])["settings"] == ["digits"]
    assert inputs(jobs["13_more"]) == ["runs/smoke/mine/faces/12_faces.ipynb"]


def test_a_notebook_may_share_a_setting_and_waits_only_for_what_there_is(checkout):
    checkout("{12_faces: [digits, faces], 13_more: [digits]}")
    assert planned() == [("01_training", "digits"), ("12_faces", "digits"), ("12_faces", "faces"),
                         ("13_more", "digits"), ("99_report", "all")]
    checkout("{12_faces: [faces]}")
    assert inputs(next(j for j in plan("smoke") if j.notebook == "13_more")) == []


@pytest.mark.parametrize("own, message", [
    ("{77_none: [faces]}", "77_none"), ("{12_faces: [cifar]}", "cifar"), ("{12_faces: faces}", "by_notebook"),
    ("[12_faces]", "by_notebook")])
def test_wrong_declarations(checkout, own, message):
    checkout(own)
    with pytest.raises(ValueError, match=message): load_paper("mine")
