"""What one vendor writes otherwise than the standard, or than the others: one function per quirk, with its tag."""

import re
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ..candidates import number

_PHILIPS_1, _PHILIPS_5 = "Philips MR Imaging DD 001", "Philips MR Imaging DD 005"
_COMPONENT_NAMES = {  # in the order of GE's codes
    "magnitude": re.compile(r"M|M_.+|MAGNITUDE"),
    "phase": re.compile(r"P|P_.+|PHASE( MAP)?|VELOCITY( MAP)?"),
    "real": re.compile(r"R|R_.+|REAL"),
    "imaginary": re.compile(r"I|I_.+|IMAGINARY"),
}
# A weighting as well as a map; Enhanced MR has the weighting in value 3 of its frame type.
_QUANTITY = re.compile(r"([TR][12]([ _]?(\*|STAR|RHO))?|FA|PD|RHO)(MAP)?")
_MAP = re.compile(r"(?!PHASE|VELOCITY).+[ _]MAP|[TR][12]([ _]?(STAR|RHO))?MAP|B[01](MAP)?|ADC(MAP)?|FIELDMAP(HZ)?")
_QUANTITY_UNITS = {"S", "MS", "HZ", "1/S", "S-1"}  # Rescale Type of a map; images carry US or nothing


def ge_component(dataset: Dataset) -> str | None:
    """GE's code (0043,102F): 0 magnitude, 1 phase, 2 real, 3 imaginary; its Image Type does not tell them apart."""
    code = _number(dataset, 0x0043, "GEMS_PARM_01", 0x2F, "<i2")
    return dict(enumerate(_COMPONENT_NAMES)).get(code)  # pyright: ignore[reportArgumentType, reportCallIssue]


def ge_receive_gains(dataset: Dataset) -> tuple[float, float] | None:
    """GE's analog and digital receive gain (0019,108A) and (0019,108B), which a prescan sets; they scale its images."""
    analog, digital = (_number(dataset, 0x0019, "GEMS_ACQU_01", offset, "<i2") for offset in (0x8A, 0x8B))
    return None if analog is None or digital is None else (analog, digital)


def is_philips(dataset: Dataset) -> bool:
    """Philips' name in Manufacturer (0008,0070) or, as anonymisers blank that, in the creator of a private block."""
    creators = (_creators(dataset, group).values() for group in (0x2001, 0x2005))
    names = [dataset.get("Manufacturer"), *(name for of_group in creators for name in of_group)]
    is_normalized = str(dataset.get("RescaleType") or "").lower() == "normalized"  # its own Rescale Type
    return is_normalized or any(str(name or "").upper().startswith("PHILIPS") for name in names)


def philips_scale_slope(dataset: Dataset) -> float | None:
    """Philips' (2005,100E): displayed value / (Rescale Slope * this) is comparable between images."""
    value = _number(dataset, 0x2005, _PHILIPS_1, 0x0E, "<f4")
    return value if value is not None and 1e-30 < value < 1e30 else None


def copy_philips_scale_slope(groups: Dataset, header: Dataset) -> None:
    """Philips' (2005,140F) of each frame of an Enhanced file, or (2005,140E) of all: a copy of classic headers, with
    the scale slope."""
    classic = _value(groups, 0x2005, _PHILIPS_5, 0x0F, 0x140F) or _value(groups, 0x2005, _PHILIPS_5, 0x0E, 0x140E)
    value = _value(classic[0] if isinstance(classic, Sequence) and classic else groups, 0x2005, _PHILIPS_1, 0x0E)
    if value is not None:
        header.private_block(0x2005, _PHILIPS_1, create=True).add_new(0x0E, "FL", value)


def is_siemens_mosaic(image_type: tuple[str, ...]) -> bool:
    """Siemens' MOSAIC in Image Type (0008,0008): all slices of a volume side by side in one image."""
    return "MOSAIC" in image_type


def component_by_name(dataset: Dataset, image_type: tuple[str, ...]) -> str | None:
    """Complex Image Component (0008,9208), or Image Type (0008,0008): Siemens' P, Philips' PHASE MAP or R_FFE."""
    for token in (str(dataset.get("ComplexImageComponent") or "").upper(), *image_type[2:4]):
        for component, pattern in _COMPONENT_NAMES.items():
            if pattern.fullmatch(token):
                return component
    return None


def is_map(image_type: tuple[str, ...], unit: str, enhanced: bool) -> bool:
    """Image Type (0008,0008) or the unit of image values of a map: Siemens' T2_STAR MAP, Philips' B0, Hz."""
    if unit.upper() in _QUANTITY_UNITS or any(_MAP.fullmatch(token) for token in image_type[2:]):
        return True
    kinds = image_type[3 if enhanced else 2 :]
    return "DERIVED" in image_type[:1] and any(_QUANTITY.fullmatch(token) for token in kinds)


def _value(dataset: Dataset, group: int, creator: str, offset: int, customary: int | None = None) -> Any:
    """A private value; in its customary block if an anonymiser has taken out the creator element and left the value."""
    number = customary or 0x1000 + offset
    blocks = _creators(dataset, group)
    places = [(block << 8) + offset for block, reserved_for in blocks.items() if reserved_for == creator]
    if blocks.get(number >> 8) in (None, "", creator):
        places.append(number)
    return next((dataset[group, place].value for place in places if (group, place) in dataset), None)


def _creators(dataset: Dataset, group: int) -> dict[int, Any]:
    """Private blocks -> whom they are reserved for; `Dataset.private_block` sorts all elements each time."""
    return {tag & 0xFF: dataset[tag].value for tag in list(dataset.keys()) if tag >> 8 == group << 8}


def _number(dataset: Dataset, group: int, creator: str, offset: int, raw_type: str) -> float | None:
    """A private number; from raw bytes where implicit VR files left its type open."""
    value = _value(dataset, group, creator, offset)
    if isinstance(value, bytes):
        n_bytes = np.dtype(raw_type).itemsize
        return float(np.frombuffer(value[:n_bytes], raw_type)[0]) if len(value) >= n_bytes else None
    return number(value)
