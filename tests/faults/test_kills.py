"Kills at random moments of every process of a run: the same command ends with the tables of an undisturbed run."
import os, random, shutil, signal, time
from pathlib import Path

import pytest
from conftest import ROLES, ROOT, alive, copy_of_the_code, end, finish, start, tables, victims, wait_until

KILLS, SEED = int(os.environ.get("KILLS", 100)), int(os.environ.get("SEED", 0))
GONE = 20  # seconds that a machine under load may take; without load it is one or two
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def kill_once(root: Path, role: str, number: int, moment: float, *options: str) -> float:
    "Start a run, send a signal to one of its processes after `moment` seconds; seconds until all others are gone."
    run = start(root, *options)
    until = time.monotonic() + moment
    while run.poll() is None and (time.monotonic() < until or not victims(root, role)): time.sleep(0.05)
    for pid in victims(root, role)[:1]: end(pid, number)
    if role in ("main", "snakemake"): return wait_until(lambda: run.poll() is not None and not alive(root), GONE)
    run.wait(600)  # what does not need the killed notebook goes on
    return wait_until(lambda: not alive(root), GONE)


def overlapping(root: Path) -> list[str]:
    "Notebooks that two processes executed at once."
    entries, found = [line.split() for line in (root / "log").read_text().splitlines()], []
    spans = {(name, pid): float(at) for what, name, pid, at in entries if what == "start"}
    ends = {(name, pid): float(at) for what, name, pid, at in entries if what == "end"}
    for (name, pid), last in ends.items():
        found += [name for (n, p), at in spans.items() if n == name and p != pid and spans[name, pid] < at < last]
    return found


def test_kills(small):
    chance, begun = random.Random(SEED), time.monotonic()
    finish(small)
    whole, longest, slowest = tables(small), time.monotonic() - begun, {}
    assert len(whole) == 4
    for kill in range(KILLS):
        if kill % 3 == 0: shutil.rmtree(small / "runs")  # else on what the last kill left
        role, number = list(ROLES)[kill % 4], chance.choice([signal.SIGKILL, signal.SIGTERM])
        seconds = kill_once(small, role, number, chance.uniform(0, longest))
        slowest[role] = max(seconds, slowest.get(role, 0))
        assert all(whole[name] == content for name, content in tables(small).items()), (kill, role)
        if kill % 10 == 9:
            finish(small)
            assert tables(small) == whole, (kill, role)
    finish(small)
    assert tables(small) == whole and overlapping(small) == []
    left = [p for p in small.glob("runs/**/*") if any(w in p.name for w in (".tmp", "partial", "failed", ".half"))]
    assert left == [], left
    print(f"{KILLS} kills, slowest end after one: { {k: round(v, 1) for k, v in slowest.items()} } s")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_end_of_the_command_is_the_end_of_all(small, number):
    "And the same command right after it starts nothing twice."
    run = start(small)
    wait_until(lambda: victims(small, "kernel"), 120)
    end(run.pid, number)
    run.wait(60)
    assert "Traceback" not in (small / "said").read_text()
    again = start(small)
    assert again.wait(600) == 0 and len(tables(small)) == 4 and overlapping(small) == []
    assert run.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}[number]


def test_a_killed_notebook_is_named(small):
    run = start(small)
    wait_until(lambda: victims(small, "kernel"), 120)
    end(victims(small, "execute")[0])
    assert run.wait(600) == 1
    said = (small / "said").read_text()
    assert "was killed" in said and "memory" in said and "Traceback" not in said
    assert len([line for line in said.splitlines() if "done in" not in line and "..." not in line]) < 15


def test_two_runs_at_once(small):
    first, second = start(small), start(small)
    assert sorted((first.wait(600), second.wait(600))) == [0, 1]
    assert "being run by another process" in (small / "said").read_text()
    assert len(tables(small)) == 4 and overlapping(small) == []


def test_kills_of_real_notebooks(tmp_path):
    options = ("--paper", "das2020", "--only", "02_neurons")
    root = copy_of_the_code(tmp_path / "checkout", "nbs", "data/published")
    finish(root, *options)
    whole, chance = tables(root), random.Random(SEED + 1)
    for kill in range(max(2, KILLS // 10)):
        if kill % 2 == 0:
            for folder in ("runs", "data/artifacts"): shutil.rmtree(root / folder, ignore_errors=True)
        kill_once(root, list(ROLES)[kill % 4], signal.SIGKILL, chance.uniform(3, 30), *options)
    finish(root, *options)
    assert tables(root) == whole and len(whole) > 2
    assert not [p for p in root.glob("data/artifacts/**/*") if p.name.startswith(".")]
    assert (ROOT / "nbs/das2020/paper.yaml").read_bytes() == (root / "nbs/das2020/paper.yaml").read_bytes()
