"""Settings of a job whose pulses make the profile of a slice."""

from typing import Any

from ..errors import Choose, Setting, UsageError

SLICE_PROFILE = {
    "help": "profile of the slice that its pulses make", "is_table": True, "or_object": "a `SliceProfile`",
    "object_type": "jaxqmri.models.slice_profile:SliceProfile",
    "choices": {
        "none": "one flip angle; B1 of a 2-D scan is then an effective one and its T2 5 to 30 % too long",
        "auto": "of 2-D series that of the vendor's usual pulses, where they are known (Siemens)",
        "sinc": "of sinc pulses with a Hann window",
        "gauss": "of Gaussian pulses",
    },
    "in_python": 'what the pulses do across the slice: "none", "auto", "sinc" or "gauss" as on the command line, a '
    "`SliceProfile`, or the path of a table: text, JSON or NPY with weight, excitation and refocusing (true over "
    "nominal flip angle) of each sample.",
}  # fmt: skip
TIME_BANDWIDTH = {"help": "bandwidth times duration of the pulses of the slice profile", "otherwise": "2"}
THICKNESS_RATIO = {"help": "thickness of the refocused over the excited slice", "otherwise": "1.2"}


def check_pulses(job: Any) -> None:
    """Raises UsageError where these settings contradict each other."""
    for name in ("time_bandwidth", "thickness_ratio"):
        number = getattr(job, name)
        if number is None:
            continue
        if not 0 < number < 100:
            raise UsageError(Setting(name), f" must be above 0 and below 100, got {number:g}.")
        if job.slice_profile not in ("auto", "sinc", "gauss"):
            raise UsageError(Setting(name), " is about pulses; ", Choose("slice_profile", "sinc"), ".")
