"""Notebooks of a small paper as jobs of a SLURM of one node: they run, one that is killed is resumed, and every table
is what a run without a cluster makes. PAPER and ONLY choose others: all papers take an hour on two cores."""
import os, shutil, subprocess, sys, time
from pathlib import Path

import pandas as pd
import pytest

from creative_nb.runs import read_table

ROOT = Path(__file__).resolve().parents[2]
PAPER = os.environ.get("PAPER") or "das2019"
ONLY = os.environ.get("ONLY", "01_novelty,04_samples")
SMALL = ("--default-resources", "mem_mb=2000", "runtime=60", "--slurm-init-seconds-before-status-checks", "5",
         "--slurm-status-command", "squeue")  # no accounts are kept here
PARTS = ("creative_nb", "nbs", "data/published", "data/checkpoints", "profiles", "settings.ini", "Snakefile")
missing = [p for p in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(p)]
pytestmark = pytest.mark.skipif(bool(missing) or os.getuid() != 0, reason=f"needs root and {missing}: see slurm.sh")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    "Environment variables of a running SLURM."
    folder, script = tmp_path_factory.mktemp("slurm"), ROOT / "tests/cluster/slurm.sh"
    subprocess.run([script, "start", folder], check=True)
    yield {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    subprocess.run([script, "stop", folder], check=True)


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> tuple[Path, Path]:
    "Two copies of the checkout, without its runs."
    folder = tmp_path_factory.mktemp("copies")
    for name in ("alone", "cluster"):
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            (folder / name / part).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / part, folder / name / part)
    return folder / "alone", folder / "cluster"


def start(root: Path, *options: str, **variables: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "creative_nb.pipeline", "run", "smoke", "--paper", PAPER, "--only", ONLY, *options]
    own = {"PYTHONPATH": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.Popen(command, cwd=root, env=os.environ | own | variables, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def jobs(cluster: dict, state: str) -> list[str]:
    "Numbers of the jobs in a state."
    done = subprocess.run(["squeue", "-h", "-t", state, "-o", "%A"], env=os.environ | cluster, capture_output=True,
                          text=True, check=True)
    return done.stdout.split()



def test_jobs_of_slurm_survive_a_kill_and_find_what_a_local_run_finds(cluster, copies):
    alone, shared = copies
    first = start(shared, "--profile", "profiles/slurm", *SMALL, **cluster)
    for _ in range(600):
        running = jobs(cluster, "RUNNING")
        if running or first.poll() is not None: break
        time.sleep(1)
    assert first.poll() is None and running, first.communicate()[0]
    time.sleep(15)  # inside of the notebook, or of what it imports
    subprocess.run(["scancel", running[0]], env=os.environ | cluster, check=True)
    out = first.communicate(timeout=600)[0]
    print("a job was killed:", out[-600:], sep="\n")
    assert first.returncode != 0 and "the same command resumes it" in out

    again = start(shared, "--profile", "profiles/slurm", *SMALL, **cluster)
    out = again.communicate(timeout=600)[0]
    print("resumed:", out[-600:], sep="\n")
    assert again.returncode == 0, out[-4000:]
    assert len(jobs(cluster, "COMPLETED")) >= 1

    local = start(alone, "--cores", "1")
    out = local.communicate(timeout=600)[0]
    assert local.returncode == 0, out[-4000:]
    tables = sorted(p.relative_to(alone) for p in (alone / "runs/smoke").rglob("tables/*.csv"))
    assert tables and tables == sorted(p.relative_to(shared) for p in (shared / "runs/smoke").rglob("tables/*.csv"))
    for table in tables: pd.testing.assert_frame_equal(read_table(alone / table), read_table(shared / table))
    print(len(tables), "tables are the same")
