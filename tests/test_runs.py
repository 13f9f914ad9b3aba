"The pipeline on a small checkout with tiny notebooks: strictness, failures, kills, reruns by content, release."
import io, json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import matplotlib.figure, nbformat, numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from creative_nb import execute as executing, pipeline, release, runs
from creative_nb.runs import save_table, small_png

ROOT = Path(__file__).resolve().parents[1]
EACH = """paper: str = 'small'
setting: str = 'digits'
scale: str = 'quick'
seed: int = 0
labels: str = ''
change: dict = {}"""
WHOLE = "paper: str = 'small'\nsettings: list = []\nscale: str = 'quick'"
SAVE = """
import os
from pathlib import Path
# save_table
for path in (Path("runs", scale, paper, setting, "tables", f"neurons.{end}").absolute() for end in ("csv", "json")):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"n\\n{number}\\n")
    print(path, file=open(os.environ["CREATIVE_NB_RECORD"], "a"))
print("measured", setting, number)"""
PAPER = """title: A small paper
settings: {digits: {}, mnist: {}}
notebooks:
  01_vae_losses: {}
  02_neurons: {after: [01_vae_losses]}
  99_report: {after: all, per: paper}
scales:
  smoke: %s
"""
SMOKE = "{settings: [digits], notebooks: {01_vae_losses: {seed: 3}}}"


def write_notebook(root: Path, name: str, *cells: str, parameters: str = EACH, prose: str = "# Title") -> Path:
    nb = new_notebook(cells=[new_markdown_cell(prose), *map(new_code_cell, (parameters, *cells))])
    nb.cells[1].metadata["tags"] = ["parameters"]
    path = root / "nbs" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


def declare(root: Path, smoke: str = SMOKE, paper: str = "small"):
    (root / "nbs" / paper / "paper.yaml").write_text(PAPER % smoke)


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    "A checkout with the real pipeline and three tiny notebooks; only 02 imports the module `extra`."
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "creative_nb", root / "creative_nb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "Snakefile"): shutil.copy(ROOT / name, root)
    (root / "creative_nb" / "extra.py").write_text("number = 1\n")
    write_notebook(root, "small/01_vae_losses", "print('seed', seed)")
    write_notebook(root, "small/02_neurons", "from creative_nb.extra import number\nprint('number', number)")
    write_notebook(root, "small/99_report", "print(settings)", parameters=WHOLE)
    declare(root)
    monkeypatch.chdir(root)
    return root


def command(*args: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "creative_nb.pipeline", *args], capture_output=True, text=True,
                          **kwargs)


def run_smoke(settings: str = "digits", *options: str):
    pipeline.run("smoke", "small", settings, ("--cores", "1", *options))


def printed(path: Path) -> str:
    return "".join(o.text for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])
                   if o.get("name") == "stdout")


def stale(settings=("digits",)) -> list[str]:
    "Names of the notebooks that would run again."
    return sorted(Path(p).stem for p in release.outdated(pipeline.selection("smoke", "small", list(settings))))


# Tables and figures

@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(allow_nan=True, allow_infinity=True, width=64)))
def test_tables_keep_every_bit(tmp_path_factory, values):
    path = runs.save_table(pd.DataFrame({"x": values}), tmp_path_factory.mktemp("table") / "t.csv", {})
    back = runs.read_table(path).x.to_numpy(np.float64)
    assert np.array_equal(back, values, equal_nan=True) and np.array_equal(
        np.signbit(back[values == 0]), np.signbit(values[values == 0])
    )


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
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG" and json.loads((tmp_path / "f.json").read_text()) == {
        "seed": 1
    }
    with pytest.raises(ValueError, match=r"\.png"): runs.save_figure(fig, tmp_path / "f.pdf", {})


def test_commit(tmp_path, monkeypatch):
    "Outside git it is unknown, also inside a folder that lies in somebody else's repository; a change makes it dirty."
    git = lambda *args: subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=tmp_path,
                                       check=True, capture_output=True)
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

