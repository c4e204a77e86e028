"""Which NIfTI files of a folder make up the multi-echo series: headers and sidecars only.

dcm2niix writes one 3-D file and sidecar per echo; others one 4-D file. Files are grouped by scanner series and by
component, echoes are ordered by echo time and never by name, and where two readings are possible none is guessed.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import CorruptInputError, InputWarning, MetadataError, NoInputError, UsageError
from .nifti_file import NIFTI_NAME, NiftiImage, read_image, same_grid
from .series import check_echo_times
from .sidecar import echo_number, series_key, stem


@dataclass(frozen=True, eq=False)
class Stack:
    """Images of one scanner series and component.

    Attributes:
        images: the files, as found.
        te: echo times [s], ascending; () where unknown.
        order: which volume, counted through `images`, belongs to each of `te`.
    """

    images: tuple[NiftiImage, ...]
    te: tuple[float, ...]
    order: tuple[int, ...]

    @property
    def series_number(self) -> int | str | None:
        return self.images[0].sidecar.get("SeriesNumber")

    @property
    def description(self) -> str:
        return str(self.images[0].sidecar.get("SeriesDescription", ""))

    @property
    def component(self) -> str:
        return self.images[0].component

    @property
    def image_type(self) -> tuple[str, ...]:
        return tuple(map(str, self.images[0].sidecar.get("ImageType") or ()))

    @property
    def shape(self) -> tuple[int, int]:
        """The first two axes, x and y."""
        return self.images[0].shape[0], self.images[0].shape[1]

    @property
    def n_slices(self) -> int:
        return self.images[0].shape[2]

    @property
    def n_volumes(self) -> int:
        return sum(image.n_volumes for image in self.images)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel [mm]."""
        x, y, z = np.linalg.norm(self.images[0].affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def scaling(self) -> str:
        """How stored values become signal, in words."""
        found = sorted({(image.slope, image.intercept) for image in self.images})
        return "; ".join(f"slope {slope:g}, intercept {intercept:g}" for slope, intercept in found)

    def __str__(self) -> str:
        number = "without number" if self.series_number is None else self.series_number
        te_ms = " ".join(f"{1e3 * t:g}" for t in self.te) or "unknown"
        return f"series {number} '{self.description}' ({self.component}, TE {te_ms} ms)"


@dataclass(frozen=True, eq=False)
class NiftiScan:
    """What was found.

    Attributes:
        source: name of the folder or file asked for, for messages.
        stacks: images by series and component.
        skipped: names of what is no NIfTI image, by reason.
        te: echo times given by the user [s], or None.
        listed: whether the files were named one by one, so that their order means something.
    """

    source: str
    stacks: tuple[Stack, ...]
    skipped: Mapping[str, tuple[str, ...]]
    te: tuple[float, ...] | None
    listed: bool


def scan_nifti(paths: str | Path | Sequence[str | Path], te: Sequence[float] | np.ndarray | None = None) -> NiftiScan:
    """Lists the NIfTI images of a folder by series and component, without reading voxels.

    Args:
        paths: a folder (subfolders are not searched), one file or a list of files.
        te: echo times given by the user [s], for `choose_stack`.

    Returns:
        What was found, whether or not it can be fitted.

    Raises:
        NoInputError: no NIfTI image there.
        UsageError: `te` is not a list of numbers.
        CorruptInputError: a file cannot be read.
        MetadataError: a sidecar cannot be read, or echo times are implausible.
    """
    listed = not isinstance(paths, str | Path)
    given = [Path(path) for path in paths] if listed else [Path(paths)]
    files, skipped = _find_files(given)
    groups: dict[tuple[str, ...], list[NiftiImage]] = {}
    for image in map(read_image, files):
        groups.setdefault((image.component, *series_key(image.sidecar)), []).append(image)
    source = (given[0].name or str(given[0])) if len(given) == 1 else f"{len(given)} files"
    return NiftiScan(source, tuple(map(_stack, groups.values())), skipped, _explicit_te(te), listed)


def choose_stack(scan: NiftiScan) -> Stack:
    """Picks the one multi-echo magnitude series and orders it by echo time.

    Args:
        scan: what `scan_nifti` found.

    Returns:
        The stack to be fitted, with its echo times; warns where something was passed over or mended.

    Raises:
        UsageError: the echo times given do not fit the files.
        CorruptInputError: no magnitude, no or several multi-echo series, echoes on different grids or twice.
        MetadataError: echo times missing, or not those of the volumes.
    """
    magnitude = [stack for stack in scan.stacks if stack.component == "magnitude"]
    if not magnitude:
        found = " and ".join(sorted({stack.component for stack in scan.stacks}))
        raise CorruptInputError(f"{scan.source}: only {found} images; a fit needs magnitude images, convert those too.")
    if scan.te is None:
        for image in (image for stack in magnitude for image in stack.images):
            _check_volumes(image)
    stack = _the_series(magnitude, scan.source)
    if scan.te is not None:
        stack = _with_te(stack, scan.te, scan)
    _check_echoes(stack, scan.source)
    _check_grid(stack.images)
    _pass_on_remarks(stack.images)
    return stack


def _find_files(given: Iterable[Path]) -> tuple[list[Path], dict[str, tuple[str, ...]]]:
    files: list[Path] = []
    skipped: dict[str, tuple[str, ...]] = {}
    for path in given:
        for entry in _entries(path):
            reason = _why_not(entry)
            if not reason:
                files.append(entry)
            elif reason != "sidecar":
                skipped[reason] = (*skipped.get(reason, ()), entry.name)
    if not files:
        places = ", ".join(map(str, given)) or "an empty list"
        raise NoInputError(f"no DICOM or NIfTI images found in {places}; NIfTI file names end in .nii or .nii.gz.")
    return files, skipped


def _entries(path: Path) -> list[Path]:
    try:
        if not path.exists():
            raise NoInputError(f"{path}: no such file or folder.")
        return sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise NoInputError(f"{path}: cannot be read ({error.strerror}); check its name and permissions.") from error


def _why_not(entry: Path) -> str:
    if entry.name.startswith("."):  # also the "._e1.nii.gz" macOS leaves on foreign disks
        return "hidden file"
    if entry.is_dir():
        return "subfolder (not searched)"
    if NIFTI_NAME.search(entry.name):
        return ""
    return "sidecar" if entry.suffix.lower() == ".json" else "not NIfTI"


def _stack(images: Sequence[NiftiImage]) -> Stack:
    stack = Stack(tuple(images), (), ())
    te = [t for image in images for t in image.te]
    return _ordered(stack, te) if len(te) == stack.n_volumes else stack


def _ordered(stack: Stack, te: Sequence[float]) -> Stack:
    order = tuple(map(int, np.argsort(te, kind="stable")))
    return replace(stack, te=tuple(te[i] for i in order), order=order)


def _check_volumes(image: NiftiImage) -> None:
    name, n_te = image.path.name, len(image.te)
    if n_te == 0:
        raise MetadataError(
            f"{name}: no EchoTime, as {stem(image.path)}.json is missing or lacks it; give the echo times with "
            "--te-ms, or move the file away if it is not one of the echoes."
        )
    if n_te == 1 and image.n_volumes > 1:
        raise MetadataError(
            f"{name}: {image.n_volumes} volumes but one EchoTime ({1e3 * image.te[0]:g} ms), so its 4th axis is not "
            "echoes (from GE often magnitude, real, imaginary); keep the magnitude volume, or give --te-ms if they are."
        )
    if n_te != image.n_volumes:
        raise MetadataError(
            f"{name}: {image.n_volumes} volume(s), but {n_te} echo times in {stem(image.path)}.json; mend it or give "
            "--te-ms."
        )


def _the_series(stacks: Sequence[Stack], where: str) -> Stack:
    several = [stack for stack in stacks if stack.n_volumes > 1]
    if len(several) > 1:
        raise CorruptInputError(
            f"{where}: {len(several)} multi-echo series ({'; '.join(map(str, several))}); put the one you want into "
            "a folder of its own."
        )
    if len(stacks) == 1:
        return stacks[0]
    if several:
        message = f"{several[0]} is used; {len(stacks) - 1} single-echo image(s) of other series are not."
    else:
        _check_one_sequence(stacks, where)
        message = f"{len(stacks)} series of one echo each are taken for the echoes of one."
    warnings.warn(message, InputWarning, stacklevel=2)
    return several[0] if several else _stack([image for stack in stacks for image in stack.images])


def _check_one_sequence(stacks: Sequence[Stack], where: str) -> None:
    for key in ("RepetitionTime", "FlipAngle", "ScanningSequence"):
        found = sorted({str(stack.images[0].sidecar.get(key)) for stack in stacks})
        if len(found) > 1:
            raise CorruptInputError(
                f"{where}: no multi-echo series, but single images that differ in {key} ({', '.join(found)}), so they "
                "are not echoes of one sequence; need at least 2 echoes."
            )


def _explicit_te(te: Sequence[float] | np.ndarray | None) -> tuple[float, ...] | None:
    if te is None:
        return None
    try:
        values = np.asarray(te, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"te: echo times must be numbers in seconds, got {te!r}.") from error
    if values.ndim != 1 or values.size == 0:
        raise UsageError(f"te: a list of echo times in seconds is needed, got shape {values.shape}.")
    check_echo_times(values, "te")
    return tuple(values.tolist())


def _with_te(stack: Stack, te: tuple[float, ...], scan: NiftiScan) -> Stack:
    images = stack.images
    if len(te) != stack.n_volumes:
        raise UsageError(
            f"{scan.source}: {len(te)} echo time(s) given for {stack.n_volumes} volume(s) in {len(images)} file(s), of "
            f"shape {images[0].shape}; give one per volume."
        )
    if len(images) > 1 and stack.n_volumes > len(images):
        raise UsageError(f"{scan.source}: echo times given for several files with a 4th axis; name one of them.")
    if len(images) > 1:
        stack = replace(stack, images=_in_order_of(te, images, scan))
    if list(te) != sorted(te):
        warnings.warn("echo times given are not ascending; sorted, with their images.", InputWarning, stacklevel=2)
    return _ordered(stack, te)


def _in_order_of(te: Sequence[float], images: tuple[NiftiImage, ...], scan: NiftiScan) -> tuple[NiftiImage, ...]:
    """Files so that the k-th one belongs to the k-th echo time given: as listed, or in a folder by what they say."""
    said = [image.te for image in images]
    if not all(said) or len(set(said)) < len(said):
        said = [echo_number(image.path, image.sidecar) for image in images]
    known = None not in said and len(set(said)) == len(said)
    if not scan.listed and not known:
        raise UsageError(
            f"{scan.source}: nothing says which file belongs to which echo time given (no EchoNumber, no _e1 in the "
            "names); list the files one by one, or stack them into one 4-D file."
        )
    places = np.argsort(np.array(said, dtype=np.float64).ravel()) if known else np.arange(len(images))
    if not scan.listed:
        return tuple(images[i] for i in places)
    # A list sorted as text (e1, e10, e2) with ascending echo times would pass for good data.
    if known and not np.array_equal(places, np.argsort(te, kind="stable")):
        raise UsageError(
            f"{scan.source}: the order of the echo times given contradicts EchoTime or echo number of the files; list "
            "both in the same order."
        )
    return images


def _check_echoes(stack: Stack, where: str) -> None:
    if len(stack.te) == 1:
        raise CorruptInputError(
            f"{where}: only one echo ({1e3 * stack.te[0]:g} ms), and one image shows no decay; need at least 2 echoes."
        )
    check_echo_times(np.array(stack.te), where)
    names = [image.path.name for image in stack.images for _ in range(image.n_volumes)]
    for k in np.flatnonzero(np.diff(stack.te) == 0):
        pair = sorted({names[stack.order[k]], names[stack.order[k + 1]]})
        raise CorruptInputError(
            f"{' and '.join(pair)}: echo time {1e3 * stack.te[k]:g} ms twice (two runs, coils or time points?); leave "
            "one of them out."
        )


def _check_grid(images: Sequence[NiftiImage]) -> None:
    first = images[0]
    for image in images[1:]:
        names = f"{first.path.name} and {image.path.name}"
        if image.shape[:3] != first.shape[:3]:
            raise CorruptInputError(
                f"{names}: shapes {first.shape[:3]} and {image.shape[:3]} differ, so they are not echoes of one image; "
                "leave out what does not belong."
            )
        if not same_grid(first.affine, image.affine):
            raise CorruptInputError(
                f"{names}: affines differ, so their voxels lie at different places; leave out what does not belong or "
                "resample it."
            )


def _pass_on_remarks(images: Sequence[NiftiImage]) -> None:
    remarks = [image.remark for image in images if image.remark]
    for remark in dict.fromkeys(remarks):
        message = f"{remark} ({remarks.count(remark)} of {len(images)} files)."
        warnings.warn(message, InputWarning, stacklevel=2)
