"""What is there: the images in a folder, and the parts of this installation."""

import importlib.util
import os
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .io import dicom, dicom_stack, nifti_scan
from .io.datasets import cache_dir
from .io.dicom_scan import DicomScan
from .io.errors import InputWarning
from .io.images import scan_images

Stack = dicom_stack.Stack | nifti_scan.Stack


@dataclass(frozen=True)
class Inspection:
    """What a folder holds.

    Attributes:
        series: facts about each group of images, in the order of the scanner's series numbers.
        would_fit: facts about the one that would be fitted, or None.
        refusal: why none would be fitted, or None.
        skipped: reason -> names of the files passed over.
    """

    series: Sequence[Mapping[str, Any]]
    would_fit: Mapping[str, Any] | None
    refusal: str | None
    skipped: Mapping[str, Sequence[str]]

    def facts(self) -> dict[str, Any]:
        """For JSON: times in s, lengths in mm; files passed over are counted, not named."""
        return {
            "series": self.series,
            "would_fit": self.would_fit,
            "refusal": self.refusal,
            "skipped": {reason: len(names) for reason, names in self.skipped.items()},
        }

    def text(self, verbose: bool = False) -> str:
        """For people; `verbose` names the files passed over."""
        return "\n".join(self._lines(verbose))

    def _lines(self, verbose: bool) -> Iterator[str]:
        for facts in self.series:
            yield f"series {_number(facts)}: {facts['description'] or '(no description)'}"
            yield f"  {facts['component']}, {_echoes(facts)}"
            size = " x ".join(map(str, facts["shape"]))
            voxel = " x ".join(f"{edge:.4g}" for edge in facts["voxel_size_mm"])
            yield f"  matrix {size}, voxel {voxel} mm, pixel values: {facts['scaling']}"
            n_slices, n_echoes, n_images = facts["shape"][2], len(facts["echo_times_s"]), facts["n_images"]
            if n_echoes and n_images != n_slices * n_echoes:
                yield f"  {n_images} images, where {n_slices} slices of {n_echoes} echoes are {n_slices * n_echoes}"
        if self.would_fit:
            chosen, n_echoes = self.would_fit, len(self.would_fit["echo_times_s"])
            which = f"series {_number(chosen)}, the {n_echoes} {chosen['component']} echoes"
            yield f"t2star would fit S(TE) = S0 exp(-TE / T2*) to {which}"
        if self.refusal:
            yield f"t2star would fit nothing: {self.refusal}"
        for reason, names in self.skipped.items():
            yield f"passed over: {len(names)} {reason}" + (f": {', '.join(names)}" if verbose else "")
        if self.skipped and not verbose:
            yield "(-v names the files passed over)"


def _number(facts: Mapping[str, Any]) -> str:
    return "without number" if facts["number"] is None else str(facts["number"])


def _echoes(facts: Mapping[str, Any]) -> str:
    te_ms = [f"{1e3 * te:g}" for te in facts["echo_times_s"]]
    if not te_ms:
        return "no usable echo times"
    return f"TE {te_ms[0]} ms" if len(te_ms) == 1 else f"{len(te_ms)} echoes, TE {' '.join(te_ms)} ms"


def inspect_images(paths: Sequence[Path], te: Sequence[float] | None = None) -> Inspection:
    """Looks at the headers of a folder of DICOM or NIfTI files, and at what `t2star` would do with them.

    Warns of what `t2star` would mend, not of files passed over: those are listed.

    Args:
        paths: a folder, or files.
        te: (echo,) echo times [s] that replace those in the files.

    Raises:
        NoInputError, CorruptInputError, MetadataError, UsageError: nothing can be listed; see `scan_images`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        scan = scan_images(paths, te)
    chosen, refusal = None, None
    try:
        chosen = dicom.choose_stack(scan) if isinstance(scan, DicomScan) else nifti_scan.choose_stack(scan)
    except (ValueError, OSError) as error:
        refusal = str(error)
    return Inspection(
        series=[_facts(stack) for stack in scan.stacks],
        would_fit=None if chosen is None else _facts(chosen),
        refusal=refusal,
        skipped=scan.skipped,
    )


def _facts(stack: Stack) -> dict[str, Any]:
    n_images = len(stack.frames) if isinstance(stack, dicom_stack.Stack) else stack.n_volumes * stack.n_slices
    return {
        "number": stack.series_number,
        "description": stack.description,
        "component": stack.component,
        "echo_times_s": [float(f"{te:.12g}") for te in stack.te],
        "shape": [*stack.shape, stack.n_slices],
        "n_images": n_images,
        "voxel_size_mm": [float(f"{edge:.9g}") for edge in stack.voxel_size],
        "scaling": stack.scaling,
        "image_type": list(stack.image_type),
    }


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

    from .record import versions

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
    }
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items())


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
