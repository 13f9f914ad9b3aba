"A run as it goes, and the page at its end."
import io
import re
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from creative_nb import summary, watch
from creative_nb.core import write_text

SHELF = "runs/smoke/mine/digits"


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    write_text(tmp_path / "settings.ini", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Screen(io.StringIO):
    def isatty(self): return True


def test_a_notebook_is_told_of_once_at_its_start_and_once_at_its_end(checkout):
    watch.note_planned("smoke", [f"{SHELF}/{n}.ipynb" for n in ("a", "b")])
    out = io.StringIO()
    seen = watch._Watch("smoke", out)
    write_text(checkout / SHELF / "a.5.partial.ipynb", "")
    for _ in range(3): seen.look()
    (checkout / SHELF / "a.5.partial.ipynb").rename(checkout / SHELF / "a.ipynb")
    for _ in range(3): seen.look()
    lines = out.getvalue().splitlines()
    assert lines[0] == f"{SHELF}/a.ipynb ..." and re.match(f"{SHELF}/a.ipynb done in .*; 1 of 2 notebooks", lines[1])
    assert len(lines) == 2


def test_a_terminal_shows_one_line_and_the_bars_below_it(checkout):
    watch.note_planned("smoke", [f"{SHELF}/a.ipynb"])
    write_text(checkout / SHELF / "a.5.partial.ipynb", "")
    write_text(watch.scratch_folder("smoke") / "5.bar", "epochs:  10%\repochs:  20%")
    out = Screen()
    seen = watch._Watch("smoke", out)
    seen.look()
    seen.look(last=True)
    first, last = out.getvalue().split("\x1b[2F")
    assert "mine/digits/a, 0 s  epochs:  20%" in first and "epochs" not in last


def test_an_earlier_result_is_not_counted_as_done(checkout):
    write_text(checkout / SHELF / "a.ipynb", "")
    assert watch.finished([f"{SHELF}/a.ipynb"], time.time() + 5) == [] != watch.finished([f"{SHELF}/a.ipynb"], 0)


def test_what_vanishes_while_it_is_looked_at_is_no_error(checkout):
    assert watch.planned("smoke") == [] and watch.at_work("smoke", 0) == {}
    assert watch.last_state(checkout / "none") == ""


@pytest.mark.parametrize("done, total, expected", [
    (0, 0, "finding out what has to run, 60 s so far"), (1, 9, "1 of 9 notebooks, 60 s so far"),
    (3, 9, "3 of 9 notebooks, 60 s so far, about 2 min left at this pace"), (9, 9, "9 of 9 notebooks, 60 s so far")])
def test_an_estimate_says_what_it_rests_on(done, total, expected): assert watch.so_far(done, total, 60) == expected


def test_pictures_are_inside_and_small(checkout):
    Image.effect_noise((2000, 900), 90).save("noise.png")
    held = summary.embedded("noise.png")
    assert held.startswith("data:image/") and len(held) < 150_000


def test_simulated_labels_are_called_so_on_the_page():
    printed = pd.DataFrame({"dataset": ["mnist"], "creative": [0.39]})
    for dataset in ("mnist", "digits"):
        made = summary.beside_print(pd.DataFrame({"dataset": [dataset], "creative_simulated": [0.2]}), printed)
        assert "simulated labels" in made and "0.39" in made


def test_what_a_table_says_is_no_html():
    table = pd.DataFrame({"dataset": ["<script>"], "nll": [1.0]})
    assert "<script>" not in summary.beside_print(table, table) + summary.beside_print(table, table.assign(dataset="b"))
