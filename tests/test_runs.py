"The pipeline on a made-up checkout with tiny notebooks: strictness, failures, kills, reruns by content, publishing."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import matplotlib.figure, nbformat, numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from creative_nb import pipeline, runs

ROOT = Path(__file__).resolve().parents[1]
EACH = "dataset = 'digits'\nseed = 0\nscale = 'quick'\nout = 'runs/quick'\nvae_file = ''\ndevice = 'auto'"
SAVE = """
import os
from pathlib import Path
for path in (Path(out, "tables", f"neurons_{dataset}.{end}").absolute() for end in ("csv", "json")):  # save_table, without importing PyTorch
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"n\\n{number}\\n")
    print(path, file=open(os.environ["CREATIVE_NB_RECORD"], "a"))
print("measured", dataset, number)"""


def write_notebook(root: Path, name: str, *cells: str, parameters: str = EACH, prose: str = "# Title") -> Path:
    nb = new_notebook(cells=[new_markdown_cell(prose), *map(new_code_cell, (parameters, *cells))])
    nb.cells[1].metadata["tags"] = ["parameters"]
    path = root / "nbs" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    "A checkout with the real pipeline and three tiny notebooks; only 02 imports the module `extra`."
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "creative_nb", root / "creative_nb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "Snakefile"): shutil.copy(ROOT / name, root)
    (root / "creative_nb" / "extra.py").write_text("number = 1\n")
    (root / "config").mkdir()
    (root / "config" / "smoke.yaml").write_text("datasets: [digits]\ncommon: {seed: 3}\n")
    write_notebook(root, "das2020/01_vae_losses", "print('seed', seed)")
    write_notebook(root, "das2020/02_neurons", "from creative_nb.extra import number\nprint('number', number)")
    write_notebook(root, "das2020/99_report", "print(datasets)", parameters="datasets = ['digits']\nscale = 'quick'\nout = 'runs/quick'")
    monkeypatch.chdir(root)
    return root


def command(*args: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "creative_nb.pipeline", *args], capture_output=True, text=True, **kwargs)


def run_smoke(datasets: str = "digits", *options: str): pipeline.run("smoke", datasets, ("--cores", "1", *options))


def printed(path: Path) -> str:
    return "".join(o.text for c in nbformat.read(path, 4).cells for o in c.get("outputs", []) if o.get("name") == "stdout")


def stale(datasets=("digits",)) -> list[str]:
    "Names of the notebooks that would run again."
    return sorted(Path(p).stem.split("-")[0] for p in pipeline._outdated("smoke", list(datasets)))


# Tables and figures

@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(allow_nan=True, allow_infinity=True, width=64)))
def test_tables_keep_every_bit(tmp_path_factory, values):
    path = runs.save_table(pd.DataFrame({"x": values}), tmp_path_factory.mktemp("table") / "t.csv", {})
    back = runs.read_table(path).x.to_numpy(np.float64)
    assert np.array_equal(back, values, equal_nan=True) and np.array_equal(np.signbit(back[values == 0]), np.signbit(values[values == 0]))


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    path = runs.save_table(pd.DataFrame({"x": [1.0]}), tmp_path / "t.csv", {})

    def half(self, target, **_):
        Path(target).write_text("x\n")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(OSError, match="disk full"): runs.save_table(pd.DataFrame({"x": [2.0]}), path, {})
    assert path.read_text() == "x\n1.0\n" and sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.json"]


def test_figures_are_png(tmp_path):
    fig = matplotlib.figure.Figure(figsize=(2, 1))
    runs.save_figure(fig, tmp_path / "f.png", {"seed": 1})
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG" and json.loads((tmp_path / "f.json").read_text()) == {"seed": 1}
    with pytest.raises(ValueError, match=r"\.png"): runs.save_figure(fig, tmp_path / "f.pdf", {})


