"""Sphinx's settings for the documentation site; ``make docs-site`` builds it."""

project = "SkyLB"
html_title = "SkyLB"
extensions = ["myst_parser"]
root_doc = "index"

# Anchors as GitHub makes them, which the pages link to.
myst_heading_anchors = 4

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
# A page that is opened as a file may not read the others.
html_show_search_summary = False
html_copy_source = False
html_show_sourcelink = False
highlight_language = "none"
pygments_style = "default"
pygments_dark_style = "github-dark"
# Results begin with what the command printed, and their headings may skip a level.
suppress_warnings = ["myst.header"]
