"The site: every paper's index, every chapter and every module is reached from the first page, and no link is broken."
import os, re
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import pytest

from creative_nb import site
from creative_nb.lookup import index_table
from creative_nb.paper import paper_names

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(".".join(p.relative_to(ROOT / "creative_nb").with_suffix("").parts)
                 for p in (ROOT / "creative_nb").rglob("*.py") if not p.name.startswith("_"))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> site.Source: return site.write_pages(tmp_path_factory.mktemp("site") / "source")


@pytest.fixture(scope="module")
def html(source) -> Path:
    "The whole site, about 40 s of CPU."
    return site.build(source.folder.parent)


def links(page: Path) -> set[Path]:
    "The pages that a page links to."
    text = re.sub(r"<pre>.*?</pre>", "", page.read_text(encoding="utf-8"), flags=re.S)
    targets = re.findall(r'\shref="([^"#?:]+\.html)', text)
    return {Path(os.path.normpath(page.parent / unquote(t))) for t in targets}


def reached(start: Path) -> set[Path]:
    found, new = {start}, {start}
    while new:
        new = set().union(*map(links, new)) - found
        found |= new
    return found


@pytest.mark.parametrize("paper", paper_names())
def test_a_paper_starts_from_its_index(source, paper):
    text = (source.folder / f"nbs/{paper}.md").read_text(encoding="utf-8")
    for row in index_table(paper).itertuples():
        line = next(line for line in text.splitlines() if line.startswith(f"| {row.item} |"))
        assert all(f"(/{path})" in line for path in (row.notebook, *row.measured)), row.item
        assert all(path in source.files for path in (row.notebook, *row.measured))
    copies = [p.relative_to(ROOT).as_posix() for p in ROOT.glob(f"data/measured/{paper}/*/*.ipynb")]
    assert all(f"(/{path})" in text for path in copies)


def test_every_page_is_reached_from_the_first(html):
    pages = {p for p in html.rglob("*.html")}
    assert pages - reached(html / "index.html") == set()
    first = links(html / "index.html")
    assert {html / f"nbs/{paper}.html" for paper in paper_names()} <= first
    for about in [*site.chapters(), *site.tutorials()]: assert html / Path(about.path).with_suffix(".html") in pages


def test_every_module_has_its_signatures(html):
    assert sorted(e.module for e in site.modules()) == MODULES
    for name in MODULES:
        text, module = (html / f"api/{name}.html").read_text(encoding="utf-8"), import_module(f"creative_nb.{name}")
        own = [n for n in module.__all__ if getattr(getattr(module, n), "__module__", "") == module.__name__]
        assert [n for n in own if f'id="creative_nb.{name}.{n}"' not in text] == [], name


def test_comments_beside_arguments_are_shown(html):
    text = re.sub(r"<[^>]+>", "", (html / "api/decode.html").read_text(encoding="utf-8"))
    assert "name of the layer among the network" in text and "a whole number of 1 or more" in text


def test_notebooks_are_shown_with_their_outputs_and_without_directives(html):
    text = (html / "nbs/das2020/99_report.html").read_text(encoding="utf-8")
    assert "<table" in text and "cell_output" in text
    chapter = (html / "nbs/04_decode.html").read_text(encoding="utf-8")
    assert "CreativeDecoder" in chapter and not re.search("default_exp|export", chapter)


def test_a_page_needs_nothing_from_elsewhere(html):
    for page in ("index.html", "nbs/05_novelty.html"):
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+', (html / page).read_text())


def test_search_finds_what_stands_in_a_notebook(html):
    index = (html / "searchindex.js").read_text(encoding="utf-8")
    assert "nbs/04_decode" in index and '"krippendorff' in index


def test_a_broken_link_is_found(tmp_path):
    pages = site.Source(tmp_path)
    pages.link("05_nothing.ipynb", "nbs")
    assert pages.broken == ["nbs: 05_nothing.ipynb"]
    (tmp_path / "a.html").write_text('<a href="b.html"> <a href="#up"> <a id="here" href="#here"> <a href="a.html">')
    assert site.broken_links(tmp_path) == ["a.html: #up", "a.html: b.html"]


def test_an_error_of_a_page_ends_the_build(monkeypatch, tmp_path):
    def write_pages(folder):
        pages = site.Source(folder)
        pages.page("index.md", "# A page\n\n[nowhere](/nbs/nothing.ipynb)\n")
        return pages
    monkeypatch.setattr(site, "write_pages", write_pages)
    with pytest.raises(RuntimeError, match="pages with errors"): site.build(tmp_path)
