"""The site: lessons with their outputs, guides, claims, and the reference of the library, readable offline."""

from survey_lib import __version__
from survey_lib.course.publishing import site

project = "survey_lib"
author = "the survey_lib contributors"
release = version = __version__
html_title = "survey_lib"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_copyright = False
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
nb_execution_mode = "off"  # the notebooks carry the outputs of a clean run
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 2
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
default_role = "code"
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header", "myst.xref_missing", "docutils"]


def setup(app):
    site.register_math(app)
