"""The page of one participant of a BIDS derivative: a picture, the numbers and the warnings of each series."""

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from .report_page import PAGE, STYLE

_STYLE = ".cards, .warnings { margin-bottom: .75rem; }"


def participant_page(participant: str, records: Mapping[str, Mapping[str, Any]], out: Path) -> str:
    """HTML that needs nothing but itself; it links to the reports of the series.

    Args:
        participant: label without `sub-`.
        records: what `write_record` wrote, by name of the series.
        out: the derivative, whose pictures are embedded.
    """
    body = "".join(_section(name, record, out) for name, record in records.items())
    nothing = '<p class="note">No series of this participant is complete; see summary.tsv.</p>'
    return PAGE.format(title=escape(f"sub-{participant}"), style=STYLE + _STYLE, body=body or nothing)


def _section(name: str, record: Mapping[str, Any], out: Path) -> str:
    outputs = record["outputs"]
    pictures = "".join(_picture(name, out / place) for place in outputs if place.endswith(".png"))
    links = "".join(
        f'<p><a href="{escape(place)}">Report with maps, fits and how they were made</a></p>'
        for place in outputs
        if place.endswith(".html")
    )
    warnings = "".join(f"<li>{escape(text)}</li>" for text in record.get("warnings", ()))
    told = f'<ul class="warnings">{warnings}</ul>' if warnings else ""
    return f"<section><h2>{escape(name)}</h2>{_numbers(record['row'])}{told}{pictures}{links}</section>"


def _numbers(row: Mapping[str, Any]) -> str:
    median = "none" if row["median_s"] is None else f"{1e3 * row['median_s']:.4g} ms"
    label = f"{row['map'].removesuffix('map').replace('star', '*')}, median"
    facts = {label: median, "voxels fitted": f"{row['n_fitted']} of {row['n_voxels']}"}
    cards = "".join(
        f'<div class="card"><div class="label">{escape(key)}</div><div class="value">{escape(value)}</div></div>'
        for key, value in facts.items()
    )
    return f'<div class="cards">{cards}</div>'


def _picture(name: str, path: Path) -> str:
    data = b64encode(path.read_bytes()).decode()
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escape(f"maps of {name}")}"></figure>'