@pytest.mark.parametrize("smoke, message", [
    ("{settings: [cifar]}", "cifar"),
    ("{setings: [digits]}", "setings"),
    ("{settings: [digits], notebooks: {77_missing: {seed: 1}}}", "77_missing"),
    ("{settings: [digits], notebooks: {01_vae_losses: {sede: 1}}}", "sede"),
    ("{settings: [digits], notebooks: {01_vae_losses: {scale: paper}}}", "set by the pipeline"),
    ("{settings: [digits], by_setting: {cifar: {}}}", "cifar"),
    ("{settings: [digits], by_setting: {digits: {notebooks: {01_vae_losses: {sede: 1}}}}}", "sede"),
    ("{settings: [digits], notebooks: {99_report: {seed: 1}}}", "seed"),
    ("{settings: [digits}", "not valid YAML"),
])
def test_a_wrong_declaration_stops_before_anything_runs(checkout, smoke, message):
    declare(checkout, smoke)
    with pytest.raises(ValueError, match=message): pipeline.run("smoke")
    assert not list(checkout.glob("runs/**/*.ipynb"))


def test_snakemake_itself_refuses_a_wrong_declaration(checkout):
    declare(checkout, "{settings: [digits], notebooks: {01_vae_losses: {sede: 1}}}")
    run = json.dumps({"scale": "smoke"})
    done = subprocess.run([sys.executable, "-m", "snakemake", "--cores", "1", "--config", f"run={run}"],
                          capture_output=True, text=True)
    assert done.returncode == 1 and "sede" in done.stderr and not (checkout / "runs").exists()


@pytest.mark.parametrize("args", [("huge",), ("smoke", "--settings", "digits cifar"), ("smoke", "--paper", "large"),
                                  ("smoke", "--only", "77")])
def test_unknown_names(checkout, args):
    done = command("run", *args)
    assert (done.returncode == 1 and done.stderr.startswith("error: ") and "expected" in done.stderr
            and "Traceback" not in done.stderr)
    assert not (checkout / "runs" / "huge").exists()


def test_an_unknown_parameter_is_an_error(checkout):
    done = command("execute", "nbs/small/01_vae_losses.ipynb", "out.ipynb", "--parameters", '{"sede": 1}')
    assert (done.returncode == 1 and "sede" in done.stderr
            and "paper, setting, scale, seed, labels, change" in done.stderr)
    assert not list(checkout.glob("out*"))


def test_precedence(checkout):
    "The notebook's own parameters, then those of one setting."
    declare(
        checkout,
        "{settings: [digits], notebooks: {02_neurons: {seed: 1}}, "
        "by_setting: {mnist: {notebooks: {02_neurons: {seed: 2}}}}}",
    )
    jobs = {
        (j.notebook, j.setting): pipeline.parameters(j)
        for j in pipeline.plan("smoke", "small", "digits mnist", '{"seed": 5}')
    }
    assert [jobs["02_neurons", s]["seed"] for s in ("digits", "mnist")] == [1, 2] and "seed" not in jobs[
        "01_vae_losses", "mnist"
    ]
    assert jobs["01_vae_losses", "mnist"] == {"paper": "small", "setting": "mnist", "scale": "smoke",
                                              "change": {"seed": 5}}
    assert jobs["99_report", "all"] == {"paper": "small", "settings": ["digits", "mnist"], "scale": "smoke"}


# One notebook

def test_a_failure_is_brief_and_leaves_no_result(checkout):
    write_notebook(checkout, "bad", "print('so far so good')", "raise ArithmeticError('no such number')")
    done = command("execute", "nbs/bad.ipynb", "out/bad.ipynb")
    assert done.returncode == 1 and "ArithmeticError: no such number" in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in (checkout / "out").glob("[!.]*")] == ["bad.failed.ipynb"]
    assert printed(checkout / "out" / "bad.failed.ipynb") == "so far so good\n"


def test_a_dead_kernel_is_a_failure(checkout):
    write_notebook(checkout, "dies", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RuntimeError, match="dies failed"): executing.execute("nbs/dies.ipynb", "out/dies.ipynb")
    assert not (checkout / "out" / "dies.ipynb").exists()


def test_the_kernel_is_this_python(checkout, monkeypatch):
    "Also where a kernelspec of the same name belongs to another interpreter, and whatever kernel the notebook names."
    spec = checkout / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "other",
                                "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(checkout / "jupyter"))
    path = write_notebook(checkout, "where", "import sys, os\nprint(sys.executable)\nprint(os.getcwd())")
    nb = nbformat.read(path, 4)
    nb.metadata["kernelspec"] = {"name": "conda-other", "display_name": "other"}
    nbformat.write(nb, path)
    assert printed(executing.execute(path, "out/where.ipynb")).split() == [sys.executable, str(checkout.resolve())]


