"""BIDS derivatives: where maps go, what their sidecars add, and the files around them.

A series is complete once its record, `logs/<series>.json`, exists: it is removed before any of its maps is changed and
written last, so that a kill at any time leaves whole files and a series that will be done again.

Source: the Brain Imaging Data Structure 1.11, "Derivatives" and "Quantitative MRI". Residual, inversion efficiency and
reports, for which BIDS has no names, are listed in `.bidsignore`.
"""

import csv
import io
import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import OutputError, visible
from ...quantities import map_kind
from ..storage.atomic import output_errors, strict_json, write_bytes, write_files
from ..storage.locks import one_at_a_time
from ..storage.plain_files import is_plain_file, read_bytes
from ..storage.result_folder import RECORD, recorded_files, replace_files, tidy_up
from .dataset import DESCRIPTION, BidsDataset
from .names import BidsName, parse_name

SUMMARY = "summary.tsv"
LOGS = "logs"
RAW = "raw"  # the name of the raw dataset in Sources
SOURCE_DATA = "sourcedata"  # where BIDS keeps the data that a dataset was made of

# Where two series of a session give a map of one name, desc-<suffix> tells them apart.
MAPS_OF = {
    "MEGRE": ("T2starmap", "R2starmap", "S0map"),
    "T2starw": ("T2starmap", "R2starmap", "S0map"),
    "MESE": ("T2map", "R2map", "M0map", "TB1map"),
    "IRT1": ("T1map", "R1map", "M0map"),
    "VFA": ("T1map", "R1map", "M0map"),
}
REFERENCES = {
    "MEGRE": "Milford et al., PLoS ONE 10:e0145255 (2015), doi:10.1371/journal.pone.0145255",
    "T2starw": "Milford et al., PLoS ONE 10:e0145255 (2015), doi:10.1371/journal.pone.0145255",
    "MESE": "Lebel and Wilman, Magn Reson Med 64:1005 (2010), doi:10.1002/mrm.22487",
    "IRT1": "Barral et al., Magn Reson Med 64:1057 (2010), doi:10.1002/mrm.22497",
    "VFA": "Deoni et al., Magn Reson Med 49:515 (2003), doi:10.1002/mrm.10407",
}

_KEY_COLUMNS = ("participant_id", "series")  # of the summary
_KEY = itemgetter(*_KEY_COLUMNS)
_MARK = "# Written by jaxqmri"
_IGNORE = f"""{_MARK}: what BIDS has no name for.
*.html
figures
/{SUMMARY}
*_residual.*
*_InversionEfficiency.*
*_Offset.*
*_DeltaAICc.*
"""


def check_derivative_folder(out: Path, root: Path) -> None:
    """Checks, before anything is computed, that `out` is new, empty or was begun by `begin_derivative`."""
    with output_errors(out):
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out}: is a file, so no maps can be written into it; name a folder.")
        target, raw = out.resolve(), root.resolve()
        if target.is_relative_to(raw) and raw / "derivatives" not in target.parents:
            where = "is the raw dataset itself" if target == raw else "lies inside the raw dataset"
            raise OutputError(
                f"{out}: {where}, where maps would be taken for images; name a folder outside it or in "
                f"{root / 'derivatives'}, e.g. {root / 'derivatives' / 'jaxqmri'}."
            )
        own = False
        with suppress(OSError, ValueError):
            own = read_bytes(out / ".bidsignore").decode().startswith(_MARK)
        if out.is_dir() and not own:
            others = [entry for entry in out.iterdir() if not entry.name.startswith(".") and entry.name != SOURCE_DATA]
            if others:
                raise OutputError(
                    f"{out}: has {len(others)} file(s) or folder(s) that are no results of jaxqmri for a dataset; name "
                    "another folder, or a new one in it."
                )


