"""TeX to MathML, which a browser shows without a script or a network."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree

from latex2mathml import exceptions
from latex2mathml.converter import convert

#: What the converter raises; its errors have no common ancestor.
_REFUSALS = tuple(kind for kind in vars(exceptions).values() if isinstance(kind, type))

#: Environments that the converter lacks or numbers, and the one it sets as they mean.
_ALIGNED = re.compile(r"\\(begin|end)\{(?:aligned|align|split|eqnarray|alignat)\*?\}")
_GATHERED = re.compile(r"\\(begin|end)\{(?:gathered|gather)\*?\}")
_PLAIN = re.compile(r"\\(?:begin|end)\{(?:equation|displaymath|math)\*?\}")

#: Relations and fences that it hands out as identifiers, which a browser would set without their spaces.
_OPERATORS = re.compile(r"<mi>(&#x(?:000B1|02026|0230[89AB]|027C2|027FA|0003A);)</mi>")

#: A function whose argument follows without brackets: it wants a thin space between.
_NAMED = re.compile(r"(<mi>(?:log|ln|exp|sin|cos|tan|tanh|det)</mi>)(?=<m(?!o>|o |space))")


def mathml(tex: str, *, block: bool = False) -> str:
    """Return a formula as a MathML element that carries its TeX as an annotation for copying and for screen readers.

    Raises ValueError for a formula that would be shown wrongly, with an unknown command or an unpaired brace.
    """
    tex = tex.strip()
    if tex.count("{") - tex.count(r"\{") != tex.count("}") - tex.count(r"\}"):
        raise ValueError(f"the braces of the formula {tex!r} do not pair")
    try:
        element = _mend(convert(_prepare(tex), display="block" if block else "inline"))
        root = ElementTree.fromstring(element)
    except (*_REFUSALS, ElementTree.ParseError, IndexError, StopIteration) as error:
        raise ValueError(f"the formula {tex!r} cannot be set: {str(error) or type(error).__name__}") from error
    unknown = [text for node in root.iter() if (text := node.text or "").startswith("\\") and len(text) > 1]
    if unknown:
        raise ValueError(f"the formula {tex!r} holds {unknown[0]}, which is not known here")
    note = f'<annotation encoding="application/x-tex">{html.escape(tex)}</annotation>'
    body = element[element.index(">") + 1 : element.rindex("</math>")]
    return f"{element[: element.index('>') + 1]}<semantics>{body}{note}</semantics></math>"


def _prepare(tex: str) -> str:
    tex = _ALIGNED.sub(r"\\\1{align*}", tex)
    tex = re.sub(r"\\begin\{gather\*?(?:ed)?\*?\}", r"\\begin{array}{c}", tex)
    tex = _GATHERED.sub(r"\\\1{array}", tex)
    tex = _PLAIN.sub("", tex)
    tex = tex.replace(r"\operatorname*", r"\operatorname")
    return re.sub(r"\\tag\{([^{}]*)\}", r"\\qquad\\text{(\1)}", tex)


def _mend(element: str) -> str:
    """Correct the converter's output: roman single letters, relations, a negative space."""
    element = re.sub(r"<mi>(&#x000[4-7][0-9A-F];)</mi>", r'<mi mathvariant="normal">\1</mi>', element)
    element = re.sub(r'<mi mathvariant="normal">&#x0007E;</mi>|<mi>\u223c</mi>', "<mo>&#x0223C;</mo>", element)
    element = _OPERATORS.sub(r"<mo>\1</mo>", element)
    element = _NAMED.sub(r'\1<mspace width="0.167em" />', element)
    element = re.sub("<mo>(&#x(?:02016|0007C|02225);)</mo>", r'<mo stretchy="false">\1</mo>', element)
    element = element.replace(r">\|</mo>", ">&#x02016;</mo>")
    element = element.replace("negativethinmathspace", "-0.167em")
    return element.replace("&</mi>", "&amp;</mi>")
