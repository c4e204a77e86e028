"""The JSON file beside a NIfTI image, above all its echo time, inversion time or flip angle, in the units of BIDS.

Only physics is passed on, key by key: a sidecar may also hold names and dates.
"""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import Give, MetadataError
from ...quantities import ECHO_TIME, EFFECTIVE, Axis
from ..axis import check_axis_values
from ..bids.names import BidsName, metadata_folders, parse_name
from ..formats import NOT_FETCHED, is_not_fetched
from ..protocol import TIMING
from ..series import COMPONENTS
from ..storage.plain_files import read_bytes

CLOCK_STEP = 3 * 10**9  # ns; a folder that changed longer ago has another time of change after the next one
PHYSICS = (  # in the units of BIDS: s, deg, T, MHz, Hz, mm
    *TIMING, "MagneticFieldStrength", "ImagingFrequency", "PixelBandwidth", "SliceThickness", "SpacingBetweenSlices",
    "EchoTrainLength", "MRAcquisitionType", "ScanningSequence", "SequenceVariant", "Manufacturer",
    "ManufacturersModelName",
)  # fmt: skip

_COMPONENTS = {name: component for component in COMPONENTS for name in (component[0].upper(), component.upper())}
BIDS_PART = re.compile(r"(?:^|_)part-(mag|phase|real|imag)(?=_|$)")
# dcm2niix appends a letter to names already taken: scan_e1_ph.nii, scan_e1_pha.nii.
DCM2NIIX_PART = re.compile(r"_(phase|ph|real|imag)(?:diff|inary)?\d?[a-d]?$")

# What stands before the number of an image, or the value that it is called by: echo-2, _e2, magnitude2 of a field map.
_IN_NAMES = {
    "te": "echo[-_ ]?|e|te[-_ ]?|magnitude|mag", "ti": "inv[-_ ]?|ti[-_ ]?", "flip_angles": "flip[-_ ]?|fa[-_ ]?",
    "tsl": "tsl[-_ ]?",
}  # fmt: skip


def stem(image: Path) -> str:
    """File name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", image.name, flags=re.IGNORECASE)


def check_transmit_field(image: Path) -> None:
    """Raises MetadataError where the sidecar of a B1 map says that it is an effective one."""
    content: dict[str, Any] = {}
    with suppress(MetadataError):
        content = read_sidecar(image)
    if content.get(EFFECTIVE):
        raise MetadataError(
            f"{image.name}: an effective B1, fitted without the profile of the slice ({EFFECTIVE} in its "
            "sidecar), is no transmit field; ", Give("b1", "a measured B1 map"), ".",
        )  # fmt: skip


def read_sidecar(image: Path) -> dict[str, Any]:
    """Reads the JSON file named like an image and, for one of a BIDS dataset, what that inherits from above it.

    A file closer to the image, or in the same folder with more entities in its name, replaces keys of the others; none:
    {}. Source: the inheritance principle of BIDS 1.11.
    """
    content: dict[str, Any] = {}
    for path in sidecars_of(image):
        if is_not_fetched(path):
            raise MetadataError(f"{path.name}: {NOT_FETCHED}")
        try:
            found = read_json(path)
        except MetadataError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            reason = f"not readable ({error.strerror})" if isinstance(error, OSError) else f"not valid JSON ({error})"
            raise MetadataError(
                f"{path.name}: {reason}, so the echo time or the like is unknown; mend it, convert the images again, "
                "or ", Give("te", "the echo times, without any sidecars,", in_files="write it anew"), ".",
            ) from error  # fmt: skip
        if not isinstance(found, dict):
            raise MetadataError(f"{path.name}: holds a JSON {type(found).__name__}, not an object with keys; mend it.")
        content |= found
    return content


def read_json(path: Path) -> Any:
    """The content of a JSON file, in Unicode or, as some programs write names, in Latin-1; any line ends.

    Numbers beyond all bounds become infinite, halves of characters "?"; MetadataError where a key has two values.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content and content[key] != value:
                raise MetadataError(
                    f"{path.name}: {_whole(key)} is there twice, as {_short(content[key])} and {_short(value)}; take "
                    "out the wrong one."
                )
            content[key] = value
        return content

    options: Any = {"object_pairs_hook": unique, "parse_int": lambda digits: int(digits) if len(digits) < 20 else inf}
    content = read_bytes(path)
    try:
        found = json.loads(content, **options)
    except UnicodeDecodeError:
        found = json.loads(content.decode("latin-1"), **options)
    return _whole(found)