def begin_derivative(out: Path, levels: Mapping[int, str]) -> None:
    """Writes `.bidsignore`, which marks the folder as a derivative, README and `dseg.tsv`; tidies up after killed runs.

    `levels`: code -> meaning of the status maps.
    """
    codes = "".join(f"{code}\t{name}\n" for code, name in levels.items())
    readme = Path(__file__).with_name("derivative_readme.md").read_text(encoding="utf-8")
    files = {".bidsignore": _IGNORE, "README.md": readme, "dseg.tsv": f"index\tname\n{codes}"}
    write_files({out / name: text.encode() for name, text in files.items() if not is_plain_file(out / name)})
    with output_errors(out), one_at_a_time(out):
        (out / LOGS).mkdir(exist_ok=True)
        tidy_up(out)


def finish_derivative(out: Path, dataset: BidsDataset) -> None:
    """Writes `dataset_description.json`, which makes `out` a dataset: after its maps."""
    doi = dataset.description.get("DatasetDOI")
    doi = "" if not isinstance(doi, str) else f"doi:{doi}" if doi.startswith("10.") else doi
    # Sources need a link: a place still to be filled is better than none, or than folders that name people.
    link = _relative_link(out.resolve(), dataset.root.resolve()) or doi or f"{SOURCE_DATA}/{RAW}"
    content: dict[str, Any] = {
        "Name": f"Relaxometry maps of {dataset.description.get('Name') or 'a BIDS dataset'}",
        "BIDSVersion": "1.11.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "jaxqmri", "Version": __version__}],
        "DatasetLinks": {RAW: link},
        "SourceDatasets": [{"DOI": doi} if doi else {"URL": link}],
    }
    write_bytes(out / DESCRIPTION, strict_json(content).encode())


def _relative_link(out: Path, root: Path) -> str:
    """From `out` to `root` if the link holds no name but that of the dataset, as folders may name people; else ""."""
    close = root.is_relative_to(out) or out.is_relative_to(root.parent)
    return Path(os.path.relpath(root, out)).as_posix() if close else ""


def source_uri(image: Path, root: Path) -> str:
    """A file of the raw dataset as a BIDS URI."""
    return f"bids:{RAW}:{image.relative_to(root).as_posix()}"


def record_path(out: Path, series: BidsName) -> Path:
    """The place of the record of a series."""
    return out / LOGS / f"{series}.json"


