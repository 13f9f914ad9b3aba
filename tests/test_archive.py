"The archive to deposit, what it says of itself, and tables of two machines compared."
import fnmatch, json, re, shutil, subprocess, zipfile
from configparser import ConfigParser
from pathlib import Path

import numpy as np, pandas as pd, pytest, yaml

from creative_nb import archive
from creative_nb.machines import compare_runs, compare_tables, main, verdict

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    "A small repository with one measured table."
    for name in ("settings.ini", "CITATION.cff", ".gitignore"): shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "data/measured/p/digits").mkdir(parents=True)
    (tmp_path / "data/measured/p/digits/t.csv").write_text("n\n1\n")
    (tmp_path / "data/measured/p/digits/t.json").write_text(json.dumps({"commit": "abc", "scale": "paper"}))
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def test_an_archive_can_be_checked_and_made_again(checkout, tmp_path_factory):
    path, name = archive.archive(), f"creative_nb-{archive.zenodo()['version']}"
    assert path == checkout / "dist" / f"{name}.zip"
    again = archive.archive("dist/again")
    assert again.read_bytes() == path.read_bytes()
    out = tmp_path_factory.mktemp("out")
    with zipfile.ZipFile(path) as z: z.extractall(out)
    inside = out / name
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=inside, check=True)
    subprocess.run(["sha256sum", "--check", "--quiet", f"{path.name}.sha256"], cwd=path.parent, check=True)
    assert pd.read_csv(inside / "RESULTS.csv").iloc[0][["table", "commit", "scale"]].tolist() == [
        "data/measured/p/digits/t.csv", "abc", "paper"]
    assert json.loads((inside / ".zenodo.json").read_text())["license"] == "apache-2.0"


def test_what_is_not_committed_is_not_archived(checkout):
    (checkout / "new.txt").write_text("new")
    with pytest.raises(RuntimeError, match="not committed: .*new.txt"): archive.archive()


def test_versions_agree():
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    version, cff = settings["DEFAULT"]["version"], yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cff["version"] == version and {"title", "authors", "license", "message", "cff-version"} <= set(cff)
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def test_all_weights_have_terms():
    text = (ROOT / "data/LICENCES.md").read_text(encoding="utf-8")
    known = re.findall(r"^\| `([\w*]+)` \|", text, re.M)
    names = [p.stem for p in (ROOT / "data/checkpoints").glob("*.safetensors")]
    assert [n for n in names if not any(fnmatch.fnmatch(n, pattern) for pattern in known)] == []


def test_the_checklist_leads_somewhere():
    for name in ("REPRODUCIBILITY.md", "CHANGELOG.md", "data/LICENCES.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        paths = re.findall(r"`((?:nbs|data|tests|tools)/[\w/.-]+|[A-Z]+\.md|settings\.ini|requirements\.lock)`", text)
        assert [p for p in paths if not (ROOT / p).exists()] == [], name


# Two machines

ONE = pd.DataFrame({"method": ["a", "b"], "n": [1, 2], "far": [1.0, np.nan], "note": ["x", None]})


def off(change: dict, **tolerance) -> dict:
    found = compare_tables(ONE, ONE.assign(**change), **tolerance)
    return dict(zip(found.column, found.off))


def test_cells_within_the_tolerance_are_alike():
    assert not any(off({}).values()) and not any(off({"far": [1.09, np.nan]}).values())
    assert off({"far": [1.11, np.nan]})["far"] == 1 and off({"far": [1.01, np.nan]}, relative=0.001)["far"] == 1
    assert off({"far": [1.0, 5.0]})["far"] == 1 and off({"far": [np.nan, np.nan]})["far"] == 1
    assert off({"note": ["x", "y"]})["note"] == 1 and off({"far": [np.inf, np.nan]})["far"] == 1


def test_rows_are_found_by_their_keys():
    assert not compare_tables(ONE, ONE.iloc[::-1]).off.any()
    with pytest.raises(ValueError, match="theirs: expected the 2 rows of ours, got 2"):
        compare_tables(ONE, ONE.assign(method=["a", "c"]))


def test_runs(tmp_path, capsys):
    for place, table in (("ours/s", ONE), ("theirs/s/tables", ONE.assign(far=[2.0, np.nan]))):
        (tmp_path / place).mkdir(parents=True)
        table.to_csv(tmp_path / place / "t.csv", index=False)
    (tmp_path / "theirs/s/tables/t.json").write_text('{"seconds": 7}')
    found = compare_runs(tmp_path / "ours", tmp_path / "theirs")
    assert found.table.tolist() == ["s/t"] and found.off.item() == 1 and found.worst.item() == "far"
    assert found.seconds.item() == 7 and verdict(found).startswith("different: 1 of 6")
    with pytest.raises(SystemExit): main([str(tmp_path / "ours"), str(tmp_path / "theirs")])
    main([str(tmp_path / "ours"), str(tmp_path / "theirs"), "--relative", "1.5", "--csv", str(tmp_path / "found.csv")])
    assert "alike: 0 of 6 cells" in capsys.readouterr().out and pd.read_csv(tmp_path / "found.csv").off.item() == 0
    with pytest.raises(SystemExit, match="error: no folder"): main(["nowhere", str(tmp_path)])


def test_the_script_for_another_machine_is_one():
    script = ROOT / "tests/device/run.sh"
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o100