def test_commit(tmp_path, monkeypatch):
    "Outside git it is unknown, also inside a folder that lies in somebody else's repository; a change makes it dirty."
    git = lambda *args: subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=tmp_path, check=True, capture_output=True)
    inner = tmp_path / "inner"
    inner.mkdir()
    for folder in (tmp_path, inner): (folder / "settings.ini").write_text("")
    monkeypatch.chdir(tmp_path)
    assert runs.git_commit() == "unknown"
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert len(runs.git_commit()) == 40
    (tmp_path / "settings.ini").write_text("# changed")
    assert runs.git_commit().endswith("-dirty")
    monkeypatch.chdir(inner)
    assert runs.git_commit() == "unknown"


# Strictness

@pytest.mark.parametrize("config, message", [
    ("datasets: [cifar]", "cifar"),
    ("datasets: [digits]\nsample: 3", "sample"),
    ("datasets: [digits]\ndas2020/77_missing: {seed: 1}", "77_missing"),
    ("datasets: [digits]\ncommon: {sede: 1}", "sede"),
    ("datasets: [digits]\ncommon: {out: elsewhere}", "set by the pipeline"),
    ("datasets: [digits]\nby_dataset: {cifar: {seed: 1}}", "cifar"),
    ("datasets: [digits]\nby_dataset: {mnist: {sede: 1}}", "sede"),
    ("datasets: [digits]\ndas2020/99_report: {seed: 1}", "seed"),
])
def test_a_wrong_configuration_stops_before_anything_runs(checkout, config, message):
    (checkout / "config" / "smoke.yaml").write_text(config)
    with pytest.raises(ValueError, match=message): pipeline.run("smoke")
    assert not list(checkout.glob("runs/**/*.ipynb"))


def test_snakemake_itself_refuses_a_wrong_configuration(checkout):
    (checkout / "config" / "smoke.yaml").write_text("datasets: [digits]\ncommon: {sede: 1}")
    done = subprocess.run([sys.executable, "-m", "snakemake", "--cores", "1", "--config", "scale=smoke"], capture_output=True, text=True)
    assert done.returncode == 1 and "sede" in done.stderr and not (checkout / "runs").exists()


def test_unknown_scale_and_dataset(checkout):
    for args in (("run", "huge"), ("run", "smoke", "--datasets", "digits cifar")):
        done = command(*args)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "expected" in done.stderr and "Traceback" not in done.stderr
    assert not (checkout / "runs" / "huge").exists()


def test_an_unknown_parameter_is_an_error(checkout):
    done = command("execute", "nbs/das2020/01_vae_losses.ipynb", "out.ipynb", "--parameters", '{"sede": 1}')
    assert done.returncode == 1 and "sede" in done.stderr and "dataset, seed, scale, out, vae_file, device" in done.stderr
    assert not list(checkout.glob("out*"))


def test_precedence(checkout):
    "Common, then the data set's, then the notebook's own."
    (checkout / "config" / "smoke.yaml").write_text(
        "datasets: [digits]\ncommon: {seed: 1, device: a}\nby_dataset: {mnist: {seed: 2, device: b}}\ndas2020/02_neurons: {seed: 3}")

    def seed_and_device(notebook, dataset):
        given = pipeline.parameters("smoke", notebook, dataset, ["digits", "mnist"])
        return given["seed"], given["device"]

    assert seed_and_device("das2020/01_vae_losses", "digits") == (1, "a")
    assert seed_and_device("das2020/01_vae_losses", "mnist") == (2, "b")
    assert seed_and_device("das2020/02_neurons", "mnist") == (3, "b")
    assert pipeline.parameters("smoke", "das2020/99_report", "digits", ["digits", "mnist"]) == {
        "datasets": ["digits", "mnist"], "scale": "smoke", "out": "runs/smoke"}


# One notebook

