"""One place for each thing: what a stranger adds as one file is everywhere, and the library knows no paper by name.

The files are those of CONTRIBUTING.md, in a copy of the checkout."""
import ast
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from creative_nb.axes import SET_MEASURES, SETS
from creative_nb.data import load_data
from creative_nb.paper import load_paper, paper_names
from creative_nb.runs import read_table

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = dict((path, code) for path, code in re.findall(r"`(nbs/[\w/.]+)`:\n\n```\w+\n(.*?)```", TEXT, re.S))
MODULES = sorted(p for p in (ROOT / "creative_nb").rglob("*.py") if p.name not in ("_modidx.py", "__init__.py"))
PAPERS = sorted(p.parent.name for p in (ROOT / "nbs").glob("*/paper.yaml"))
LIBRARY = [p for p in MODULES if p.parent.name not in PAPERS]


def write(root: Path, path: str, code: str):
    "A file of CONTRIBUTING.md; a notebook from its cells."
    to = root / path
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.suffix != ".ipynb": return to.write_text(code, encoding="utf-8")
    cells = [new_code_cell(c.strip()) for c in code.split("# %%\n")]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(
        new_notebook(
            cells=cells, metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}}
        ),
        to,
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    "A copy of the checkout, with every example of CONTRIBUTING.md."
    root = tmp_path_factory.mktemp("house") / "checkout"
    for name in ("creative_nb", "nbs", "data/published", "data/checkpoints"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "Snakefile"): shutil.copy(ROOT / name, root)
    for path, code in BLOCKS.items(): write(root, path, code)
    return root


def pipeline(root: Path, *args: str) -> str:
    done = subprocess.run([sys.executable, "-m", "creative_nb.pipeline", *args], cwd=root, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_there_is_one_file_for_each_thing():
    assert sorted(BLOCKS) == ["nbs/extensions/brightness.py", "nbs/extensions/mirrored.py", "nbs/extensions/rarest.py",
                              "nbs/extensions/squares.py", "nbs/mine/01_vae_losses.ipynb", "nbs/mine/02_counts.ipynb",
                              "nbs/mine/paper.yaml"]


def test_a_new_paper_runs(house):
    pipeline(house, "run", "smoke", "--paper", "mine", "--cores", "2")
    counts = read_table(house / "runs/smoke/mine/digits/tables/counts.csv")
    assert counts.latents.item() == 200 and counts.methods.item() == "low-active"
    assert read_table(house / "runs/smoke/mine/digits/tables/vae_losses.csv").kl.item() > 0
    assert "02_counts" in pipeline(house, "where", "mine")


def test_a_new_method_metric_and_data_set_are_in_the_tables(house):
    pipeline(house, "run", "smoke", "--paper", "das2020", "--settings", "squares", "--only", "03_metric_sweep",
             "--cores", "2")
    shelf = house / "runs/smoke/das2020/squares"
    sweep = read_table(shelf / "tables/metric_sweep.csv")
    assert set(sweep.dataset) == {"squares"} and "rarest" in set(sweep.method)
    assert sweep.query("method == 'rarest'")[["recon_distance", "brightness", "brightness_sd"]].notna().all(axis=None)
    assert any("other" in p.name for p in (shelf / "figures").glob("*.png"))


def test_a_row_and_a_column_of_the_atlas_as_described():
    exec(compile(BLOCKS["nbs/extensions/mirrored.py"], "mirrored.py", "exec"), {})
    row, column = SETS.pop("mirrored"), SET_MEASURES.pop("ink")
    data = load_data("digits")
    run = SimpleNamespace(networks=SimpleNamespace(data=data))
    images = row.make(run, len(data.test) + 1, 0)
    assert torch.equal(images[-1], data.test.images[0].flip(2)) and column.axis == "diversity"
    assert column.compute(SimpleNamespace(images=images)) > 0


def test_a_generator_as_described(tmp_path):
    code = next(c for c in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "class Conditional" in c)
    names = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    assert names["images"].shape == (16, 1, 8, 8) and 0 <= names["images"].min() and names["images"].max() <= 1


# How the house is built

def strings(path: Path) -> list[tuple[int, str]]:
    "String constants of a module, but for docstrings and the names it exports."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, scopes) and n.body
                  and isinstance(n.body[0], ast.Expr)}
    exported = {id(e) for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
                for e in ast.walk(n)}
    return [(n.lineno, n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
            and id(n) not in docstrings | exported]


ABBREVIATIONS = {"loact", "low_active", "ent", "non_specific", "cor", "clust", "3clust", "rand", "noise", "2interp",
                 "6interp", "oc_score"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_printed_abbreviations_are_translated_when_a_table_is_read(path):
    "They stand in paper.yaml and data/published, and nowhere else."
    allowed = {"noise"} | ({"low_active", "non_specific"} if path.stem in ("layers", "off_the_shelf") else set())
    if path.parent.name in paper_names(): allowed |= set(load_paper(path.parent.name).methods)  # its own names
    assert [(line, s) for line, s in strings(path) if s in ABBREVIATIONS - allowed] == []


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_the_library_knows_no_paper_by_name(path):
    assert [(line, s) for line, s in strings(path) if re.fullmatch("|".join(PAPERS), s)] == []


def test_the_pipeline_knows_no_paper_by_name():
    text = (ROOT / "Snakefile").read_text()
    assert not [p for p in PAPERS if p in text]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_a_module_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def code_cells() -> list[tuple[Path, list[str]]]:
    "Each code cell of the notebooks that is written by hand, as lines."
    paths = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb"))
             if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts)]
    return [(path, cell.source.splitlines()) for path in paths for cell in nbformat.read(path, 4).cells
            if cell.cell_type == "code" and cell.source and "injected-parameters" not in cell.metadata.get("tags", [])]


def exported_cells() -> list[int]:
    "Lines of each exported cell, without blank ones and directives."
    sizes = []
    for _, lines in code_cells():
        if not re.match(r"#\|\s*export\b", lines[0]): continue
        code = [line for line in lines if line.strip() and not line.startswith("#|")]
        if any(re.match(r"\s*(def|class|@)", line) for line in code): sizes.append(len(code))
    return sizes


def test_lines_of_notebooks_fit_a_page():
    written = [(path, lines) for path, lines in code_cells() if lines[0] != "# Parameters"]
    assert [f"{path.name}: {line}" for path, lines in written for line in lines if len(line) > 120] == []


def test_exported_cells_are_short():
    sizes = exported_cells()
    assert statistics.median(sizes) <= 8 and statistics.quantiles(sizes, n=10)[-1] <= 17