def test_progress_is_seen_live_and_tidied_afterwards(checkout):
    write_notebook(checkout, "bar", r"import sys" "\n" r"print('10%\r50%\r100%', file=sys.stderr)")
    done = command("execute", "nbs/bar.ipynb", "out/bar.ipynb")
    assert "10%\n50%\n100%" in done.stderr  # subprocess reads a carriage return as a new line
    stderr = [o.text for c in nbformat.read("out/bar.ipynb", 4).cells for o in c.get("outputs", [])
              if o.get("name") == "stderr"]
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
        write_notebook(checkout, "small/02_neurons", "from creative_nb.extra import number" + SAVE)
        run_smoke("digits, mnist")
        shutil.copytree(checkout, finished_run)
    shutil.rmtree(checkout)
    shutil.copytree(finished_run, checkout)
    os.chdir(checkout)
    return checkout


BOTH = ("digits", "mnist")
RUNS = "runs/smoke/small"


def test_a_run_leaves_results_and_runs_once(finished):
    assert printed(finished / RUNS / "digits/01_vae_losses.ipynb") == "seed 3\n"
    assert printed(finished / RUNS / "mnist/02_neurons.ipynb") == "measured mnist 1\n"
    assert printed(finished / RUNS / "all/99_report.ipynb") == "['digits', 'mnist']\n"
    assert [p.name for p in pipeline.written(f"{RUNS}/mnist/02_neurons.ipynb")] == ["neurons.csv", "neurons.json"]
    assert stale(BOTH) == []
    done = command("run", "smoke", "--settings", "digits,mnist")
    assert done.returncode == 0 and "5 notebooks" in done.stdout and RUNS in done.stdout


def test_touching_reruns_nothing(finished):
    for path in [*finished.glob("nbs/**/*"), *finished.glob("creative_nb/*.py"), finished / "Snakefile",
                 *finished.glob(f"{RUNS}/*/01*")]:
        path.touch()
    assert stale(BOTH) == []


def test_prose_reruns_nothing(finished):
    nb = nbformat.read("nbs/small/01_vae_losses.ipynb", 4)
    nb.cells[0].source = "# Another title"
    nbformat.write(nb, "nbs/small/01_vae_losses.ipynb")
    (finished / "creative_nb" / "extra.py").write_text("'Documented.'\nnumber = 1  # one\n")
    assert stale(BOTH) == []


def test_another_papers_tables_rerun_nothing(finished):
    path = finished / "data/published/other/table1.csv"
    path.parent.mkdir(parents=True)
    path.write_text("dataset,total\nmnist,1\n")
    assert stale(BOTH) == []


def test_two_papers_may_have_notebooks_of_one_name(finished):
    for name, parameters in (("01_vae_losses", EACH), ("02_neurons", EACH), ("99_report", WHOLE)):
        write_notebook(finished, f"second/{name}", "print(paper)", parameters=parameters)
    declare(finished, SMOKE, "second")
    pipeline.run("smoke", options=("--cores", "1"))
    assert printed(finished / "runs/smoke/second/digits/01_vae_losses.ipynb") == "second\n"
    assert printed(finished / RUNS / "digits/01_vae_losses.ipynb") == "seed 3\n"


def test_a_changed_module_reruns_its_dependents_only(finished):
    (finished / "creative_nb" / "extra.py").write_text("number = 2\n")
    assert stale(("digits",)) == ["02_neurons", "99_report"] and stale(BOTH) == ["02_neurons"] * 2 + ["99_report"]
    before = {p: p.stat().st_mtime_ns for p in finished.glob(f"{RUNS}/*/*.ipynb")}
    run_smoke("digits mnist")
    ran = sorted(str(p.relative_to(finished / RUNS)) for p, t in before.items() if p.stat().st_mtime_ns != t)
    assert ran == ["all/99_report.ipynb", "digits/02_neurons.ipynb", "mnist/02_neurons.ipynb"]
    assert runs.read_table(f"{RUNS}/mnist/tables/neurons.csv").n.tolist() == [2] and stale(BOTH) == []


