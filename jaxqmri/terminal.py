"""What a job says on the terminal."""

from collections.abc import Iterator, Mapping, Sequence

from .jobs import JobResult, in_words


def summary_lines(result: JobResult) -> Iterator[str]:
    """The numbers of a job for people, line by line."""
    summary = result.summary()
    te_ms = [1e3 * te for te in summary["echo_times_s"]]
    yield f"input           {len(te_ms)} echoes, TE {te_ms[0]:g} ... {te_ms[-1]:g} ms, {summary['n_voxels']} voxels"
    if maps := summary["maps"]:
        low, median, high = (1e3 * maps[result.job.main_map][key] for key in ("q25", "median", "q75"))
        yield f"{result.job.label:<15} {median:.2f} ms median, quartiles {low:.2f} ... {high:.2f} ms"
        if b1 := maps.get("TB1map"):
            yield f"B1              {b1['median']:.3f} median, quartiles {b1['q25']:.3f} ... {b1['q75']:.3f}"
        yield f"relative error  {100 * maps['residual']['median']:.2f} % median"
    shares = (f"{n} {name} ({100 * n / summary['n_voxels']:.1f} %)" for name, n in summary["status"].items())
    yield f"voxels          {', '.join(shares)}"
    for rows in filter(None, (result.regions, result.models)):
        yield from ("", *_table(in_words(rows)), "")
    seconds = (f"{step} {spent:.2f} s" for step, spent in summary["timings_s"].items())
    yield f"time            {', '.join(seconds)}"
    yield f"maps            {result.out}"
    if "report.html" in result.files:
        yield f"report          {result.out / 'report.html'}"


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
