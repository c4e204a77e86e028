"""File names of BIDS: `sub-01_ses-pre_acq-a_echo-2_part-mag_MEGRE`, entities and a suffix.

Source: the Brain Imaging Data Structure 1.11, "Filenames" and "Quantitative MRI".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FITTED = ("MEGRE", "MESE", "IRT1", "VFA")  # suffixes of the images that are fitted here
# Entities that number the images of one series or say what part of the signal they hold.
NUMBERS = {"te": "echo", "ti": "inv", "flip_angles": "flip"}
WITHIN_SERIES = ("echo", "inv", "flip", "part")


@dataclass(frozen=True)
class BidsName:
    """A name in its parts.

    Attributes:
        entities: key -> label in the order of the name, `sub` first.
        suffix: what comes last, e.g. "MEGRE".
    """

    entities: Mapping[str, str]
    suffix: str

    def __str__(self) -> str:
        return "_".join([*(f"{key}-{label}" for key, label in self.entities.items()), self.suffix])

    @property
    def is_fitted(self) -> bool:
        """Whether it is an image that some job here fits."""
        return "sub" in self.entities and self.suffix in FITTED

    @property
    def series(self) -> "BidsName":
        """The same without what differs between the images of one series."""
        return BidsName({key: label for key, label in self.entities.items() if key not in WITHIN_SERIES}, self.suffix)

    def number(self, axis_name: str) -> int | None:
        """Its place along an axis ("te", "ti", "flip_angles"), or None where the name does not say."""
        label = self.entities.get(NUMBERS[axis_name], "")
        return int(label) if label.isdecimal() else None

    def applies_to(self, other: "BidsName") -> bool:
        """Whether metadata of this name hold for an image of the other one: the inheritance principle."""
        return self.suffix == other.suffix and self.entities.items() <= other.entities.items()

    def described(self, description: str, suffix: str | None = None) -> "BidsName":
        """The same with `desc-<description>`, which comes last, and perhaps another suffix."""
        desc = {"desc": description} if description else {}
        return BidsName({**self.entities, **desc}, suffix or self.suffix)


def parse_name(stem: str) -> BidsName | None:
    """Takes a name without its ending apart.

    Args:
        stem: e.g. "sub-01_echo-1_MEGRE", or "acq-a_MEGRE" of metadata for several subjects.

    Returns:
        Its parts, or None where it is no such name.
    """
    *pairs, suffix = stem.split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    whole = len(entities) == len(pairs) and all(key and label for key, label in entities.items())
    return BidsName(entities, suffix) if whole and suffix.isalnum() else None


def metadata_folders(image: Path, subject: str) -> list[Path]:
    """Where metadata of an image may lie, from the top of its dataset down to its own folder.

    Args:
        image: the image.
        subject: its label; the dataset is the folder that has `sub-<label>`, at most two levels above the image's.
    """
    below = [image.parent, *image.parent.parents][:3]  # anat, ses-pre, sub-01
    for depth, folder in enumerate(below):
        if folder.name == f"sub-{subject}":
            return [folder.parent, *reversed(below[: depth + 1])]
    return [image.parent]
