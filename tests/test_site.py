"""The site: every paper's index, every chapter and every module is reached from the first page, and no link is broken.

All pages are written and their links followed; Sphinx makes a few of them. `make site` and its workflow make all."""
import re
from importlib import import_module
from pathlib import Path

import nbformat, pytest

from creative_nb import site
from creative_nb.lookup import index_table
from creative_nb.paper import paper_names

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(".".join(p.relative_to(ROOT / "creative_nb").with_suffix("").parts)
                 for p in (ROOT / "creative_nb").rglob("*.py") if not p.name.startswith("_"))
SOME = ("index.md", "nbs/atlas.md", "nbs/04_decode.ipynb", "nbs/06d_agreement.ipynb", "nbs/das2020/99_report.ipynb",
        "api/decode.md", "api/checks.md")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> site.Source: return site.write_pages(tmp_path_factory.mktemp("site") / "source")


@pytest.fixture(scope="module")
def html(source) -> Path:
    "Some pages of the site; links to the others are not looked at here."
    from sphinx.cmd.build import build_main
    to, ours = source.folder.parent, [p for p in source.files if Path(p).suffix in (".md", ".ipynb")]
    away = ",".join(p for p in ours if p not in SOME)
    quiet = "suppress_warnings=" + ",".join(["myst.header", "myst.xref_missing", "ref.python", "toc.not_included",
                                             "toc.not_readable", "toc.excluded"])
    assert not build_main(["-q", "-W", "--keep-going", "-c", str(ROOT / "site"), "-d", str(to / "doctrees"),
                           "-D", f"exclude_patterns={away}", "-D", quiet, str(source.folder), str(to / "html")])
    return to / "html"


def prose(source: site.Source, page: str) -> str:
    "What a page says, without code."
    path = source.folder / page
    if page.endswith(".md"): text = path.read_text(encoding="utf-8")
    else: text = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    return "".join(site.CODE.split(text)[::2])


def links(source: site.Source, page: str) -> set[str]:
    "The pages that a page links to; links are from the root."
    return {t for t in re.findall(r"\]\(/([^)#\s]+)", prose(source, page)) if Path(t).suffix in (".md", ".ipynb")}


def reached(source: site.Source, start: str) -> set[str]:
    found, new = {start}, {start}
    while new:
        new = set().union(*(links(source, page) for page in new)) - found
        assert not new - source.files, "links that lead nowhere"
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


def test_every_page_is_reached_from_the_first(source):
    pages = {p for p in source.files if Path(p).suffix in (".md", ".ipynb")}
    assert pages - reached(source, "index.md") == set()
    assert {f"nbs/{paper}.md" for paper in paper_names()} <= links(source, "index.md")
    assert {e.path for e in [*site.chapters(), *site.guide(), *site.tutorials()]} <= pages
    assert {f"api/{name}.md" for name in MODULES} <= pages
    assert sorted(e.module for e in site.modules()) == MODULES


@pytest.mark.parametrize("name", ["decode", "checks"])
def test_a_module_has_its_signatures(html, name):
    text, module = (html / f"api/{name}.html").read_text(encoding="utf-8"), import_module(f"creative_nb.{name}")
    own = [n for n in module.__all__ if getattr(getattr(module, n), "__module__", "") in ("typing", module.__name__)]
    assert own and [n for n in own if f'id="creative_nb.{name}.{n}"' not in text] == []


def test_comments_beside_arguments_are_shown(html):
    text = re.sub(r"<[^>]+>", "", (html / "api/decode.html").read_text(encoding="utf-8"))
    assert "name of the layer among the network" in text and "a whole number of 1 or more" in text


def test_notebooks_are_shown_with_their_outputs_and_without_directives(html):
    text = (html / "nbs/das2020/99_report.html").read_text(encoding="utf-8")
    assert "<table" in text and "cell_output" in text
    chapter = (html / "nbs/04_decode.html").read_text(encoding="utf-8")
    assert "CreativeDecoder" in chapter and not re.search("default_exp|export", chapter)


def test_a_page_needs_nothing_from_elsewhere(html):
    for page in ("index.html", "nbs/06d_agreement.html"):
        text = (html / page).read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+', text)
    assert "<math" in text


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
