"""Pieces of HTML: sections, tables, numbers, embedded pictures. Text that comes from outside is escaped here."""

import io
import math
import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

from matplotlib.figure import Figure
from PIL import Image

from .figures import png_bytes

_LARGE = 60_000  # bytes; for less, it is not worth the time
FIGURE_DPI = 110  # sharp at the width a figure has on the page; rendering time grows with its square


def section(name: str, heading: str, content: str) -> str:
    """A section under a heading, to be linked to by its name; nothing where there is no content."""
    if not content:
        return ""
    title = f'<h2 id="{name}-heading">{escape(heading)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-heading">\n{title}\n{content}\n</section>'


def number(value: float) -> str:
    """Three significant digits without an exponent, which a reader would have to undo; an en dash for no number."""
    if not math.isfinite(value):
        return "&ndash;"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(decimals, 6)}f}".replace(",", "&thinsp;")


def image(figure: Figure, alt: str, caption: str = "", kind: str = "") -> str:
    """A picture within the page, with words for those who cannot see it."""
    width, height = (round(inches * 96) for inches in figure.get_size_inches())  # CSS pixels
    png = png_bytes(figure, FIGURE_DPI)
    if len(png) > _LARGE:
        png = _of_256_colours(png)
    return picture(png, (width, height), alt, caption, kind)


def _of_256_colours(png: bytes) -> bytes:
    """A third of the bytes; colours are off by about 1 of 255, less than a step of their table."""
    indexed = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    buffer = io.BytesIO()
    indexed.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def picture(png: bytes, size: tuple[int, int] | None, alt: str, caption: str = "", kind: str = "") -> str:
    """The same for a picture that is a PNG file already; its size in CSS pixels, None: that of the file."""
    width, height = size or struct.unpack(">II", png[16:24])  # its header comes first, and fixed
    data = b64encode(png).decode("ascii")
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    classes = f' class="{kind}"' if kind else ""
    return (
        f'<figure{classes}><img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{width}" '
        f'height="{height}">{text}</figure>'
    )


def panels(pictures: Sequence[str]) -> str:
    """Pictures side by side where there is room, one below the other on a telephone."""
    kind = "panels wide" if len(pictures) in (2, 4) else "panels"  # not three and one
    return f'<div class="{kind}">{"".join(pictures)}</div>' if pictures else ""


def note(html: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{html}</p>'


def warning_list(texts: Sequence[str]) -> str:
    """What to know before the maps are used; nothing where there is nothing."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def cards(shown: Sequence[tuple[str, str, str]]) -> str:
    """Numbers in large print: a label, text, then a value and what goes below it, HTML."""
    found = [
        f'<div class="card"><div class="label">{escape(label)}</div><div class="value">{value}</div>'
        + (f'<div class="spread">{below}</div></div>' if below else "</div>")
        for label, value, below in shown
    ]
    return f'<div class="cards">{"".join(found)}</div>'


def facts(rows: Mapping[str, str], label: str) -> str:
    """A table of names and what is known of them."""
    body = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>' for k, v in rows.items())
    return f'<table class="facts" aria-label="{escape(label)}">{body}</table>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int], label: str) -> str:
    """A table whose first column names its rows. One that is too wide scrolls by itself, with the keyboard too.

    Args:
        columns: headings, text.
        rows: cells, HTML.
        numeric: columns of numbers.
        label: what it shows, for those who cannot see it.
    """

    def cell(tag: str, i: int, content: str, scope: str = "") -> str:
        return f"<{tag}{scope}{_NUMBER if i in numeric else ''}>{content}</{tag}>"

    def row_of(first: str, *others: str) -> str:
        named = cell("th", 0, first, ' scope="row"')
        return f"<tr>{named}{''.join(cell('td', i, content) for i, content in enumerate(others, 1))}</tr>"

    head = "".join(cell("th", i, escape(name), ' scope="col"') for i, name in enumerate(columns))
    body = "".join(row_of(*row) for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


_NUMBER = ' class="number"'
