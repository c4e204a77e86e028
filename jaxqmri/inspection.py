"""What is there: the images in a folder, and the parts of this installation."""

import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .io import dicom, nifti_scan
from .io.datasets import cache_dir
from .io.dicom_scan import DicomScan
from .io.images import scan_images


@dataclass(frozen=True)
class Inspection:
    """What a folder holds.

    Attributes:
        series: one dictionary of facts per group of images, in the order of the scanner's series numbers.
        chosen: index of the one that would be fitted, or None.
        refusal: why none would be fitted, or None.
        skipped: reason -> names of the files passed over.
    """

    series: Sequence[Mapping[str, Any]]
    chosen: int | None
    refusal: str | None
    skipped: Mapping[str, Sequence[str]]

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "series": [dict(facts) for facts in self.series],
            "would_fit": self.chosen,
            "refusal": self.refusal,
            "skipped": {reason: len(names) for reason, names in self.skipped.items()},
        }

    def text(self, verbose: bool = False) -> str:
        """For people; `verbose` names the files passed over."""
        lines = []
        for index, facts in enumerate(self.series):
            lines.append(f"series {facts['number']}: {facts['description'] or '(no description)'}")
            te = " ".join(f"{te:g}" for te in facts["te_ms"])
            lines.append(f"  {facts['component']}, {len(facts['te_ms'])} echoes, TE {te or 'unknown'} ms")
            size = " x ".join(map(str, facts["shape"]))
            voxel = " x ".join(f"{edge:.4g}" for edge in facts["voxel_mm"])
            lines.append(f"  matrix {size}, voxel {voxel} mm, pixel values: {facts['scaling']}")
            if index == self.chosen:
                lines.append("  -> jaxqmri t2star would fit this one: S(TE) = S0 exp(-TE / T2*)")
        if self.refusal:
            lines.append(f"nothing would be fitted: {self.refusal}")
        for reason, names in self.skipped.items():
            shown = ": " + ", ".join(names) if verbose else ""
            lines.append(f"passed over: {len(names)} {reason}{shown}")
        return "\n".join(lines)


def inspect_images(paths: Sequence[Path], te: Sequence[float] | None = None) -> Inspection:
    """Looks at the headers of a folder of DICOM or NIfTI files, and at what `t2star` would do with them.

    Args:
        paths: a folder, or files.
        te: (echo,) echo times [s] that replace those in the files.

    Raises:
        NoInputError, CorruptInputError, MetadataError, UsageError: nothing can be listed; see `scan_images`.
    """
    scan = scan_images(paths, te)
    chosen, refusal = None, None
    try:
        stack = dicom.choose_stack(scan) if isinstance(scan, DicomScan) else nifti_scan.choose_stack(scan)
        # choose_stack may return the stack in another order than it was found in.
        chosen = next((i for i, s in enumerate(scan.stacks) if _same(s, stack)), None)
    except (ValueError, OSError) as error:
        refusal = str(error)
    return Inspection([_facts(stack) for stack in scan.stacks], chosen, refusal, scan.skipped)


def _same(a: Any, b: Any) -> bool:
    return a is b or (a.series_number, a.description, a.component, a.shape) == (
        b.series_number, b.description, b.component, b.shape,
    )  # fmt: skip


def _facts(stack: Any) -> dict[str, Any]:
    return {
        "number": stack.series_number,
        "description": stack.description,
        "component": stack.component,
        "te_ms": [float(f"{1e3 * te:.10g}") for te in stack.te],
        "shape": [*stack.shape, stack.n_slices],
        "voxel_mm": list(stack.voxel_size),
        "scaling": stack.scaling,
        "image_type": list(stack.image_type),
    }


_CODECS = {"pylibjpeg": "JPEG, JPEG-LS", "openjpeg": "JPEG 2000", "gdcm": "all of them", "rle": "fast RLE"}


def installation() -> dict[str, str]:
    """Versions, devices, cache folder and DICOM codecs, in words."""
    import jax

    from .jobs import versions

    codecs = [f"{name} ({what})" for name, what in _CODECS.items() if importlib.util.find_spec(name)]
    return {
        **versions(),
        "platform": platform.platform(),
        "processors": str(os.cpu_count()),
        "devices": ", ".join(f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()),
        "data cache": str(cache_dir()),
        "dicom codecs": ", ".join(codecs) or 'none beyond pydicom\'s own; pip install "jaxqmri[dicom-codecs]"',
    }