def test_an_indirect_import_counts(finished):
    (finished / "creative_nb" / "extra.py").write_text("from .deeper import number\n")
    (finished / "creative_nb" / "deeper.py").write_text("number = 1\n")
    before = executing.code_hash("nbs/small/02_neurons.ipynb")
    assert "creative_nb.deeper" in executing.modules("nbs/small/02_neurons.ipynb")
    (finished / "creative_nb" / "deeper.py").write_text("number = 2\n")
    assert executing.code_hash("nbs/small/02_neurons.ipynb") != before


def test_a_changed_notebook_parameter_or_setting_reruns_it_and_what_follows(finished):
    write_notebook(finished, "small/99_report", "print(len(settings))", parameters=WHOLE)
    assert stale(BOTH) == ["99_report"]
    declare(finished, "{settings: [digits], notebooks: {01_vae_losses: {seed: 3}, 02_neurons: {seed: 4}}}")
    assert stale(BOTH) == ["02_neurons", "02_neurons", "99_report"]
    declare(
        finished,
        "{settings: [digits], notebooks: {01_vae_losses: {seed: 3}}, "
        "by_setting: {mnist: {networks: {vae: {epochs: 2}}}}}",
    )
    assert stale(BOTH) == ["01_vae_losses", "02_neurons", "99_report"]


def test_a_lost_table_is_made_again(finished):
    (finished / RUNS / "mnist/tables/neurons.csv").unlink()
    before = (finished / RUNS / "digits/02_neurons.ipynb").stat().st_mtime_ns
    run_smoke("digits mnist")
    assert (finished / RUNS / "mnist/tables/neurons.csv").is_file()
    assert (finished / RUNS / "digits/02_neurons.ipynb").stat().st_mtime_ns == before


def test_a_given_file_is_an_input(checkout):
    declare(checkout, "{settings: [digits], notebooks: {01_vae_losses: {labels: labels.csv}}}")
    with pytest.raises(ValueError, match="no such file"): run_smoke()
    (checkout / "labels.csv").write_text("")
    assert pipeline.inputs(pipeline.plan("smoke", "small")[0]) == ["labels.csv"]


def test_a_failed_notebook_stays_out_and_the_rest_is_done(checkout, capfd):
    write_notebook(checkout, "small/02_neurons", "1 / 0")
    with pytest.raises(RuntimeError, match="same command resumes"): run_smoke()
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert sorted(p.name for p in (checkout / RUNS / "digits").glob("*.ipynb")) == [
        "01_vae_losses.ipynb",
        "02_neurons.failed.ipynb",
    ]
    write_notebook(checkout, "small/02_neurons", "print('mended')")
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
    write_notebook(checkout, "small/02_neurons", slow + "while not Path('go').exists(): time.sleep(0.1)\nprint('done')")
    process = subprocess.Popen([sys.executable, "-m", "creative_nb.pipeline", "run", "smoke", "--cores", "1"],
                               start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: Path("pid").exists() and Path("pid").read_text())
    with pytest.raises(RuntimeError, match="another process"): pipeline.run("smoke")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = checkout / RUNS / "digits/01_vae_losses.ipynb"
    assert not (checkout / RUNS / "digits/02_neurons.ipynb").exists()
    before = first.stat().st_mtime_ns
    wait_for(lambda: not is_running(int(Path("pid").read_text())))
    Path("go").touch()
    run_smoke()
    assert first.stat().st_mtime_ns == before and stale() == []
    assert sorted(p.name for p in first.parent.glob("[0-9]*.ipynb")
                  if "partial" not in p.name) == ["01_vae_losses.ipynb", "02_neurons.ipynb"]


# Release

def released(root: Path) -> list[Path]:
    return [p for part in ("data", "figures") for p in (root / part).rglob("*") if p.is_file()]


@pytest.mark.parametrize("damage, message", [
    (lambda root: (root / RUNS / "all/99_report.ipynb").unlink(), f"missing: {RUNS}/all/99_report.ipynb"),
    (lambda root: (root / RUNS / "mnist/tables/neurons.csv").unlink(), "neurons.csv"),
    (lambda root: (root / RUNS / "digits/02_neurons.failed.ipynb").write_text("{}"), "failed: "),
    (lambda root: (root / "creative_nb/extra.py").write_text("number = 2"),
     f"out of date: {RUNS}/digits/02_neurons.ipynb"),
])
def test_an_unfinished_run_is_not_released(finished, damage, message):
    damage(finished)
    with pytest.raises(RuntimeError, match=message): release.release("smoke", "small", BOTH)
    assert released(finished) == []


