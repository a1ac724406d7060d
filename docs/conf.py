"""How Sphinx builds these pages: Markdown in, the Furo theme out, nothing fetched from the network."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "Eyewall"
author = "the Eyewall authors"
copyright = author
release = installed_version("eyewall")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"  # its fonts are the reader's own: no CDN, no tracking
html_title = f"Eyewall {release}"
html_copy_source = False
html_show_sphinx = False