def test_a_failure_is_brief_and_leaves_no_result(checkout):
    write_notebook(checkout, "bad", "print('so far so good')", "raise ArithmeticError('no such number')")
    done = command("execute", "nbs/bad.ipynb", "out/bad.ipynb")
    assert done.returncode == 1 and "ArithmeticError: no such number" in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in (checkout / "out").iterdir()] == ["bad.failed.ipynb"]
    assert printed(checkout / "out" / "bad.failed.ipynb") == "so far so good\n"


def test_a_dead_kernel_is_a_failure(checkout):
    write_notebook(checkout, "dies", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RuntimeError, match="dies failed"): pipeline.execute("nbs/dies.ipynb", "out/dies.ipynb")
    assert not (checkout / "out" / "dies.ipynb").exists()


def test_the_kernel_is_this_python(checkout, monkeypatch):
    "Also where a kernelspec of the same name belongs to another interpreter, and whatever kernel the notebook names."
    spec = checkout / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(checkout / "jupyter"))
    path = write_notebook(checkout, "where", "import sys, os\nprint(sys.executable)\nprint(os.getcwd())")
    nb = nbformat.read(path, 4)
    nb.metadata["kernelspec"] = {"name": "conda-other", "display_name": "other"}
    nbformat.write(nb, path)
    assert printed(pipeline.execute(path, "out/where.ipynb")).split() == [sys.executable, str(checkout.resolve())]


