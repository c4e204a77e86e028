"""The page of one participant of a BIDS derivative: a picture, the numbers and the warnings of each series."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from .markup import cards, picture, warning_list
from .page import FOOTER, PAGE, STYLE

_STYLE = ".cards, .warnings { margin-bottom: .75rem; }"


def participant_page(
    participant: str, records: Mapping[str, Mapping[str, Any]], problems: Mapping[str, str], out: Path
) -> str:
    """HTML that needs nothing but itself; it links to the reports of the series.

    Args:
        participant: label without `sub-`.
        records: what `write_record` wrote, by name of the series.
        problems: what is wrong with a series, by its name; it may have no record.
        out: the derivative, whose pictures are embedded.
    """
    names = sorted({*records, *problems})
    body = "".join(_section(name, records.get(name), problems.get(name), out) for name in names)
    nothing = '<p class="note">No series of this participant is complete; see summary.tsv.</p>'
    return PAGE.format(title=escape(f"sub-{participant}"), style=STYLE + _STYLE, body=(body or nothing) + FOOTER)


def _section(name: str, record: Mapping[str, Any] | None, problem: str | None, out: Path) -> str:
    told = [problem] if problem else []
    if record is None:
        return f"<section><h2>{escape(name)}</h2>{warning_list(told)}</section>"
    outputs = record["outputs"]
    pictures = "".join(
        picture((out / place).read_bytes(), None, f"maps of {name}") for place in outputs if place.endswith(".png")
    )
    links = "".join(
        f'<p><a href="{escape(place)}">Report with maps, fits and how they were made</a></p>'
        for place in outputs
        if place.endswith(".html")
    )
    told += record.get("warnings", ())
    numbers = cards(_numbers(record["row"]))
    return f"<section><h2>{escape(name)}</h2>{numbers}{warning_list(told)}{pictures}{links}</section>"


def _numbers(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    median = "none" if row["median_s"] is None else f"{1e3 * row['median_s']:.4g} ms"
    label = f"{row['map'].removesuffix('map').replace('star', '*')}, median"
    return [(label, median, ""), ("voxels fitted", f"{row['n_fitted']} of {row['n_voxels']}", "")]
