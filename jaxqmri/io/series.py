"""One acquired series as numbers: images in SI units, what varies from one to the next and where the voxels lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import Choose, MetadataError, Remark, UsageError
from ..quantities import ECHO_TIME, FLIP_ANGLE, INVERSION_TIME, Axis
from .axis import by_argument, given_values
from .storage.memory import new_images

if TYPE_CHECKING:
    from .dicom.identity import DicomIdentity
    from .sequence import Kind

COMPONENTS = ("magnitude", "phase", "real", "imaginary")
TE_ROUNDING = 100e-6  # s; scanners print 0.1 ms, some by cutting digits off


@dataclass(frozen=True)
class ImageSeries:
    """Images of one object that differ in one thing, which is the last axis: echo, inversion time or flip angle.

    From your own arrays: `ImageSeries.from_arrays(images, te=[0.005, 0.010, 0.020])`. Some of the images alone, as
    without a first echo that is wrong: `series.select(slice(1, None))`.

    Attributes:
        data: (x, y, z, n) float32, rescaled as the file says [a.u.]; phase in radians.
        axis: what varies, a row of `jaxqmri.quantities`.
        values: (n,) float64 what it is in each image, ascending [s] or [rad].
        affine: (4, 4) float64, voxel index -> RAS+ [mm], as in NIfTI.
        component: "magnitude", "phase", "real" or "imaginary".
        description: the series' own name for itself, for the report alone: free text that may name a person.
        source_format: "DICOM", "NIfTI" or "arrays".
        n_files: how many files were read.
        acquisition: physics of the acquisition under BIDS key names and units (`RepetitionTime` s, `FlipAngle` deg,
            `MagneticFieldStrength` T, `Manufacturer`, ...); never a patient's identity.
        skipped: what was passed over and why, reason -> count of images, or of files that hold none.
        saturated: (x, y, z) bool, True where a stored value is at the top of its range in any image, or seems to have
            run over it to 0; or None.
        identity: whose images they are, if DICOM files said so; shown and written only where it is asked for.
        remarks: what was mended, assumed or passed over on reading.
        n_series: how many series of the scanner the images come from.
        kind: gradient or spin echoes, and what else their headers say of the sequence; None: as `acquisition` says.
        selection: where these are not all images, the others too, see `select`.
    """

    data: np.ndarray
    axis: Axis
    values: np.ndarray
    affine: np.ndarray
    component: str = "magnitude"
    description: str = ""
    source_format: str = "arrays"
    n_files: int = 0
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    saturated: np.ndarray | None = None
    identity: "DicomIdentity | None" = field(default=None, repr=False)
    remarks: tuple[Remark, ...] = ()
    n_series: int = 1
    kind: "Kind | None" = field(default=None, repr=False)
    selection: "Selection | None" = field(default=None, repr=False)

    def __post_init__(self):
        if self.data.ndim != 4:
            raise ValueError(f"data must have the axes (x, y, z, {self.axis.one}), got shape {self.data.shape}.")
        if self.values.shape != self.data.shape[-1:]:
            raise ValueError(
                f"{self.axis.name} has shape {self.values.shape}, but data {self.data.shape} has "
                f"{self.data.shape[-1]} {self.axis.many}."
            )
        if self.affine.shape != (4, 4):
            raise ValueError(f"affine must have shape (4, 4), got {self.affine.shape}.")

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.data.shape[:-1]))
        what = f"{len(self.values)} {self.axis.many}, {self.axis.listed(self.values, ' ')} {self.axis.shown_unit}"
        return f"ImageSeries({size}, {what}, {self.component}, {self.source_format})"

    @classmethod
    def from_arrays(cls, images: Any, *, affine: np.ndarray | None = None, **values_and_facts: Any) -> "ImageSeries":
        """A series of your own images.

        Args:
            images: (x, y, z, n) or (x, y, n) array [a.u.], or a nibabel image, whose affine is taken.
            affine: (4, 4), voxel index -> RAS+ [mm]; None: that of the nibabel image, or voxels of 1 mm.
            values_and_facts: what varies, exactly one of `te` [s], `ti` [s] or `flip_angles` [rad], (n,); and any other
                attribute of the series, e.g. `component="real"`, `acquisition={"RepetitionTime": 2.0}`.

        Raises:
            UsageError: none or several of them, or a length that is not that of the images' last axis; complex images.
            MetadataError: values that cannot be in SI units.

        Example:
            series = ImageSeries.from_arrays(images, te=[0.005, 0.010, 0.020])
        """
        axes = by_argument()
        given = [name for name in axes if values_and_facts.get(name) is not None]
        if len(given) != 1:
            raise UsageError(f"one of {', '.join(axes)} says what varies between the images, got {given or 'none'}.")
        (name,), axis = given, axes[given[0]]
        facts = {key: value for key, value in values_and_facts.items() if key not in axes}
        if hasattr(images, "get_fdata"):
            affine = images.affine if affine is None else affine
            images = images.get_fdata(dtype=np.float32)
        if isinstance(images, np.ma.MaskedArray):  # what is masked is no measurement
            images = np.ma.filled(images.astype(np.result_type(images.dtype, np.float32)), np.nan)
        data = images if isinstance(images, np.memmap) else np.asarray(images)  # mapped images stay mapped
        if np.iscomplexobj(data):
            raise UsageError("images are complex; give abs(images), or images.real with component='real'.")
        data = data[:, :, None] if data.ndim == 3 else data
        values = given_values(axis, values_and_facts[name])
        if data.ndim != 4 or values is None or data.shape[-1] != len(values):
            raise UsageError(
                f"images must have the axes (x, y, z, n) with one image per value of {name}, got shape {data.shape} "
                f"and {0 if values is None else len(values)} {axis.terms}."
            )
        order = np.argsort(values, kind="stable")
        ascending = bool(np.all(np.diff(order) > 0))
        data = (data if ascending else data[..., order]).astype(np.float32, copy=False)
        affine = np.eye(4) if affine is None else np.asarray(affine, np.float64)
        return cls(data, axis, values[order], affine, **facts)

    def select(self, which: Any) -> "ImageSeries":
        """The same series with some of its images: the others are not compared by a fit, and hollow in a report.

        A train of spin echoes is still simulated from its excitation on, each echo in its place.

        Args:
            which: indices counted from 0, negative ones from the end; or a slice; or (n,) bool, True for those to keep.

        Returns:
            A series in the order of `values`; its images are a view of these if they follow each other in equal steps.

        Raises:
            UsageError: fewer than two images are left, one that is not there is named, a mask is not (n,).

        Example:
            late = series.select(slice(1, None))  # without the first echo
            some = series.select(series.te < 0.060)
        """
        n, many = len(self.values), self.axis.many
        there = f"the {n} {many} of {self.axis.described(self.values)}"
        index = which if isinstance(which, slice) else np.asarray(which)
        if isinstance(index, np.ndarray) and index.size and index.dtype.kind not in "iub":
            raise UsageError(
                f"which is indices from 0, a slice or a mask of {there}; got {index.dtype} {index.tolist()}."
            )
        try:
            chosen = np.unique(np.arange(n)[index if isinstance(index, slice) or index.size else []])
        except IndexError as error:
            raise UsageError(f"which does not fit {there}, counted from 0 to {n - 1}: {error}.") from None
        if len(chosen) < 2:
            raise UsageError(f"which leaves {len(chosen)} of {there}; at least 2 are needed.")
        steps = np.unique(np.diff(chosen))
        if len(steps) == 1:
            data = self.data[..., chosen[0] : chosen[-1] + 1 : steps[0]]
        else:
            data = new_images((*self.data.shape[:3], len(chosen)), f"a selection of {there}")
            for place, i in enumerate(chosen):
                data[..., place] = self.data[..., i]
        saturated = self.saturated
        if saturated is not None:  # in its largest value, which may be left out
            voxels, saturated = np.abs(self.data[saturated]), saturated.copy()
            saturated[saturated] = voxels[:, chosen].max(axis=-1) >= voxels.max(axis=-1)
        whole, used = self.whole
        kept = np.zeros_like(used)
        kept[np.flatnonzero(used)[chosen]] = True
        selection = None if kept.all() else Selection(whole, kept)
        return replace(self, data=data, values=self.values[chosen], saturated=saturated, selection=selection)

    @property
    def whole(self) -> "Selection":
        """All images, those that are left out too, and which of them these are."""
        return self.selection or Selection(self, np.ones(len(self.values), bool))

    @property
    def te(self) -> np.ndarray:
        """(n,) echo times [s]; NaN where they do not vary and none is stated."""
        if self.axis is ECHO_TIME:
            return self.values
        return np.full(self.data.shape[-1:], self.acquisition.get("EchoTime", np.nan), np.float64)

    @property
    def ti(self) -> np.ndarray | None:
        """(n,) inversion times [s], or None if they do not vary."""
        return self.values if self.axis is INVERSION_TIME else None

    @property
    def flip_angles(self) -> np.ndarray | None:
        """(n,) nominal flip angles [rad], or None if they do not vary."""
        return self.values if self.axis is FLIP_ANGLE else None

    @property
    def clipped(self) -> np.ndarray | None:
        """(x, y, z) bool, True where the signal may be clipped or wrapped, or None: nowhere.

        The largest voxel of all alone at the top of the range is where a scanner scales images to the whole of it.
        """
        if self.saturated is None or not (n := np.count_nonzero(self.saturated)):
            return None
        return self.saturated if n > 1 or self.data[self.saturated].max() < self.data.max() else None

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel [mm]."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


class Selection(NamedTuple):
    """Some images of a series."""

    series: ImageSeries  # with all images
    used: np.ndarray  # (n,) bool, True for those selected


class EchoTrain(NamedTuple):
    """The timing of a multi-echo spin echo."""

    spacing: float  # time from echo to echo [s]
    echoes: tuple[int, ...]  # those recorded, counted from 0, as scanners may drop the first ones


def echo_train(te: np.ndarray, where: str) -> EchoTrain:
    """Finds the train that ascending echo times [s] of a file or argument, `where`, come from.

    They may miss whole multiples of one echo spacing by their rounding, 0.5 % of the spacing or 0.1 ms.
    """
    te = np.asarray(te, dtype=np.float64)
    step = np.diff(te).min()
    # From echo to echo, so that the rounding of the step does not add up over a long train.
    number = np.cumsum(np.round(np.diff(te, prepend=0.0) / step)) if step > 0 else np.zeros_like(te)
    spacing = float(number @ te / max(number @ number, 1))
    if number[0] < 1 or np.any(np.abs(te - number * spacing) > max(0.005 * spacing, TE_ROUNDING)):
        te_ms = ", ".join(f"{1e3 * t:g}" for t in te)
        raise MetadataError(
            f"{where}: echo times {te_ms} ms are no multiples of one echo spacing; the echoes are not evenly spaced: "
            "not a multi-echo spin echo, whose stimulated echoes could be simulated. ", Choose("method", "mono"), ".",
        )  # fmt: skip
    return EchoTrain(float(f"{spacing:.6g}"), tuple(int(n) - 1 for n in number))
