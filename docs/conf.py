"""Configuration of Sphinx; `make docs` writes the pages to build/docs."""

project = "doomgrad"
author = "the authors of doomgrad"
extensions = ["myst_parser"]
myst_heading_anchors = 3
smartquotes = False  # They would turn the hyphens of flags into dashes.
html_theme = "furo"
html_title = "doomgrad"
html_static_path = ["_static"]
html_css_files = ["phone.css"]
html_show_sphinx = False
html_copy_source = False
