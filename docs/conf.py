"""Settings of the documentation site; `make docs` builds it into build/docs."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "agents")]

from ssdkd_env import __version__  # noqa: E402 (the path comes first)

project = "ssdkd-env"
author = "ssdkd-env contributors"
project_copyright = f"{author}, Apache-2.0"
version = release = __version__
html_title = f"ssdkd-env {version}"

extensions = [
    "docstrings",  # ours, beside this file
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
html_theme = "furo"
html_show_sphinx = False
pygments_style, pygments_dark_style = "tango", "github-dark"

# Pages are Markdown that a code host shows as well: nothing but tables, fences, links and lists.
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# Docstrings are Markdown, which `docstrings` turns into what autodoc reads; a name
# in backticks is a link where it is known.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
napoleon_use_rtype = False
napoleon_use_ivar = True

# What is not ours is not linked, so that the site is built without the network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    ("py:.*", r"(torch|numpy|np|gymnasium|gym|spaces|stable_baselines3|collections|pathlib|typing|types|npt|nn)\b.*"),
    ("py:exc", "ResetNeeded"),
    ("py:class", r"(ssdkd_env\.registry\.EntryT|ssdkd_env\.distillation\.(buffer\.\w+|problem\.ProblemSpec)|Scorer)"),
    ("py:class", r"ssdkd_env\.tasks\.task\.ThingT"),
    ("py:.*", r"(Tensor|NDArray|Path|Any|Callable|Mapping|Sequence|Iterable|Iterator|Literal|Generic|Protocol)"),
]