def test_release(finished):
    """Tables and executed notebooks go to their shelves;
    the first setting's outputs into the notebooks, with the parameters they ran with."""
    (finished / RUNS / "mnist/tables/left_over.csv").write_text("of an older notebook")
    notebook = finished / "nbs/small/02_neurons.ipynb"
    sources = [c.source for c in nbformat.read(notebook, 4).cells]
    done = command("release", "smoke", "--paper", "small", "--settings", "digits mnist")
    assert done.returncode == 0, done.stderr
    names = [f"{d}/neurons.{e}" for d in BOTH for e in ("csv", "json")] + [
        "mnist/01_vae_losses.ipynb",
        "mnist/02_neurons.ipynb",
    ]
    assert sorted(str(p.relative_to(finished / "data/measured/small")) for p in released(finished)) == sorted(names)
    nb = nbformat.read(notebook, 4)
    injected = [c for c in nb.cells if release.INJECTED in c.metadata.get("tags", [])]
    assert [c.source for c in nb.cells if c not in injected] == sources and printed(notebook) == "measured digits 1\n"
    assert len(injected) == 1 and 'setting = "digits"' in injected[0].source and stale(BOTH) == []
    assert printed(finished / "data/measured/small/mnist/02_neurons.ipynb") == "measured mnist 1\n"


def test_error_streams_are_not_released(checkout):
    path = write_notebook(checkout, "noisy", "import sys\nprint('result')\nprint('noise', file=sys.stderr)\n1 + 1")
    release.copy_outputs(executing.execute(path, "out/noisy.ipynb", {"seed": 5}), path)
    outputs = nbformat.read(path, 4).cells[-1].outputs
    assert [o.get("text") or o.data["text/plain"] for o in outputs] == ["result\n", "2"]
    assert "seed: int = 0" in nbformat.read(path, 4).cells[1].source


def test_a_damaged_result_is_made_again(finished):
    path = finished / RUNS / "digits/01_vae_losses.ipynb"
    path.write_text(path.read_text()[:300])
    run_smoke("digits mnist")
    assert printed(path) == "seed 3\n"


# Where is it?

def test_where(checkout):
    index = "index:\n  Table 1: {notebook: 01_vae_losses, printed: table1, result: losses}\n"
    (checkout / "nbs/small/paper.yaml").write_text(PAPER % SMOKE + index)
    for path, value in (("data/published/small/table1.csv", "1.5"), ("data/measured/small/mnist/losses.csv", "1.25")):
        (checkout / path).parent.mkdir(parents=True)
        (checkout / path).write_text(f"dataset,total\nmnist,{value}\n")
    done = command("where", "small", "Table 1", "mnist", "total")
    assert done.returncode == 0, done.stderr
    for part in ("printed value: 1.5", "measured value, mnist: 1.25", "nbs/small/01_vae_losses.ipynb",
                 "data/measured/small/mnist/losses.csv"):
        assert part in done.stdout
    for wrong in (("Table 2",), ("Table 1", "mnist", "totl"), ("Table 1", "minst", "total")):
        done = command("where", "small", *wrong)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "expected" in done.stderr


# ---- pictures ----

def as_png(pixels: np.ndarray) -> bytes:
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    return picture.getvalue()


def test_close_colours_stay_apart():
    "Eleven lines whose colours differ by a few levels, beside a gradient of many more colours."
    colours = np.array([[200 + k, 40 + 2 * k, 90 - 3 * k] for k in range(11)], np.uint8)
    level = np.arange(256, dtype=np.uint8)
    gradient = np.stack(np.broadcast_arrays(level[:, None], level[None], level[::-1, None]), -1)
    pixels = np.concatenate([gradient, np.repeat(colours, 24, 0)[:256, None].repeat(8, 1)], 1)
    again = np.asarray(Image.open(io.BytesIO(small_png(as_png(pixels)))).convert("RGB"), int)
    assert np.abs(again - pixels).max() <= 8


def test_few_colours_are_kept_as_they_are():
    pixels = np.random.default_rng(0).integers(256, size=(200, 3), dtype=np.uint8)[:, None].repeat(30, 1)
    small = small_png(as_png(pixels))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(small)).convert("RGB")), pixels)


