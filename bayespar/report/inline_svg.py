"""A plot as SVG inside the page: colours by name, identifiers of its own, nothing that points elsewhere."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from ..theory.figure import Bars, Curves
from .palette import PALETTE
from .plots import draw, plain_style

_NAMES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # not allowed in XML; a world's words may hold them
_LONG = re.compile(r"-?\d+\.\d{3,}")


def inline_svg(figure: Curves | Bars, name: str) -> str:
    """The plot as one ``<svg>`` element; every ``id`` in it begins with ``name``."""
    with plain_style():
        buffer = io.BytesIO()
        draw(figure).savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(_CONTROL.sub("", buffer.getvalue().decode()))
    referenced = {a or b for e in root.iter() for v in e.attrib.values() for a, b in _REFERENCE.findall(v)}
    _clean(root, name, referenced)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": _CONTROL.sub("", describe(figure)),
    }
    return ElementTree.tostring(root, encoding="unicode")


def describe(figure: Curves | Bars) -> str:
    """The figure in one sentence, for those who do not see it."""
    if isinstance(figure, Bars):
        values = ", ".join(f"{n} {v:.3g}" for n, v in zip(figure.labels, figure.values, strict=True))
        return f"{figure.title}. Bars of {figure.x_label}: {values}"
    names = ", ".join(s.name for s in figure.series)
    return f"{figure.title}. {figure.y_label} against {figure.x_label}: {names}"


def _clean(element: ElementTree.Element, name: str, referenced: set[str]) -> None:
    element.tag = element.tag.rpartition("}")[2]
    attributes = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]  # xlink:href is href in HTML
        if key == "id":
            if value not in referenced:
                continue
            value = f"{name}-{value}"
        elif key == "style":
            value = re.sub("|".join(_NAMES), lambda m: _NAMES[m.group()], value)
        value = _REFERENCE.sub(lambda m: f"url(#{name}-{m[1]})" if m[1] else f"#{name}-{m[2]}", value)
        attributes[key] = _LONG.sub(lambda m: f"{float(m.group()):.2f}", value) if key in ("d", "x", "y") else value
    element.attrib = attributes
    for child in list(element):
        # The metadata names its maker's address, and the style would hold for the whole page.
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            element.remove(child)
        else:
            _clean(child, name, referenced)
    if not (element.text or "").strip():
        element.text = None
    element.tail = None
