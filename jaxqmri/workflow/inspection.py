"""What is there: the images in a folder, and the parts of this installation."""

import importlib.util
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..datasets import cache_dir
from ..errors import error_in_words, remarks_collected
from ..io.axis import axis_named
from ..io.candidates import Candidate, Scan
from ..io.choose import choose, choose_axis
from ..io.images import scan_images
from ..io.series import EARLIEST_SPIN_ECHO
from ..mapping import all_jobs
from ..quantities import AXES, ECHO_TIME, FLIP_ANGLE, INVERSION_TIME

T1_AXES = ("ti", "flip_angle")
SPIN_ECHO_FLIP_ANGLE = math.radians(60)  # excitations of spin echoes are hardly below it


@dataclass(frozen=True)
class Inspection:
    """What a folder holds.

    Attributes:
        series: facts about each group of images, in the order of the scanner's series numbers.
        would_fit: job -> facts about the images it would fit.
        refusals: job -> why it would fit none; empty where one fits, as its images are hardly meant for the others.
        skipped: reason -> names of the images, and of the files that hold none, passed over.
    """

    series: Sequence[Mapping[str, Any]]
    would_fit: Mapping[str, Mapping[str, Any]]
    refusals: Mapping[str, str]
    skipped: Mapping[str, Sequence[str]]

    def facts(self) -> dict[str, Any]:
        """For JSON: times in s, angles in rad, lengths in mm; what is passed over is counted, not named."""
        return {
            "series": self.series,
            "would_fit": self.would_fit,
            "refusals": self.refusals,
            "skipped": {reason: len(names) for reason, names in self.skipped.items()},
        }

    def text(self, verbose: bool = False) -> str:
        """For people; `verbose` names what is passed over."""
        return "\n".join(self._lines(verbose))

    def _lines(self, verbose: bool) -> Iterator[str]:
        for facts in self.series:
            kind = " (Enhanced MR)" if facts["enhanced"] else ""
            yield f"series {_number(facts)}: {facts['description'] or '(no description)'}{kind}"
            yield f"  {facts['component']}, {_echoes(facts)}{_timing(facts)}"
            size = " x ".join(map(str, facts["shape"]))
            voxel = " x ".join(f"{edge:.4g}" for edge in facts["voxel_size_mm"])
            yield f"  matrix {size}, voxel {voxel} mm, pixel values: {facts['scaling']}"
            yield from self._remarks(facts)
        yield from self._fits()
        yield from (f"{job} would fit nothing: {refusal}" for job, refusal in self.refusals.items())
        for reason, names in self.skipped.items():
            yield f"passed over: {len(names)} {reason}" + (f": {', '.join(names)}" if verbose else "")
        if self.skipped and not verbose:
            yield "(-v names them)"

    def _remarks(self, facts: Mapping[str, Any]) -> Iterator[str]:
        n_slices, n_echoes, n_images = facts["shape"][2], len(facts["echo_times_s"]), facts["n_images"]
        n_varied = max(len(facts[axis.key]) for axis in (ECHO_TIME, INVERSION_TIME, FLIP_ANGLE))
        if facts["lacking"]:
            yield f"  incomplete: {facts['lacking']}"
        elif n_echoes and n_images != n_slices * n_varied:
            yield f"  {n_images} images, where {n_slices} slices of {n_echoes} echoes are {n_slices * n_echoes}"
        if facts["derived"]:
            yield "  derived by the scanner from other images: used only if there is nothing else"
        numbers = [other["number"] for other in self.series if other["uids"] != facts["uids"]]
        if facts["uids"] and facts["number"] in numbers:
            yield f"  UID {' and '.join(facts['uids'])}, as another series has the same number"

    def _fits(self) -> Iterator[str]:
        for job, chosen in self.would_fit.items():
            axis = axis_named(chosen["axis"])
            kind = {"t2star": " if these are gradient echoes", "t2": " if these are spin echoes"}.get(job, "")
            unsure = kind if {"t2star", "t2"} <= set(self.would_fit) else ""
            which = f"series {_numbers(chosen)}, the {len(chosen[axis.key])} {chosen['component']} "
            images = axis.many if axis is ECHO_TIME else f"images of different {axis.terms}"
            yield f"{job} would fit {_MODELS[job, chosen['axis']]} to {which}{images}{unsure}"


