"The repository as a whole: what is generated follows from its source, and a new user's first commands hold."
import os, re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import nbformat, pytest, yaml

from creative_nb import release
from creative_nb.execute import known_parameters
from creative_nb.paper import load_paper, paper_names
from creative_nb.pipeline import plan

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb")
                   if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts))
MODULES = sorted(".".join(p.relative_to(ROOT).with_suffix("").parts)
                 for p in (ROOT / "creative_nb").rglob("*.py") if not p.name.startswith("_"))
EXPERIMENTS = [(name, notebook) for name in paper_names() for notebook in load_paper(name).notebooks]
SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")


@pytest.fixture
def copy(tmp_path) -> Path:
    "A copy of what nbdev reads; the package in it is empty."
    for name in ("nbs", "settings.ini", "README.md"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    (tmp_path / "creative_nb").mkdir()
    return tmp_path


def nbdev(command: str, folder: Path):
    environment = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    subprocess.run([Path(sys.executable).parent / command], cwd=folder, env=environment, check=True,
                   capture_output=True)


def texts(folder: Path, pattern: str) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in sorted(folder.rglob(pattern))
            if ".ipynb_checkpoints" not in p.parts and p.name != "_modidx.py"}  # nbdev's index, made at each export


def test_the_package_follows_the_notebooks(copy):
    nbdev("nbdev_export", copy)
    made, there = texts(copy / "creative_nb", "*.py"), texts(ROOT / "creative_nb", "*.py")
    assert sorted(made) == sorted(there)
    assert [name for name in made if made[name] != there[name]] == [], "run nbdev_export"


def test_the_notebooks_are_clean(copy):
    before = texts(copy / "nbs", "*.ipynb")
    nbdev("nbdev_clean", copy)
    after = texts(copy / "nbs", "*.ipynb")
    assert [name for name in before if before[name] != after[name]] == [], "run nbdev_clean"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_show_results_and_nothing_else(path):
    "No errors, no noise of the standard error stream, no path of the machine they ran on."
    outputs = [o for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    shown = "".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in outputs)
    assert not re.findall(r"/(?:home|root|Users|tmp|work)/\S*", shown)


@pytest.mark.parametrize("paper, notebook", EXPERIMENTS)
def test_experiment_notebooks_can_be_parametrised(paper, notebook):
    "They have a cell of parameters that is not exported, and name their kernel's language for papermill."
    source = ROOT / "nbs" / paper / f"{notebook}.ipynb"
    nb = nbformat.read(source, 4)
    cells = [c for c in nb.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1 and "#| export" not in cells[0].source and nb.metadata.kernelspec.language == "python"
    which = "settings" if load_paper(paper).per_paper(notebook) else "setting"
    assert {"paper", which, "scale"} <= set(known_parameters(source))


def test_parameters_are_typed_and_explained():
    for paper, notebook in EXPERIMENTS:
        nb = nbformat.read(ROOT / "nbs" / paper / f"{notebook}.ipynb", 4)
        cell = next(c.source for c in nb.cells if "parameters" in c.metadata.get("tags", []))
        for line in cell.splitlines():
            assert re.match(r"\w+: [\w\[\], |]+ = ", line), (paper, notebook, line)
            assert line.startswith("paper") or "  # " in line, (paper, notebook, line)


def test_every_experiment_notebook_is_in_the_pipeline():
    there = {(p.parent.name, p.stem) for p in NOTEBOOKS if known_parameters(p)}
    assert there - {("nbs", "your_generator")} == set(EXPERIMENTS)  # that one is for files of the reader's own


@pytest.mark.parametrize("scale", sorted({s for name in paper_names() for s in load_paper(name).scales}))
def test_every_scale_fits_the_notebooks(scale): assert plan(scale)


def test_the_package_needs_no_nbdev():
    code = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("nbdev", "fastcore", "execnb", "ghapi"): raise ImportError(f"blocked {{name}}")
sys.meta_path.insert(0, Block())
for name in {MODULES}: importlib.import_module(name)
try: import fastcore
except ImportError: print("blocked and not missed")"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "blocked and not missed\n", done.stderr


def test_a_built_package_has_the_page(tmp_path):
    "Style and script of the annotation page are no Python files, and have to be named to be installed."
    for name in ("creative_nb", "setup.py", "settings.ini", "README.md", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    subprocess.run([sys.executable, "setup.py", "-q", "build"], cwd=tmp_path, check=True, capture_output=True)
    assert {p.name for p in (tmp_path / "build/lib/creative_nb").glob("page.*")} == {"page.py", "page.css", "page.js"}


def test_conda_installs_what_pip_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    assert sorted(plain) == ["make", "pip", f"python>={SETTINGS['DEFAULT']['min_python']}"]
    assert [d for d in environment["dependencies"] if isinstance(d, dict)] == [{"pip": ["-e .[dev]"]}]


def test_the_licence_is_the_one_named():
    text = (ROOT / "LICENSE").read_text()
    assert SETTINGS["DEFAULT"]["license"] == "apache2" and "Version 2.0, January 2004" in text and len(text) > 11000


@pytest.mark.skipif(not (ROOT / "nbs" / "index.ipynb").is_file(), reason="there is no nbs/index.ipynb")
def test_the_readme_follows_the_index():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == release.readme(), "run make readme"


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r'(?:\]\(|src="|href=")([^)"\s#]+)', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not re.match("[a-z]+:", link) and not (ROOT / link).exists()] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_tracked_tree_is_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / f for f in listed.stdout.split("\0")]
    assert sum(f.stat().st_size for f in files if f.is_file()) < 60e6