def test_a_table_is_saved_as_csv_only(tmp_path):
    with pytest.raises(ValueError, match="path=.*losses.txt': expected a name that ends in .csv"):
        save_table(pd.DataFrame({"a": [1]}), tmp_path / "losses.txt", {})


@pytest.mark.parametrize("call, message", [
    (lambda p: save_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), p / "t.csv", {}), "'a' occurs twice"),
    (lambda p: save_table(pd.DataFrame(), p / "t.json", {}), "ends in .csv"),
    (lambda p: save_table(pd.DataFrame(), p / "v1.5", {}), "ends in .csv"),
    (lambda p: save_table([1], p / "t.csv", {}), "df=.*expected a DataFrame"),
    (lambda p: save_table(pd.DataFrame(), p / "t.csv", None), "provenance=None: expected a dict"),
    (lambda p: runs.save_figure(None, p / "f.png", {}), "fig=None: expected a figure"),
    (lambda p: runs.save_figure(matplotlib.figure.Figure(), p / "f.png", {}, dpi=0), "dpi=0: expected"),
    (lambda p: small_png(b"junk"), "picture=b'junk': expected a PNG"),
    (lambda p: runs.device_in_words("gpu"), "device='gpu': expected"),
    (lambda p: runs.read_table(p / "none.csv"), "none.csv.*expected a table"),
    (lambda p: runs.provenance(scale="quick", paper="p", setting="s", dataset="d", data_hash="h", seed=0, device="cpu",
                               started="a"), "started='a': expected"),
    (lambda p: runs.provenance(scale="quick", paper="p", setting="s", dataset="d", data_hash="h", seed=-1,
                               device="cpu"), "seed=-1: expected")])
def test_bad_arguments_are_named(tmp_path, call, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message): call(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n1,2,3\n", b"\xff\xfe\x00\x01", b"\x89PNG\r\n\x1a\n\x00"])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match="t.csv.*expected a CSV"): runs.read_table(tmp_path / "t.csv")


def test_names_that_look_like_numbers_stay_names(tmp_path):
    table = pd.DataFrame({"dataset": ["2024"], "method": ["1e3"], "item": ["001"], "label": ["True"], "n": [7]}
                         | {name: ["007"] for name in ("baseline", "against", "model", "network", "metric", "column")})
    back = runs.read_table(save_table(table, tmp_path / "t.csv", {}))
    assert back.iloc[0].tolist() == ["2024", "1e3", "001", "True", 7, *["007"] * 6]


@pytest.mark.skipif(os.name != "posix", reason="owners of files")
def test_the_commit_of_another_users_checkout(tmp_path, monkeypatch):
    "As in a container; where git cannot say, the user is told once."
    git = lambda *args: subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=tmp_path,
                                       check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "settings.ini").write_text("")
    git("init"), git("add", "."), git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert runs.git_commit() == commit
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(UserWarning, match="commit of this checkout is unknown"): assert runs.git_commit() == "unknown"


# What is refused before anything runs

def declared(root: Path, text: str):
    (root / "nbs/small/paper.yaml").write_text(text)


@pytest.mark.parametrize("old, new", [
    ("", "[1, 2]"), ("", "7"), ("", "text"), ("", ""), ("", "title: [1\n"), ("", "title:\n\tseed: 1"),
    ("", "title: !!python/object/apply:os.system ['true']"),
    ("settings: {digits: {}, mnist: {}}", "settings: [digits]"),
    ("settings: {digits: {}, mnist: {}}", "settings: {digits: 5}"), ("  smoke: %s", "  smoke: {settings: digits}"),
    ("  smoke: %s", "  smoke: {}"), ("  smoke: %s", "  smoke:"), ("  smoke: %s", "  smoke: {settings: null}"),
    ("  smoke: %s", "  smoke: [digits]"), ("after: all", "after: 5"), ("after: all", "after: [later]"),
    ("  01_vae_losses: {}", "  01_vae_losses: 5"), ("title: A small paper", "title: 5"),
    ("title: A small paper", "defaults: {seed: -1}"), ("title: A small paper", "defaults: {seed: 1.5}"),
    ("title: A small paper", "defaults: {vae: {epochs: many}}"),
    ("title: A small paper", "defaults: {vae: {epochs: 0}}"),
    ("title: A small paper", "defaults: {vae: {file: 5}}"), ("title: A small paper", "defaults: {vae: {file: none}}"),
    ("title: A small paper", "defaults: {vae: {model: VAE, hidden: ab}}"),
    ("title: A small paper", "defaults: {vae: {model: VAE, hiden: [2]}}"),
    ("title: A small paper", "defaults: {vae: {model: Nothing}}"), ("title: A small paper", "defaults: {vae: [1]}"),
    ("title: A small paper", "defaults: {device: gpu}"), ("title: A small paper", "index: {Table 1: {notebook: 7}}")])
