"""What survives kills, full disks and damage. Long, so only `make test-faults` collects it; KILLS and SEED: how much.

Most kills hit a small paper of sleeping notebooks, which costs seconds a run; some hit real notebooks."""
import os, shutil, signal, subprocess, sys, time
from pathlib import Path

import nbformat, pytest
from nbformat.v4 import new_code_cell, new_notebook

if "KILLS" not in os.environ: collect_ignore_glob = ["test_*.py"]

for number, usual in {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}.items():
    if signal.getsignal(number) is signal.SIG_IGN: signal.signal(number, usual)  # as under nohup, or in the background

ROOT = Path(__file__).resolve().parents[2]
PAPER = """title: Sleeping notebooks
settings: {digits: {}, mnist: {}}
notebooks:
  01_first: {}
  02_second: {after: [01_first]}
  03_aside: {}
  99_report: {after: all, per: paper}
scales: {smoke: {settings: [digits]}}
"""
SLEEP = """
import os, time
from pathlib import Path
def note(what):
    with open("log", "a") as f: f.write(f"{what} {NAME} {os.getpid()} {time.time()}\\n")
note("start")
time.sleep(1.5)
folder = Path("runs", scale, paper, globals().get("setting", "all"), "tables")
folder.mkdir(parents=True, exist_ok=True)
for end in ("csv", "json"):
    path = (folder / f"{NAME}.{end}").absolute()
    temporary = path.with_suffix(".half")
    temporary.write_text("n\\n" + "".join(f"{i * i}\\n" for i in range(2000)))
    os.replace(temporary, path)
    print(path, file=open(os.environ["CREATIVE_NB_RECORD"], "a"))
time.sleep(0.5)
note("end")
"""


def copy_of_the_code(root: Path, *more: str) -> Path:
    for name in ("creative_nb", *more):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "Snakefile"): shutil.copy(ROOT / name, root)
    return root.resolve()


def sleeping_paper(root: Path) -> Path:
    copy_of_the_code(root)
    for name in ("01_first", "02_second", "03_aside", "99_report"):
        where = "settings: list = []" if name == "99_report" else "setting: str = 'digits'"
        parameters = new_code_cell(f"paper: str = 'small'\n{where}\nscale: str = 'smoke'")
        parameters.metadata["tags"] = ["parameters"]
        path = root / "nbs" / "small" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=[parameters, new_code_cell(f"NAME = {name!r}" + SLEEP)]), path)
    (path.parent / "paper.yaml").write_text(PAPER)
    return root.resolve()


def start(root: Path, *options: str) -> subprocess.Popen:
    "A run, in a group of its own as from a terminal; what it says goes to the file `said`."
    command = [sys.executable, "-m", "creative_nb.pipeline", "run", "smoke", "--cores", "2", *options]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with open(root / "said", "ab") as said:
        return subprocess.Popen(command, cwd=root, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
                                stdout=said, stderr=said)


def finish(root: Path, *options: str):
    "The same command once more, undisturbed."
    assert start(root, *options).wait(1200) == 0, (root / "said").read_text()[-3000:]


def alive(root: Path) -> dict[int, str]:
    "Processes that work in a checkout, and their commands."
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z" and Path(os.readlink(process / "cwd")) == root:
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, IndexError): continue
    return found


ROLES = {"main": "pipeline run", "snakemake": "snakemake.cli", "execute": "pipeline execute", "kernel": "ipykernel"}


def victims(root: Path, role: str) -> list[int]:
    return [pid for pid, command in alive(root).items() if ROLES[role] in command]


def end(pid: int, number: int = signal.SIGKILL):
    try: os.kill(pid, number)
    except ProcessLookupError: pass


def wait_until(condition, seconds: float) -> float:
    "Seconds until a condition holds. AssertionError after too many."
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "waited too long"
        time.sleep(0.05)
    return time.monotonic() - begun


def tables(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted((root / "runs").glob("smoke/*/*/tables/*.csv"))}


@pytest.fixture
def small(tmp_path):
    root = sleeping_paper(tmp_path / "checkout")
    yield root
    for pid in alive(root): end(pid)