# The two commands

def make(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *args], cwd=ROOT, capture_output=True, text=True)


def test_help_is_the_default():
    done = make()
    assert done.returncode == 0
    targets = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()
    assert set(re.findall(r"^make ([\w-]+)", done.stdout, re.M)) == set(targets) - {"help", "install"}


def test_an_old_python_is_refused_clearly(tmp_path):
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("paper", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0 and "Python 3.11 or newer is needed" in done.stderr + done.stdout
    assert not (tmp_path / "venv").exists()


def test_set_up_is_redone_when_requirements_change(tmp_path):
    "It is a prerequisite of every command that needs it."
    (tmp_path / ".creative_nb").touch()
    for target in ("paper", "test", "lab", "release", "readme", "where", "annotate"):
        assert "pip install" not in make("-n", target, f"VENV={tmp_path}").stdout
        assert "pip install" in make("-n", "-W", "settings.ini", target, f"VENV={tmp_path}").stdout


def test_github_runs_what_a_developer_runs():
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["steps"]
    assert [s["run"] for s in steps if "run" in s] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK) and "\nmake test" in (ROOT / ".ci/run").read_text()


def test_hooks_are_the_checks():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [h["id"] for h in hooks] == ["nbdev_clean", "nbdev_export", "ruff"]


MEASURED = ROOT / "data/measured/das2020"


def markdown(path: Path) -> str:
    "What a notebook says: its prose, and the tables that its code makes."
    cells = nbformat.read(path, 4).cells
    made = [o.get("data", {}).get("text/markdown", "") for c in cells for o in c.get("outputs", [])]
    return "\n".join([*(c.source for c in cells if c.cell_type == "markdown"), *made])


GUIDE = {p.stem: markdown(p) for p in sorted((ROOT / "nbs/guide").glob("*.ipynb"))}