_MODELS = {
    ("t2star", "te"): "S(TE) = S0 exp(-TE / T2*)",
    ("t2", "te"): "a train of spin echoes",
    ("t1", "ti"): "an inversion recovery",
    ("t1", "flip_angle"): "spoiled gradient echoes",
}


def _number(facts: Mapping[str, Any]) -> str:
    return "without number" if facts["number"] is None else str(facts["number"])


def _numbers(facts: Mapping[str, Any]) -> str:
    """Those of all series that would be joined."""
    return ", ".join(map(str, facts["numbers"])) or "without number"


def _echoes(facts: Mapping[str, Any]) -> str:
    te_ms = ECHO_TIME.listed(facts["echo_times_s"], " ")
    if not te_ms:
        return "no usable echo times"
    n = len(facts["echo_times_s"])
    return f"TE {te_ms} ms" if n == 1 else f"{n} echoes, TE {te_ms} ms"


def _timing(facts: Mapping[str, Any]) -> str:
    words = [
        f"; {axis.symbol} {axis.listed(facts[axis.key], ' ')} {axis.shown_unit}"
        for axis in (INVERSION_TIME, FLIP_ANGLE)
        if facts[axis.key]
    ]
    return "".join(words) + "".join(f"; TR {1e3 * tr:g} ms" for tr in facts["repetition_times_s"][:1])


def inspect_images(
    paths: Sequence[Path], given: Mapping[str, Sequence[float]] | None = None, series: Sequence[str] = ()
) -> Inspection:
    """Looks at the headers of a folder or zip archive of DICOM or NIfTI files, and at what each job would do with them.

    Warns of what the job would mend, not of what is passed over: that is listed.

    Args:
        paths: a folder or zip archive, or files.
        given: "te", "ti", ... -> (n,) values that replace those in the files [s] or [rad]; one of them.
        series: numbers of the series to look at, or how their UIDs begin; empty: all.

    Raises:
        NoInputError, CorruptInputError, MetadataError, UsageError: nothing can be listed; see `scan_images`.
    """
    name, values = next(iter((given or {}).items()), ("te", None))
    with ExitStack() as files:  # of a zip archive they are there as long as it lasts
        with remarks_collected():
            scan = files.enter_context(scan_images(paths, values, axis_named(name), series))
        return _inspected(scan, name, given=values is not None)


def _inspected(scan: Scan, name: str, given: bool) -> Inspection:
    would_fit: dict[str, Mapping[str, Any]] = {}
    refusals: dict[str, str] = {}
    if name == "te":
        try:
            chosen = choose(scan)
            would_fit |= dict.fromkeys(_jobs_for_echoes(chosen), _facts(chosen, "te"))
        except (ValueError, OSError) as error:
            refusals["t2star"] = error_in_words(error)[1]
    if name != "te" or not given:
        job = "t1"
        try:
            chosen = choose(scan) if name != "te" else choose_axis(scan, T1_AXES)[1]
            job = next(job.name for job in all_jobs() if chosen.axis in job().axes)
            would_fit[job] = _facts(chosen, next(key for key, axis in AXES.items() if axis is chosen.axis))
        except (ValueError, OSError) as error:
            refusals[job] = error_in_words(error)[1]
    facts = [_facts(candidate) for candidate in scan.candidates]
    return Inspection(facts, would_fit, {} if would_fit else refusals, scan.skipped)