def test_a_wrong_file_is_named_with_what_is_expected(checkout, old, new):
    declared(checkout, (PAPER if old else "").replace(old, new).replace("%s", SMOKE) if old else new)
    with pytest.raises((ValueError, FileNotFoundError), match="(small|scale).*expected|not valid YAML"):
        pipeline.run("smoke")
    assert not (checkout / "runs").exists()


@pytest.mark.parametrize("smoke", ["{settings: [digits], by_setting: null}", "{settings: [digits], networks: null}",
                                   "{settings: [digits], by_setting: {digits: null}}",
                                   "{settings: [digits], notebooks: {01_vae_losses: null}}"])
def test_an_empty_section_is_as_none(checkout, smoke):
    declare(checkout, smoke)
    assert len(pipeline.plan("smoke")) == 3


def test_a_setting_may_be_called_2024(checkout):
    declared(checkout, (PAPER % "{settings: [2024]}").replace("mnist: {}", "2024: {dataset: digits}"))
    assert [j.setting for j in pipeline.plan("smoke")] == ["2024", "2024", "all"]


@pytest.mark.parametrize("args, message", [
    (("smoke", "quick"), "quick is no option"), (("smoke", "--cores", "0"), "one core or more"),
    (("smoke", "-c0"), "one core or more"), (("smoke", "--cores", "many"), "options: expected"),
    (("smoke", "--no-such-option"), "no-such-option"), (("smoke quick",), "expected some of"),
    (("smoke", "-n", "--settings", "folder"), "ROOT=pictures SIZE=28x28"), (("smoke", "--size", "8x"), "size='8x'"),
    (("smoke", "--size", "8"), "images of its own size"), (("smoke", "--change", "{"), "expected JSON"),
    (("smoke", "--change", "[1]"), "expected JSON"), (("smoke", "--change", '{"seed": "a"}'), "seed='a': expected")])
def test_a_wrong_command_is_refused(checkout, capsys, args, message):
    with pytest.raises(SystemExit) as e: pipeline.main(["run", *args])
    said = f"{e.value} {capsys.readouterr().err}"
    assert message in said and "Traceback" not in said and not (checkout / "runs").exists()


@pytest.mark.parametrize("size, expected", [("28", [28, 28]), ("28x20", [28, 20])])
def test_a_folder_of_images_has_a_place_and_a_size(checkout, size, expected):
    change = json.loads(pipeline.changed("", "pictures", size))
    assert change == {"root": str(checkout / "pictures"), "size": expected}
    jobs = pipeline.plan("smoke", settings="folder", change=json.dumps(change))
    assert pipeline.parameters(jobs[0])["change"] == change


def test_other_pictures_in_the_same_folder_are_another_run(checkout):
    (checkout / "pictures").mkdir()
    plan = lambda: [pipeline.decides(j) for j in pipeline.plan("smoke", settings="folder", change=change)]
    change = pipeline.changed("", "pictures", "28")
    none = plan()
    (checkout / "pictures" / "a.png").write_bytes(b"picture")
    one = plan()
    (checkout / "pictures" / "lost.png").symlink_to("nowhere")
    assert none[0] != one[0] != plan()[0] and plan() == plan()


@pytest.mark.parametrize("name, content", [("README.md", "# Read me"), ("list.ipynb", "[1]"), ("empty.ipynb", "{}")])
def test_a_file_that_is_no_notebook_is_named(checkout, name, content):
    (checkout / name).write_text(content)
    done = command("execute", name, "out.ipynb")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and name in done.stderr
    assert "Traceback" not in done.stderr and not (checkout / "out.ipynb").exists()


# The machine it runs on