def test_the_guide_quotes_the_measured_tables():
    "Numbers in the tables of guide/numbers are those of data/measured, rounded."
    import pandas as pd
    from creative_nb.experiment import Run
    from creative_nb.published import compare, rank_correlation
    losses = pd.read_csv(MEASURED / "all/table3_vae_losses.csv").set_index("dataset")
    facts = pd.read_csv(MEASURED / "all/facts.csv").set_index(["dataset", "fact"]).value
    judged = pd.read_csv(MEASURED / "all/recon_distance.csv").set_index(["dataset", "method"]).recon_distance
    rows, far = {k: [] for k in ("losses", "dead", "off", "low-active")}, []
    for d in ("mnist", "fmnist", "combined"):
        run = Run("das2020", d, "paper")
        sweep, printed = pd.read_csv(MEASURED / d / "metric_sweep.csv"), run.printed(run.printed_name("metric_sweep"))
        rows["losses"].append(f"{losses.nll[d] / (1000 if d == 'combined' else 1):.1f} + {losses.kl[d]:.1f}")
        rows["dead"].append(f"{facts[d, 'dead_neurons_layer3']:.0f}")
        rows["off"].append(f"{facts[d, 'off_neurons_mean']:.0f} ± {facts[d, 'off_neurons_std']:.0f}")
        rows["low-active"].append(f"{judged[d, 'low-active']:.2f}")
        off, ranks = compare(sweep, printed).deviation, rank_correlation(sweep, printed).spearman
        shown = [f"{off.median():.1f} %", f"{off.quantile(0.9):.1f} %", f"{off.max():.0f} %"]
        far.append(" | ".join([*shown, f"{ranks[5]:.2f}", f"{ranks.min():.2f}"]))
    text = GUIDE["numbers"]
    for name, quoted in rows.items():  # each after its printed value
        assert re.search(r" \| ".join(rf"[^|]+ \| {re.escape(q)}" for q in quoted), text), (name, quoted)
    assert [row for row in far if row not in text] == []
    for d in ("mnist", "fmnist"): assert f"{100 * facts[d, 'classifier_test_accuracy']:.2f} %" in text


def test_the_table_of_the_readme_is_what_its_code_makes():
    names, cells = {}, [c for c in nbformat.read(ROOT / "nbs/index.ipynb", 4).cells if c.cell_type == "code"]
    at = next(i for i, c in enumerate(cells) if "printed_table" in c.source)
    for cell in cells[at:-1]: exec(cell.source, names)
    before, last = cells[-1].source.rsplit("Markdown(", 1)
    exec(f"{before}made = Markdown({last}", names)
    assert names["made"].data in (ROOT / "README.md").read_text(encoding="utf-8").replace("](nbs/", "](")


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 1200 and (ROOT / "figures/pairs.png").stat().st_size < 60_000


@pytest.mark.parametrize("name", GUIDE)
def test_links_of_the_guide_lead_somewhere(name):
    links = re.findall(r'(?:\]\(|src="|href=")([^)"\s#]+)', GUIDE[name])
    assert [k for k in links if not re.match("[a-z]+:", k) and not (ROOT / "nbs/guide" / k).exists()] == []


def test_commands_of_the_readme_are_understood():
    "The settings and parameters that its commands, and those of the guide, name exist."
    text = "\n".join([(ROOT / "README.md").read_text(encoding="utf-8"), *GUIDE.values()])
    commands = re.findall(r"^(?:\$ )?(make (?:paper|where|annotate)[^\n#]*)", text, re.M)
    assert len(commands) > 2
    for command in commands:
        given = dict(re.findall(r"(\w+)=(\S+)", command))
        assert set(given) <= {"PAPER", "SCALE", "SETTINGS", "ONLY", "DATASET", "ITEM", "PORT", "ROOT", "SIZE"}, command
        if "PAPER" in given: assert given["PAPER"] in paper_names()
        if "ONLY" in given: assert any(given["ONLY"] in load_paper(p).notebooks for p in paper_names())
    papermill = re.findall(r"papermill (nbs/\S+\.ipynb) \S+((?: -[py] \w+ [^\s`]+)+)", text)
    assert len(papermill) > 2
    for notebook, options in papermill:
        assert set(re.findall(r"-[py] (\w+)", options)) <= set(known_parameters(ROOT / notebook)), notebook
