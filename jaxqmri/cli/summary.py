"""What a job says on the terminal."""

from collections.abc import Iterator, Mapping, Sequence

from ..quantities import map_kind
from ..workflow.run import JobResult, in_words


def summary_lines(result: JobResult) -> Iterator[str]:
    """The numbers of a job for people, line by line."""
    summary = result.summary()
    axis = result.series.axis
    first, *_, last = axis.shown(result.series.values)
    # "6 inversion times, 50 ... 4000 ms", but "4 echoes, TE 3 ... 25 ms"
    symbol = f"{axis.symbol} " if axis.many != axis.terms else ""
    values = f"{symbol}{first:g} ... {last:g} {axis.shown_unit}"
    yield f"input           {len(result.series.values)} {axis.many}, {values}, {summary['n_voxels']} voxels"
    if "sigma" in (noise := str(result.maps.metadata.get("Noise", ""))):
        yield f"noise           {noise}"
    if maps := summary["maps"]:
        kinds = {name: map_kind(name, result.maps.metadata) for name in maps}
        symbols = {name: kind.symbol for name, kind in kinds.items() if kind.role == "field"}
        fields = [(name, words if len(words) <= 15 else words.split()[-1]) for name, words in symbols.items()]
        low, median, high = (_ms(maps[result.job.main_map][key]) for key in ("q25", "median", "q75"))
        yield f"{result.job.label:<15} {median} ms median, quartiles {low} ... {high} ms"
        for name, symbol in fields:  # of long words the last one fits
            low, median, high = (f"{maps[name][key]:.3f}" for key in ("q25", "median", "q75"))
            yield f"{symbol:<15} {median} median, quartiles {low} ... {high}"
        yield f"relative error  {100 * maps['residual']['median']:.2f} % median"
    shares = (f"{n} {name} ({100 * n / summary['n_voxels']:.1f} %)" for name, n in summary["status"].items())
    yield f"voxels          {', '.join(shares)}"
    for rows in filter(None, (result.regions, result.models)):
        yield from ("", *_table(in_words(rows)), "")
    seconds = (f"{step} {spent:.2f} s" for step, spent in summary["timings_s"].items())
    yield f"time            {', '.join(seconds)}"
    yield f"maps            {result.out}"
    if "report.html" in result.files:
        named = ", with the series' own name (--no-names leaves it out)" if result.series.description else ""
        yield f"report          {result.out / 'report.html'}{named}"


def _ms(seconds: float) -> str:
    """Milliseconds; those of T1 and of fluids without decimals, which are never measured."""
    return f"{1e3 * seconds:.{2 if seconds < 0.3 else 0}f}"


def _table(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """First column to the left, numbers to the right."""
    columns = list(rows[0])
    lines = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *numbers])


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