def _jobs_for_echoes(candidate: Candidate) -> Sequence[str]:
    """By what the files say of the sequence; where that is nothing, both."""
    spin, gradient = "SE" in candidate.first.sequence, "GR" in candidate.first.sequence
    if spin and not gradient:
        return ("t2",)
    tipped_little = any(angle < SPIN_ECHO_FLIP_ANGLE for angle in candidate.stated(FLIP_ANGLE))
    return ("t2star",) if gradient or tipped_little or candidate.values[0] < EARLIEST_SPIN_ECHO else ("t2star", "t2")


def _facts(candidate: Candidate, axis: str | None = None) -> dict[str, Any]:
    facts = {
        "number": candidate.series_number,
        "uids": list(candidate.series_uids),
        "description": candidate.first.description,
        "component": candidate.component,
        **{
            found.key: [float(f"{value:.12g}") for value in candidate.stated(found)]
            for found in (ECHO_TIME, INVERSION_TIME, FLIP_ANGLE)
        },
        "repetition_times_s": [float(f"{tr:.12g}") for tr in candidate.repetition_times],
        "shape": [*candidate.shape, candidate.n_slices],
        "n_images": candidate.n_images,
        "voxel_size_mm": [float(f"{edge:.9g}") for edge in candidate.voxel_size],
        "scaling": candidate.scaling,
        "image_type": list(candidate.first.image_type),
        "enhanced": candidate.is_enhanced,
        "derived": candidate.derived,
        "lacking": candidate.lacking(),
    }
    return facts if axis is None else {"axis": axis, "numbers": list(candidate.numbers), **facts}


_CODECS = {"libjpeg": "JPEG, JPEG-LS", "openjpeg": "JPEG 2000", "rle": "RLE, fast", "gdcm": "all of them"}
_EXTRAS = {  # what pip install "jaxqmri[...]" adds -> the packages that come with it
    "dicom-codecs": ("pylibjpeg-libjpeg", "pylibjpeg-openjpeg"),
    "cuda12": ("jax-cuda12-plugin",),
    "cuda13": ("jax-cuda13-plugin",),
    "tpu": ("libtpu",),
}


def installation() -> dict[str, Any]:
    """Versions, devices, precision, extras, DICOM codecs and the data cache; a broken device is a fact, no error."""
    import jax

    from ..batching.compiled import kept_in
    from .provenance import versions

    folder = kept_in()
    try:
        devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
        backend, device_error = jax.default_backend(), None
    except RuntimeError as error:
        devices, backend, device_error = [], None, " ".join(str(error).split())
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "n_processors": os.cpu_count(),
        "jax_backend": backend,
        "devices": devices,
        "device_error": device_error,
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        "extras": {extra: all(map(_is_installed, packages)) for extra, packages in _EXTRAS.items()},
        "dicom_codecs": [name for name in _CODECS if importlib.util.find_spec(name)],
        "data_cache": str(cache_dir()),
        "compiled_programs": None if folder is None else str(folder),
    }


def installation_text(facts: Mapping[str, Any]) -> str:
    """`installation` for people, one fact a line."""
    codecs = [f"{name} ({_CODECS[name]})" for name in facts["dicom_codecs"]]
    missing = [name for name, there in facts["extras"].items() if not there]
    rows = {
        **facts["versions"],
        "platform": facts["platform"],
        "processors": facts["n_processors"],
        "JAX backend": facts["jax_backend"] or f"none: {facts['device_error']}",
        "devices": ", ".join(facts["devices"]) or "none",
        "float64": "on (JAX_ENABLE_X64)" if facts["x64"] else "off (JAX_ENABLE_X64)",
        "DICOM codecs": ", ".join(codecs) or "none beyond pydicom's own (uncompressed, deflated, RLE)",
        "extras": ", ".join(name for name in facts["extras"] if name not in missing) or "none installed",
        "extras missing": ", ".join(missing) + ' (pip install "jaxqmri[NAME]")' if missing else "none",
        "data cache": facts["data_cache"],
        "compiled": facts["compiled_programs"] or "not kept (JAX_ENABLE_COMPILATION_CACHE)",
    }
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items())


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