def test_progress_is_seen_live_and_tidied_afterwards(checkout):
    write_notebook(checkout, "bar", r"import sys" "\n" r"print('10%\r50%\r100%', file=sys.stderr)")
    done = command("execute", "nbs/bar.ipynb", "out/bar.ipynb")
    assert "10%\n50%\n100%" in done.stderr  # subprocess reads a carriage return as a new line
    stderr = [o.text for c in nbformat.read("out/bar.ipynb", 4).cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert stderr == ["100%\n"]


# A run

@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    "A finished run with two data sets; copy it before changing it."
    return tmp_path_factory.mktemp("finished") / "checkout"


@pytest.fixture
def finished(checkout, finished_run) -> Path:
    "A checkout with a finished run on two data sets, made once and copied for each test."
    if not finished_run.exists():
        write_notebook(checkout, "das2020/02_neurons", "from creative_nb.extra import number" + SAVE)
        run_smoke("digits, mnist")
        shutil.copytree(checkout, finished_run)
    shutil.rmtree(checkout)
    shutil.copytree(finished_run, checkout)
    os.chdir(checkout)
    return checkout


BOTH = ("digits", "mnist")


def test_a_run_leaves_results_and_runs_once(finished):
    assert printed(finished / "runs/smoke/das2020/01_vae_losses-digits.ipynb") == "seed 3\n"
    assert printed(finished / "runs/smoke/das2020/02_neurons-mnist.ipynb") == "measured mnist 1\n"
    assert printed(finished / "runs/smoke/das2020/99_report.ipynb") == "['digits', 'mnist']\n"
    assert [p.name for p in pipeline.written("runs/smoke/das2020/02_neurons-mnist.ipynb")] == ["neurons_mnist.csv", "neurons_mnist.json"]
    assert stale(BOTH) == []
    done = command("summary", "smoke", "--datasets", "digits,mnist")
    assert done.returncode == 0 and "5 notebooks" in done.stdout and "runs/smoke/figures" in done.stdout


def test_touching_reruns_nothing(finished):
    for path in [*finished.glob("nbs/**/*.ipynb"), *finished.glob("creative_nb/*.py"), *finished.glob("config/*"), finished / "Snakefile",
                 *finished.glob("runs/smoke/das2020/01*")]: path.touch()
    assert stale(BOTH) == []


def test_prose_reruns_nothing(finished):
    nb = nbformat.read("nbs/das2020/01_vae_losses.ipynb", 4)
    nb.cells[0].source = "# Another title"
    nbformat.write(nb, "nbs/das2020/01_vae_losses.ipynb")
    (finished / "creative_nb" / "extra.py").write_text("'Documented.'\nnumber = 1  # one\n")
    assert stale(BOTH) == []


def test_a_changed_module_reruns_its_dependents_only(finished):
    (finished / "creative_nb" / "extra.py").write_text("number = 2\n")
    assert stale(("digits",)) == ["02_neurons", "99_report"] and stale(BOTH) == ["02_neurons"] * 2 + ["99_report"]
    before = {p: p.stat().st_mtime_ns for p in finished.glob("runs/smoke/das2020/*.ipynb")}
    run_smoke("digits mnist")
    ran = sorted(p.name for p, t in before.items() if p.stat().st_mtime_ns != t)
    assert ran == ["02_neurons-digits.ipynb", "02_neurons-mnist.ipynb", "99_report.ipynb"]
    assert runs.read_table("runs/smoke/tables/neurons_mnist.csv").n.tolist() == [2] and stale(BOTH) == []


def test_an_indirect_import_counts(finished):
    (finished / "creative_nb" / "extra.py").write_text("from .deeper import number\n")
    (finished / "creative_nb" / "deeper.py").write_text("number = 1\n")
    before = pipeline.code_hash("nbs/das2020/02_neurons.ipynb")
    assert "creative_nb.deeper" in pipeline.modules("nbs/das2020/02_neurons.ipynb")
    (finished / "creative_nb" / "deeper.py").write_text("number = 2\n")
    assert pipeline.code_hash("nbs/das2020/02_neurons.ipynb") != before


def test_a_changed_notebook_or_parameter_reruns_it_and_what_follows(finished):
    write_notebook(finished, "das2020/99_report", "print(len(datasets))", parameters="datasets = ['digits']\nscale = 'quick'\nout = 'runs/quick'")
    assert stale(BOTH) == ["99_report"]
    (finished / "config" / "smoke.yaml").write_text("datasets: [digits]\ncommon: {seed: 3}\ndas2020/02_neurons: {seed: 4}\n")
    assert stale(BOTH) == ["02_neurons", "02_neurons", "99_report"]


def test_a_lost_table_is_made_again(finished):
    (finished / "runs/smoke/tables/neurons_mnist.csv").unlink()
    before = (finished / "runs/smoke/das2020/02_neurons-digits.ipynb").stat().st_mtime_ns
    run_smoke("digits mnist")
    assert (finished / "runs/smoke/tables/neurons_mnist.csv").is_file()
    assert (finished / "runs/smoke/das2020/02_neurons-digits.ipynb").stat().st_mtime_ns == before


def test_a_given_checkpoint_is_an_input(checkout):
    (checkout / "config" / "smoke.yaml").write_text("datasets: [digits]\ncommon: {vae_file: vae.safetensors}")
    with pytest.raises(ValueError, match="no such file"): run_smoke()
    (checkout / "vae.safetensors").write_text("weights")
    assert pipeline.inputs("das2020/01_vae_losses", "digits", "smoke", ["digits"]) == ["vae.safetensors"]


def test_a_failed_notebook_stays_out_and_the_rest_is_done(checkout, capfd):
    write_notebook(checkout, "das2020/02_neurons", "1 / 0")
    with pytest.raises(RuntimeError, match="same command resumes"): run_smoke()
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert sorted(p.name for p in (checkout / "runs/smoke/das2020").iterdir()) == ["01_vae_losses-digits.ipynb", "02_neurons-digits.failed.ipynb"]
    write_notebook(checkout, "das2020/02_neurons", "print('mended')")
    run_smoke()
    assert not list(checkout.glob("runs/**/*.failed.ipynb")) and stale() == []


def wait_for(condition, seconds: float = 120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try: return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError: return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_the_same_command_resumes_after_a_kill(checkout):
    "Killed in the middle of the second notebook: the first is kept, no lock stays behind, and the kernel dies too."
    slow = "import os, time\nfrom pathlib import Path\nPath('pid').write_text(str(os.getpid()))\n"
    write_notebook(checkout, "das2020/02_neurons", slow + "while not Path('go').exists(): time.sleep(0.1)\nprint('done')")
    process = subprocess.Popen([sys.executable, "-m", "creative_nb.pipeline", "run", "smoke", "--cores", "1"],
                               start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: Path("pid").exists() and Path("pid").read_text())
    with pytest.raises(RuntimeError, match="another process"): pipeline.run("smoke")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = checkout / "runs/smoke/das2020/01_vae_losses-digits.ipynb"
    assert not (checkout / "runs/smoke/das2020/02_neurons-digits.ipynb").exists()
    before = first.stat().st_mtime_ns
    wait_for(lambda: not is_running(int(Path("pid").read_text())))
    Path("go").touch()
    run_smoke()
    assert first.stat().st_mtime_ns == before and stale() == []
    assert sorted(p.name for p in first.parent.iterdir()) == ["01_vae_losses-digits.ipynb", "02_neurons-digits.ipynb", "99_report.ipynb"]


# Publishing

def publishable(root: Path) -> list[Path]:
    return [p for part in ("data", "figures") for p in (root / part).rglob("*") if p.is_file()]


@pytest.mark.parametrize("damage, message", [
    (lambda root: (root / "runs/smoke/das2020/99_report.ipynb").unlink(), "missing: runs/smoke/das2020/99_report.ipynb"),
    (lambda root: (root / "runs/smoke/tables/neurons_mnist.csv").unlink(), "neurons_mnist.csv"),
    (lambda root: (root / "runs/smoke/das2020/02_neurons-digits.failed.ipynb").write_text("{}"), "failed: "),
    (lambda root: (root / "creative_nb/extra.py").write_text("number = 2"), "out of date: runs/smoke/das2020/02_neurons-digits.ipynb"),
])
def test_an_unfinished_run_is_not_published(finished, damage, message):
    damage(finished)
    with pytest.raises(RuntimeError, match=message): pipeline.publish("smoke", BOTH)
    assert publishable(finished) == []


def test_publishing(finished):
    "Tables and their provenance are copied; the first data set's outputs go into the notebooks, whose source does not change."
    (finished / "runs/smoke/tables/left_over.csv").write_text("of an older notebook")
    (finished / "runs/smoke/checkpoints").mkdir()
    (finished / "runs/smoke/checkpoints/digits_vae.safetensors").write_text("weights")
    notebook = finished / "nbs/das2020/02_neurons.ipynb"
    sources = [c.source for c in nbformat.read(notebook, 4).cells]
    done = command("publish", "smoke", "--datasets", "digits mnist")
    assert done.returncode == 0, done.stderr
    names = [f"neurons_{d}.{e}" for d in BOTH for e in ("csv", "json")]
    assert sorted(p.name for p in publishable(finished)) == sorted([*names, "digits_vae.safetensors"])
    assert (finished / "data/checkpoints/digits_vae.safetensors").is_file() and (finished / "data/measured/neurons_mnist.csv").is_file()
    nb = nbformat.read(notebook, 4)
    assert [c.source for c in nb.cells] == sources and printed(notebook) == "measured digits 1\n"
    assert nb.cells[1].metadata.tags == ["parameters"] and stale(BOTH) == []


def test_error_streams_are_not_published(checkout):
    path = write_notebook(checkout, "noisy", "import sys\nprint('result')\nprint('noise', file=sys.stderr)\n1 + 1")
    pipeline._copy_outputs(pipeline.execute(path, "out/noisy.ipynb", {"seed": 5}), path)
    outputs = nbformat.read(path, 4).cells[-1].outputs
    assert [o.get("text") or o.data["text/plain"] for o in outputs] == ["result\n", "2"]
    assert "seed = 0" in nbformat.read(path, 4).cells[1].source
