"""File names of BIDS: `sub-01_ses-pre_acq-a_echo-2_part-mag_MEGRE`, entities and a suffix.

Source: the Brain Imaging Data Structure 1.11, "Filenames" and "Quantitative MRI".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MEGRE_BEFORE = "T2starw"  # of several gradient echoes before BIDS 1.5 had MEGRE, and of a single one
FITTED = ("MEGRE", MEGRE_BEFORE, "MESE", "IRT1", "VFA")  # suffixes of images for which there is a map
NUMBERS = {"te": "echo", "ti": "inv", "flip_angles": "flip"}  # entities that number the images of a series
WITHIN_SERIES = (*NUMBERS.values(), "part")


@dataclass(frozen=True)
class BidsName:
    """A name in its parts."""

    entities: Mapping[str, str]  # key -> label in the order of the name, `sub` first
    suffix: str  # the last part, e.g. "MEGRE"

    def __str__(self) -> str:
        return "_".join([*(f"{key}-{label}" for key, label in self.entities.items()), self.suffix])

    @property
    def is_fitted(self) -> bool:
        """Whether there is a map of such images."""
        one_of_several = self.suffix != MEGRE_BEFORE or "echo" in self.entities
        return "sub" in self.entities and self.suffix in FITTED and one_of_several

    @property
    def series(self) -> "BidsName":
        """The name that all images of its series share."""
        return BidsName({key: label for key, label in self.entities.items() if key not in WITHIN_SERIES}, self.suffix)

    def number(self, axis_name: str) -> int | None:
        """Its place along an axis ("te", "ti", "flip_angles"), or None where the name has none."""
        label = self.entities.get(NUMBERS[axis_name], "")
        return int(label) if label.isdecimal() else None

    def applies_to(self, other: "BidsName") -> bool:
        """Whether metadata of this name hold for an image of the other one (inheritance principle)."""
        return self.suffix == other.suffix and self.entities.items() <= other.entities.items()

    def described(self, description: str, suffix: str | None = None) -> "BidsName":
        """The same with `desc-<description>`, the last entity, and perhaps another suffix."""
        desc = {"desc": description} if description else {}
        return BidsName({**self.entities, **desc}, suffix or self.suffix)


def parse_name(stem: str) -> BidsName | None:
    """The parts of a name without its ending, "sub-01_echo-1_MEGRE" or "acq-a_MEGRE"; None for other names."""
    *pairs, suffix = stem.split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    whole = len(entities) == len(pairs) and all(key and label for key, label in entities.items())
    return BidsName(entities, suffix) if whole and suffix.isalnum() else None


def metadata_folders(image: Path, subject: str) -> list[Path]:
    """The folders in which metadata of an image may lie, from the top of its dataset down to its own.

    `sub-<subject>` is at most two levels above the image's folder.
    """
    below = [image.parent, *image.parent.parents][:3]  # anat, ses-pre, sub-01
    for depth, folder in enumerate(below):
        if folder.name == f"sub-{subject}":
            return [folder.parent, *reversed(below[: depth + 1])]
    return [image.parent]