def test_results_dated_in_the_future_are_no_trap(finished):
    "The clock was set back: what was changed runs again, and nothing that was made is deleted."
    later = time.time() + 2 * 86400
    for path in finished.glob("runs/smoke/small/*/*.ipynb"): os.utime(path, (later, later))
    write_notebook(finished, "small/02_neurons", "from creative_nb.extra import number\nnumber = number + 4" + SAVE)
    run_smoke("digits mnist")
    assert printed(finished / RUNS / "digits/02_neurons.ipynb") == "measured digits 5\n" and stale(BOTH) == []


def test_an_input_dated_in_the_future_is_named(checkout):
    declare(checkout, "{settings: [digits], notebooks: {01_vae_losses: {labels: labels.csv}}}")
    (checkout / "labels.csv").write_text("")
    os.utime(checkout / "labels.csv", (time.time() + 9000,) * 2)
    with pytest.raises(ValueError, match="labels.csv is dated .* in the future.*touch"): run_smoke()


def test_a_home_that_cannot_be_written(checkout):
    done = command("run", "smoke", "--cores", "1", env=os.environ | {"HOME": "/dev/null", "XDG_CACHE_HOME": ""})
    assert done.returncode == 0, done.stderr
    assert not (checkout / "runs/smoke/.tmp").exists()


def test_nobodys_profile_reaches_a_kernel(checkout):
    "Startup files of IPython and of Python, and a style of Matplotlib."
    startup = checkout / "ipython/profile_default/startup/00.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("leaked = 1\n")
    (startup.parents[1] / "ipython_kernel_config.py").write_text("c.IPKernelApp.exec_lines = ['also = 1']\n")
    (checkout / "start.py").write_text("leaked_too = 1\n")
    (checkout / "style").mkdir()
    (checkout / "style" / "matplotlibrc").write_text("lines.linewidth: 17\n")
    write_notebook(checkout, "look", "from matplotlib import rcParams\nnames = {'leaked', 'also', 'leaked_too'}\n"
                   "print(names & set(globals()), rcParams['lines.linewidth'])")
    own = {"IPYTHONDIR": str(checkout / "ipython"), "PYTHONSTARTUP": str(checkout / "start.py"),
           "MPLCONFIGDIR": str(checkout / "style")}
    done = command("execute", "nbs/look.ipynb", "out/look.ipynb", env=os.environ | own)
    assert done.returncode == 0, done.stderr
    assert printed(checkout / "out/look.ipynb") == "set() 1.5\n"


def test_papermill_alone_refuses_an_unknown_parameter(checkout):
    write_notebook(checkout, "small/01_vae_losses", "from creative_nb.experiment import Run\n"
                   "Run(paper, setting, scale)")
    write_notebook(checkout, "small/02_neurons", "from creative_nb.claims import Evidence\n"
                   "Evidence(paper, [setting], scale)")
    for name, option, problem in (("01_vae_losses", "seting", "seting"), ("02_neurons", "dataste", "dataste")):
        done = subprocess.run([sys.executable, "-m", "papermill", f"nbs/small/{name}.ipynb", "o.ipynb", "-k", "python3",
                               "--language", "python", "-p", option, "mnist"], capture_output=True, text=True)
        assert done.returncode and f"parameters: unknown {problem}; expected some of paper, setting" in done.stderr


def test_what_killed_runs_left_is_gone_after_the_next(checkout):
    for name in (".tmp/tmpabc/x", "small/digits/01_vae_losses.77.partial.ipynb"):
        path = checkout / "runs/smoke" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    run_smoke()
    left = sorted(p.name for p in (checkout / "runs").rglob("*") if p.is_file())
    assert left == [".lock", "01_vae_losses.ipynb", "02_neurons.ipynb", "99_report.ipynb", "summary.html"]


def test_an_interrupt_is_no_traceback(checkout, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "_snakemake", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit) as e: pipeline.main(["run", "smoke"])
    assert e.value.code == 130 and capsys.readouterr().err == "stopped; the same command resumes it\n"


def test_a_missing_result_is_a_failure_whatever_snakemake_says(checkout, monkeypatch):
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(pipeline, "_snakemake", lambda *a, **k: done)
    with pytest.raises(RuntimeError, match="missing: runs/smoke/small/all/99_report.ipynb"): pipeline.run("smoke")
