"The repository as a whole: what is generated follows from its source, and a new user's first commands hold."
import os, re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import nbformat, pytest, yaml

from creative_nb import pipeline

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts))
MODULES = sorted(".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "creative_nb").rglob("*.py") if not p.name.startswith("_"))
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
    subprocess.run([Path(sys.executable).parent / command], cwd=folder, env=environment, check=True, capture_output=True)


def texts(folder: Path, pattern: str) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in sorted(folder.rglob(pattern)) if ".ipynb_checkpoints" not in p.parts}


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


@pytest.mark.parametrize("notebook", pipeline.notebooks())
def test_experiment_notebooks_can_be_parametrised(notebook):
    "They have a cell of parameters that is not exported, and name their kernel's language for papermill."
    nb = nbformat.read(pipeline.source(notebook), 4)
    cells = [c for c in nb.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1 and "#| export" not in cells[0].source and nb.metadata.kernelspec.language == "python"
    assert {"scale", "out"} <= set(pipeline.known_parameters(pipeline.source(notebook)))


def test_every_experiment_notebook_is_in_the_pipeline():
    there = {str(p.relative_to(ROOT / "nbs").with_suffix("")) for p in NOTEBOOKS if pipeline.known_parameters(p)}
    assert there == set(pipeline.notebooks())


@pytest.mark.parametrize("scale", pipeline.scales())
def test_every_configuration_fits_the_notebooks(scale): assert pipeline.plan(scale)


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
    assert (ROOT / "README.md").read_text(encoding="utf-8") == pipeline.readme(), "run make readme"


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r'(?:\]\(|src="|href=")([^)"\s#]+)', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not re.match("[a-z]+:", link) and not (ROOT / link).exists()] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_tracked_tree_is_small():
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    assert sum((ROOT / f).stat().st_size for f in files if (ROOT / f).is_file()) < 30e6


# The two commands

def make(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *args], cwd=ROOT, capture_output=True, text=True)


def test_help_is_the_default():
    done = make()
    assert done.returncode == 0
    targets = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()
    assert set(re.findall(r"^make (\w+)", done.stdout, re.M)) == set(targets) - {"help", "install"}


def test_an_old_python_is_refused_clearly(tmp_path):
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("paper", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0 and "Python 3.11 or newer is needed" in done.stderr + done.stdout and not (tmp_path / "venv").exists()


def test_set_up_is_redone_when_requirements_change(tmp_path):
    "It is a prerequisite of every command that needs it."
    (tmp_path / ".creative_nb").touch()
    for target in ("paper", "test", "lab", "publish", "readme"):
        assert "pip install" not in make("-n", target, f"VENV={tmp_path}").stdout
        assert "pip install" in make("-n", "-W", "settings.ini", target, f"VENV={tmp_path}").stdout


def test_github_runs_what_a_developer_runs():
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["steps"]
    assert [s["run"] for s in steps if "run" in s] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK) and "\nmake test" in (ROOT / ".ci/run").read_text()


def test_hooks_are_the_checks():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [h["id"] for h in hooks] == ["nbdev_clean", "nbdev_export", "ruff"]


MEASURED = ROOT / "data/measured"


@pytest.mark.skipif(not (MEASURED / "das2020_table5_mnist_metric_sweep.csv").is_file(), reason="nothing measured is committed yet")
def test_the_readme_quotes_the_measured_tables():
    "Numbers in the table of the README are those of data/measured, rounded."
    import pandas as pd
    from creative_nb.das2020.study import sweep_table
    from creative_nb.published import compare, published, rank_correlation
    losses = pd.read_csv(MEASURED / "das2020_table3_vae_losses.csv").set_index("dataset")
    facts = pd.read_csv(MEASURED / "das2020_facts.csv").set_index(["dataset", "fact"]).value
    judged = pd.read_csv(MEASURED / "das2020_recon_distance.csv").set_index(["dataset", "method"]).recon_distance
    rows = {k: [] for k in ("losses", "dead", "off", "low-active", "deviation", "rank")}
    for d in ("mnist", "fmnist", "combined"):
        sweep, printed = pd.read_csv(MEASURED / f"{sweep_table(d)}.csv"), published(sweep_table(d))
        rows["losses"].append(f"{losses.nll[d] / (1000 if d == 'combined' else 1):.1f} + {losses.kl[d]:.1f}")
        rows["dead"].append(f"{facts[d, 'dead_neurons_layer3']:.0f}")
        rows["off"].append(f"{facts[d, 'off_neurons_mean']:.0f} ± {facts[d, 'off_neurons_std']:.0f}")
        rows["low-active"].append(f"{judged[d, 'low_active']:.2f}")
        rows["deviation"].append(f"{compare(sweep, printed).deviation.median():.1f} %")
        ranks = rank_correlation(sweep, printed).spearman
        rows["rank"].append(f"{ranks[5]:.2f} ({ranks.min():.2f})")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for quoted in rows.values(): assert " | ".join(quoted) in text
    for d in ("mnist", "fmnist"): assert f"{100 * facts[d, 'classifier_test_accuracy']:.2f} %" in text


def test_papermill_can_read_the_commands_of_the_readme():
    "Its -p passes words and numbers; a list or a dictionary needs -y."
    rows = re.findall(r"^\| \[\w+\]\(nbs/(das2020/\w+)\.ipynb\) \|.*\| (.*`.*) \|.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) > 5
    for notebook, command in rows:
        given, trees = re.findall(r"-p (\w+) (\S+)", command), [yaml.safe_load(y) for y in re.findall(r'-y "([^"]*)"', command)]
        assert not [value for _, value in given if value[0] in "\"[{"], notebook
        assert {name for name, _ in given} | {k for tree in trees for k in tree} <= set(pipeline.known_parameters(pipeline.source(notebook)))
