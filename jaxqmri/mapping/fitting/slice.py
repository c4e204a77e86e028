"""The slice profile of a series of spin echoes: of chosen pulses, of the vendor's usual ones, or from a file."""

import json
from pathlib import Path

import numpy as np

from ...errors import Choose, MetadataError, NoInputError, remark
from ...io.formats import input_errors
from ...io.series import ImageSeries
from ...models.slice_profile import SliceProfile, measured_profile, slice_profile

TIME_BANDWIDTH, THICKNESS_RATIO = 2.0, 1.2

# Multi-echo spin echo of Siemens: Hann-windowed sinc pulses, the refocused slice 1.2 times as thick. Santini et al.,
# Front Neurol 12:630387 (2021) and their MyoQMRI, whose pulses have a time-bandwidth product of 2. Nothing is published
# that would hold for all spin echoes of another vendor.
_USUAL = {"siemens": ("sinc", 2.0, 1.2)}


def profile_of(
    series: ImageSeries, wanted: "str | Path | SliceProfile | None", time_bandwidth: float | None, ratio: float | None
) -> tuple[SliceProfile | None, str]:
    """What was wanted, see `T2.slice_profile`, and in words what that assumes; a remark on pulses that are assumed."""
    if isinstance(wanted, SliceProfile):
        return wanted, "slice profile given"
    if isinstance(wanted, Path):
        return read_profile(wanted), "slice profile from a file; its flip angles grow with B1 in proportion"
    shape = wanted or "none"
    if shape == "auto":
        shape, time_bandwidth, ratio = _usual_pulses(series, time_bandwidth, ratio)
    if shape == "none":
        return None, ""
    product, ratio = time_bandwidth or TIME_BANDWIDTH, ratio or THICKNESS_RATIO
    pulses = "Hann-windowed sinc" if shape == "sinc" else "Gaussian"
    words = (
        f"{pulses} pulses of time-bandwidth product {product:g}, refocused slice {ratio:g} times as thick as excited"
    )
    if wanted == "auto":
        remark(
            f"slice profile assumed from the scanner's make: {words}, as usual for its multi-echo spin echoes; 10 % in "
            "that ratio change T2 by up to 4 %; ", Choose("slice_profile", "sinc"), " with numbers that are known.",
        )  # fmt: skip
    return slice_profile(shape, None, ratio, time_bandwidth=product), f"slice profile of {words}"


def _usual_pulses(
    series: ImageSeries, time_bandwidth: float | None, ratio: float | None
) -> tuple[str, float | None, float | None]:
    make, encoding = (str(series.acquisition.get(key, "")) for key in ("Manufacturer", "MRAcquisitionType"))
    usual = next((pulses for name, pulses in _USUAL.items() if name in make.lower()), None)
    if encoding == "3D":
        return "none", None, None
    if usual is None or encoding != "2D":
        why = f"the usual pulses of {make} are not known" if encoding == "2D" and make else "make or 2D is not stated"
        remark(
            f"no slice profile is taken into account, as {why}; ",
            Choose("slice_profile", "sinc"),
            " if they are like that.",
        )
        return "none", None, None
    return usual[0], time_bandwidth or usual[1], ratio or usual[2]


def read_profile(path: Path) -> SliceProfile:
    """A table of a row per sample: weight, then true over nominal flip angle of excitation and of refocusing.

    Text with three columns (`#` begins a comment), JSON with the keys `weights`, `excitation` and `refocusing`, or an
    NPY array (sample, 3).
    """
    if not path.is_file():
        raise NoInputError(f"{path}: no such slice profile.")
    try:
        with input_errors(path):
            if path.suffix == ".json":
                content = json.loads(path.read_text())
                columns = [content[key] for key in ("weights", "excitation", "refocusing")]
            else:
                table = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=2)
                columns = np.asarray(table, np.float64).T
        return measured_profile(*columns)
    except (ValueError, TypeError, KeyError, UnicodeError) as error:
        what = f"{path.name}: no slice profile with columns weight, excitation, refocusing ({error}); mend the table."
        raise MetadataError(what) from None
