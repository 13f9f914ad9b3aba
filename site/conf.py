"How the site looks; what is on it: nbs/10k_site.ipynb. Usage: make site."
from creative_nb.site import _settings

about = _settings()
project, author, copyright = about["title"], about["author"], about["copyright"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "creative_nb.signatures", "creative_nb.site"]
html_theme, html_title, html_static_path = "furo", project, ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_theme_options = {"source_repository": about["git_url"], "top_of_page_buttons": []}
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "html_image", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
suppress_warnings = ["myst.header", "ref.python"]  # a type of that name in two modules