def read_record(out: Path, series: BidsName) -> dict[str, Any] | None:
    """The record of a series that is complete, or None."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        record = json.loads(read_bytes(record_path(out, series)))
        if _is_record(record) and all(is_plain_file(out / name) for name in record["outputs"]):
            return record
    return None


def _is_record(record: Mapping[str, Any]) -> bool:
    """Whether a file that may have been edited holds what `write_record` writes; may also raise any error of Python."""
    row, outputs = record["row"], [Path(name) for name in record["outputs"]]
    map_kind(row["map"])  # ValueError: no such map
    numbers = [row[key] for key in ("seconds", "n_voxels", "n_fitted", "n_warnings")]
    numbers += [] if row["median_s"] is None else [row["median_s"]]
    words = [row[key] for key in (*_KEY_COLUMNS, "suffix", "status", "message")] + list(record.get("warnings", ()))
    return (
        all(isinstance(number, int | float) for number in numbers)
        and all(isinstance(word, str) for word in words)
        and isinstance(record.get("arguments", {}), Mapping)
        and not any(path.is_absolute() or ".." in path.parts for path in outputs)
    )


def read_records(out: Path, participant: str) -> dict[str, dict[str, Any]]:
    """The records of all complete series of a participant, by name of the series."""
    names = (parse_name(path.stem) for path in sorted((out / LOGS).glob(f"sub-{participant}_*.json")))
    return {str(name): record for name in names if name is not None and (record := read_record(out, name))}


def map_place(series: BidsName, map_name: str, siblings: Collection[str]) -> str:
    """The place of a map ("T2starmap", "T2starmap_stderr", "status"), relative to the derivative, without its ending.

    `siblings` are the suffixes of all series whose names are otherwise equal.
    """
    base = map_name.removesuffix("_stderr")
    error = "stderr" if base != map_name else ""
    shared = [suffix for suffix in {*siblings, series.suffix} if base in MAPS_OF[suffix]]
    if base == "status":
        name = series.described(f"{series.suffix}status", "dseg")
    elif base in ("residual", "Offset", "DeltaAICc"):
        name = series.described(series.suffix, base)
    else:
        name = series.described((series.suffix if len(shared) > 1 else "") + error, base)
    return f"{_folder(series)}/{'fmap' if base == 'TB1map' else 'anat'}/{name}"


def _folder(series: BidsName) -> str:
    return "/".join(f"{key}-{series.entities[key]}" for key in ("sub", "ses") if key in series.entities)


def place_results(
    made: Path, out: Path, series: BidsName, siblings: Collection[str], sources: Sequence[str]
) -> list[str]:
    """Moves the results of one series from a staging folder to their places; sidecars before their maps.

    Gives the places, relative to `out`; the record is still to be written. `sources` are the URIs of the images.
    """
    places: dict[Path, Path] = {}
    for path in sorted(path for path in made.rglob("*") if path.is_file() and path.name != RECORD):
        base, _, ending = path.name.partition(".")
        if ending == "json":
            write_bytes(path, strict_json(_sidecar(path, series, base, sources)).encode())
        if ending in ("json", "nii.gz"):
            places[path] = Path(f"{map_place(series, base, siblings)}.{ending}")
        else:
            suffix = "" if path.name == "report.html" else f"_{base}"
            places[path] = Path(f"{_folder(series)}/figures/{series}{suffix}.{ending}")
    with output_errors(out), one_at_a_time(out):
        record = record_path(out, series).relative_to(out)
        earlier = recorded_files(out, record, below=_folder(series))
        replace_files(out, places, earlier - set(places.values()), record)
    return sorted(place.as_posix() for place in places.values())


def _sidecar(path: Path, series: BidsName, map_name: str, sources: Sequence[str]) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if isinstance(content.get("InversionTime"), list):  # BIDS allows one number there, but arrays for the others
        content = {("InversionTimes" if key == "InversionTime" else key): value for key, value in content.items()}
    content |= {"Sources": list(sources), "EstimationReference": REFERENCES[series.suffix]}
    return content | {"SpatialReference": "orig"} if map_name == "status" else content


def write_record(out: Path, series: BidsName, record: Mapping[str, Any]) -> None:
    """Writes the record of a series, which makes it complete."""
    write_bytes(record_path(out, series), strict_json(record).encode())


def update_summary(out: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Puts rows into `summary.tsv` in place of those of the same participant and series; safe for concurrent runs.

    Their keys are equal and in the order of the columns; None becomes n/a.
    """
    with output_errors(out), one_at_a_time(out):
        table = {_KEY(row): row for row in _read_summary(out / SUMMARY)}
        new = [{key: _cell(value) for key, value in row.items()} for row in rows]
        table |= {_KEY(row): row for row in new}
        # A run of some sessions that finds nothing to fit does not remove what another run has fitted.
        fitted = {row["participant_id"] for row in table.values() if row["series"] != "n/a"}
        current = {_KEY(row) for row in new if row["status"] != "nothing to fit"}
        table = {
            key: row
            for key, row in table.items()
            if row["participant_id"] not in fitted or row["series"] != "n/a" or key in current
        }
        text = io.StringIO()
        writer = csv.DictWriter(text, list(new[0]), "n/a", "ignore", delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table[key] for key in sorted(table))
        write_bytes(out / SUMMARY, text.getvalue().encode())


def read_problems(out: Path, participant: str) -> dict[str, str]:
    """Status and message of the series of a participant that are not done, by name of the series."""
    rows = (row for row in _read_summary(out / SUMMARY) if row["participant_id"] == f"sub-{participant}")
    problems = (row for row in rows if row["series"] != "n/a" and row["status"] != "done")
    return {row["series"]: f"{row['status']}: {row['message']}" for row in problems}


def _read_summary(path: Path) -> list[dict[str, str]]:
    with suppress(OSError, ValueError, csv.Error):
        rows = list(csv.DictReader(io.StringIO(read_bytes(path).decode(), newline=""), delimiter="\t"))
        return [row for row in rows if row.get("participant_id") and row.get("series")]
    return []


def _cell(value: object) -> str:
    if value is None or value == "":
        return "n/a"
    return f"{value:.6g}" if isinstance(value, float) else visible(" ".join(str(value).split()))