def _whole(value: Any) -> Any:
    """The same without halves of characters ("\\ud800"), which cannot be written."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]} ..."


def sidecars_of(image: Path) -> list[Path]:
    """The JSON files that describe an image, the one that has the last word last."""
    own = image.with_name(stem(image) + ".json")
    name = parse_name(stem(image))
    if name is None or "sub" not in name.entities:
        return [own] if own.exists() or own.is_symlink() else []
    found = []
    for folder in metadata_folders(image, name.entities["sub"]):
        named = _metadata_in(folder).get(name.suffix, ())
        found += [path for _, path in sorted((len(n.entities), path) for n, path in named if n.applies_to(name))]
    return found


def _metadata_in(folder: Path) -> Mapping[str, Sequence[tuple[BidsName, Path]]]:
    """The JSON files of a folder by suffix. A folder at rest is listed once, not for each of its images."""
    with suppress(OSError):
        state = folder.stat()
        at_rest = time.time_ns() - state.st_mtime_ns > CLOCK_STEP
        return (_listed if at_rest else _listed.__wrapped__)(folder, (state.st_mtime_ns, state.st_ino))
    return {}


@lru_cache(maxsize=32)
def _listed(folder: Path, _state: tuple[int, int]) -> Mapping[str, Sequence[tuple[BidsName, Path]]]:
    found: dict[str, list[tuple[BidsName, Path]]] = defaultdict(list)
    for entry in os.scandir(folder):
        if entry.name.endswith(".json") and (name := parse_name(entry.name.removesuffix(".json"))) is not None:
            found[name.suffix].append((name, folder / entry.name))
    return found


def sidecar_values(content: Mapping[str, Any], image: Path, axis: Axis) -> tuple[float, ...]:
    """What varies [s] or [rad] as the sidecar of an image gives it: one, one per volume, or () without the key."""
    value = content.get(axis.keyword) if axis.keyword else None
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    where = f"{stem(image)}.json: {axis.keyword}"
    if not values or not all(isinstance(t, int | float) and not isinstance(t, bool) for t in values):
        unit = axis.unit_words if axis.bids_per_si == 1 else axis.shown_unit_words
        raise MetadataError(
            f"{where} is {_short(value)}, not a number of {unit}; mend it or ",
            Give(axis.name, "the right one"),
            ".",
        )
    in_si = tuple(t / axis.bids_per_si for t in values)
    check_axis_values(axis, np.array(in_si, dtype=np.float64), where)
    return in_si


def component(image: Path, content: Mapping[str, Any]) -> str | None:
    """What the voxels are: one of COMPONENTS, "derived map" (a map the scanner made) or, where nothing tells, None.

    Said by the file name (BIDS `part-`, dcm2niix `_ph`, `_real`, `_imaginary`) or by ImageType; whichever of the two
    says that it is no magnitude is believed.
    """
    name = stem(image).lower()
    part = BIDS_PART.search(name) or DCM2NIIX_PART.search(name)
    said = [part[1][0].upper()] if part else []
    image_type = content.get("ImageType")
    words = [str(word).upper().replace("_", " ") for word in image_type[2:]] if isinstance(image_type, list) else []
    said += [word.split()[0] for word in words if word.strip()]
    found = [_COMPONENTS[word] for word in said if word in _COMPONENTS]
    if others := [component for component in found if component != "magnitude"]:
        return others[0]
    return "derived map" if any(word.endswith(" MAP") for word in words) else next(iter(found), None)


def image_numbers(image: Path, content: Mapping[str, Any], axis: Axis) -> dict[str, int]:
    """Places along an axis by where they are said: EchoNumber of the sidecar; a number in the name, see `_IN_NAMES`."""
    found: dict[str, int] = {}
    if axis is ECHO_TIME and isinstance(number := content.get("EchoNumber"), int):
        found["EchoNumber"] = number
    # dcm2niix: _e2, and a letter where the name is already taken
    named = re.findall(
        rf"(?:^|[-_. ])({_IN_NAMES.get(axis.name, axis.name)})(\d+)[a-d]?(?=[_. ]|$)", stem(image).lower()
    )
    if named:
        prefix, digits = named[-1]
        found[f"the number behind {'_' * (prefix == 'e')}{prefix} in its name"] = int(digits)
    return found
