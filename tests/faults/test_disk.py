"Disks that are full, that cannot be written, and that change what was written."
import os, shutil, subprocess
from pathlib import Path

import pytest
from conftest import copy_of_the_code, finish, sleeping_paper, start, tables


@pytest.fixture
def disk(tmp_path):
    "A small disk of its own."
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode: pytest.skip(f"needs the right to mount a small disk: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("room", [0, 20_000, 60_000])
def test_a_full_disk(disk, room):
    "Nothing is half-written, the error says where, and the run resumes once there is room."
    root = sleeping_paper(disk / "checkout")
    finish(root)
    whole = tables(root)
    shutil.rmtree(root / "runs")
    filler, free = root / "filler", shutil.disk_usage(disk).free
    filler.write_bytes(bytes(max(0, free - room)))
    assert start(root).wait(600) == 1
    assert all(whole[name] == content for name, content in tables(root).items())
    filler.unlink()
    finish(root)
    assert tables(root) == whole


def test_a_folder_that_cannot_be_written(disk):
    root = sleeping_paper(disk / "checkout")
    if os.geteuid(): (root / "runs").mkdir(mode=0o555)
    else: subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    command = ["python", "-m", "creative_nb.pipeline", "run", "smoke"]
    import sys
    done = subprocess.run([sys.executable, *command[1:]], cwd=root, capture_output=True, text=True,
                          env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "runs" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "ead-only" in done.stderr or "denied" in done.stderr


def test_damaged_artifacts_are_made_again(tmp_path):
    "Every 997th byte of the second half of each kept file has another bit."
    options = ("--paper", "das2020", "--only", "02_neurons")
    root = copy_of_the_code(tmp_path / "checkout", "nbs", "data/published")
    finish(root, *options)
    whole, kept = tables(root), sorted(Path(root, "data/artifacts").glob("*.safetensors"))
    before = {p: p.read_bytes() for p in kept}
    for path in kept:
        content = bytearray(before[path])
        for at in range(len(content) // 2, len(content), 997): content[at] ^= 1
        path.write_bytes(content)
    finish(root, *options, "--forceall")
    assert tables(root) == whole and len(kept) >= 2 and "is damaged and is made again" in (root / "said").read_text()
