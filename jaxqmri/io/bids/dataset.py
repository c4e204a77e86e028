"""Raw BIDS datasets: their participants, and which images make up a series that can be fitted.

Source: the Brain Imaging Data Structure 1.11, `sub-*/[ses-*/]anat/*_MEGRE|MESE|IRT1|VFA.nii[.gz]`; before
MEGRE was named, `*_echo-*_T2starw`.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import About, CorruptInputError, MetadataError, NoInputError, Setting, UsageError, remark
from ..formats import NIFTI_NAME, NOT_FETCHED, is_not_fetched
from ..nifti.file import read_image, read_on_grid
from ..nifti.sidecar import check_transmit_field, read_json, sidecars_of, stem
from .names import FITTED, BidsName, parse_name

DESCRIPTION = "dataset_description.json"
PLAUSIBLE_B1 = (0.3, 2.0)  # of the median; percentages and degrees are far above


@dataclass(frozen=True)
class BidsSeries:
    """Images that belong together."""

    name: BidsName  # the common part of their names, e.g. sub-01_ses-pre_run-1_MEGRE
    images: tuple[Path, ...]  # phase images and the like among them
    left_out: str = ""  # of the images of its name

    @property
    def participant(self) -> str:
        return self.name.entities["sub"]

    @property
    def session(self) -> str | None:
        return self.name.entities.get("ses")

    def sidecars(self) -> list[Path]:
        """The metadata files of all images."""
        return list(dict.fromkeys(path for image in self.images for path in sidecars_of(image)))

    def check_fetched(self) -> None:
        """Raises NoInputError or MetadataError where the content of a file is not on this disk."""
        missing = [path for path in (*self.images, *self.sidecars()) if is_not_fetched(path)]
        if missing:
            error = NoInputError if missing[0] in self.images else MetadataError
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise error(f"{missing[0].name}{others}: {NOT_FETCHED}")


@dataclass(frozen=True)
class BidsDataset:
    """A raw dataset."""

    root: Path
    description: dict[str, Any]  # `dataset_description.json`, {} where it cannot be read
    participants: tuple[str, ...]  # labels without `sub-`, sorted


def open_dataset(root: Path) -> BidsDataset:
    """Looks at the top of a dataset, with a remark where its description is missing or broken."""
    try:
        if not root.is_dir():
            problem = "is no folder" if root.exists() else "no such folder"
            raise NoInputError(f"{root}: {problem}; name the folder of a BIDS dataset, which has sub-* folders in it.")
        names = sorted(entry.name for entry in root.iterdir() if entry.name.startswith("sub-") and entry.is_dir())
    except OSError as error:
        raise NoInputError(f"{root}: cannot be read ({error.strerror}); check its name and permissions.") from error
    if not names:
        inside = " It is the folder of one participant." if root.name.startswith("sub-") else ""
        raise NoInputError(
            f"{root}: no sub-* folders, so it is no BIDS dataset.{inside} Name the folder that holds them; for images "
            "in any other order use t2star, t2 or t1."
        )
    return BidsDataset(root, _description(root / DESCRIPTION), tuple(name.removeprefix("sub-") for name in names))


def _description(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
        if isinstance(content, dict):
            return content
        problem = "is no JSON object"
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, ValueError, RecursionError):
        problem = "cannot be read"
    remark(f"{path.name} {problem}, so this may be no BIDS dataset; its sub-* folders are used as they are.")
    return {}


def _wanted(setting: str, prefix: str, labels: Sequence[str], present: Sequence[str]) -> list[str]:
    """Labels without their prefix, each once, if all of them are present."""
    wanted = list(dict.fromkeys(label.removeprefix(prefix) for label in labels))
    if unknown := [label for label in wanted if label not in present]:
        listed = " ".join(present[:20]) + (f" ... ({len(present)} in all)" if len(present) > 20 else "")
        words = f" {' '.join(unknown)}: not in this dataset, which has {listed or 'none'}."
        raise UsageError(Setting(setting), words)
    return wanted


def find_series(
    dataset: BidsDataset, participants: Sequence[str] | None = None, sessions: Sequence[str] | None = None
) -> dict[str, list[BidsSeries] | NoInputError]:
    """The series of each participant that can be fitted, sorted by name; [] where there are none, or why it is unknown.

    Labels are with or without `sub-` and `ses-`. None: all participants; all sessions, and images without a session.
    """
    everybody = dataset.participants
    participants = _wanted("participant_label", "sub-", everybody if participants is None else participants, everybody)
    if sessions is not None:
        present: set[str] = set()
        for name in participants:
            with suppress(NoInputError):  # told of below
                present.update(_sessions(dataset.root / f"sub-{name}"))
        sessions = _wanted("session_label", "ses-", sessions, sorted(present))
    found: dict[str, list[BidsSeries] | NoInputError] = {}
    for name in participants:
        try:
            found[name] = _series_of(dataset.root / f"sub-{name}", name, sessions)
        except NoInputError as error:  # which is no reason to leave out the others
            found[name] = error
    if not any(found.values()):
        who = "no participant has" if len(found) != 1 else f"sub-{participants[0]} has no"
        others = sorted(
            {suffix for name in participants for suffix in _suffixes(dataset.root / f"sub-{name}", sessions)}
        )
        there = f" (there are {', '.join(others[:8])} images, which are not mapped)" if others else ""
        raise NoInputError(
            f"{dataset.root}: {who} images to be fitted{there}; they are named sub-*_{'|'.join(FITTED)}.nii[.gz], "
            "those with T2starw also echo-*, and lie in sub-*/anat or sub-*/ses-*/anat."
        )
    return found


def find_b1_map(series: BidsSeries) -> Path | None:
    """The B1 map of a series: the one `fmap/*_TB1map` of its session, on its grid; a remark where it cannot be used."""
    folder = series.images[0].parent.parent / "fmap"
    names = ((path, parse_name(stem(path))) for path in _images(folder))
    found = [path for path, name in names if name is not None and name.suffix == "TB1map"]
    if not found:
        return None
    problem = f"there are {len(found)} of them" if len(found) > 1 else ""
    try:
        if not problem:
            check_transmit_field(found[0])
            first = read_image(series.images[0])
            values = read_on_grid(found[0], "B1 map", first.affine, first.shape[:3], "resample it onto")
            usable = values[np.isfinite(values) & (values > 0)]
            if not usable.size or not PLAUSIBLE_B1[0] < np.median(usable) < PLAUSIBLE_B1[1]:
                problem = "its values are no fractions of the nominal flip angle, 1 where it is reached"
    except (NoInputError, CorruptInputError, MetadataError) as error:
        problem = str(error)
    if not problem:
        return found[0]
    remark(About(series.name), ": ", About(found[0].name), f" is not used as B1 map ({problem.rstrip('.')}).")
    return None


def _sessions(subject: Path) -> list[str]:
    return [name.removeprefix("ses-") for name in _names(subject) if name.startswith("ses-")]


def _folders(subject: Path, sessions: Sequence[str] | None) -> dict[str | None, Path]:
    """The folder of each session, and of None, of images without one."""
    folders: dict[str | None, Path] = {} if sessions is not None else {None: subject}
    return folders | {s: subject / f"ses-{s}" for s in _sessions(subject) if sessions is None or s in sessions}


def _suffixes(subject: Path, sessions: Sequence[str] | None) -> set[str]:
    """The suffixes of all anatomical images."""
    images = [image for folder in _folders(subject, sessions).values() for image in _images(folder / "anat")]
    return {name.suffix for image in images if (name := parse_name(stem(image))) is not None}


def _series_of(subject: Path, participant: str, sessions: Sequence[str] | None) -> list[BidsSeries]:
    groups: dict[str, list[tuple[BidsName, Path]]] = {}
    for session, folder in _folders(subject, sessions).items():
        for image in _images(folder / "anat"):
            name = parse_name(stem(image))
            if name is None or not name.is_fitted:
                continue
            if not str(image.relative_to(subject.parent)).isprintable():
                where = f"{subject.name}: {image.name} or its folders have"
                raise NoInputError(f"{where} control characters, or no UTF-8, in their names; rename them.")
            stated = name.entities["sub"], name.entities.get("ses")
            if stated == (participant, session):
                groups.setdefault(str(name.series), []).append((name, image))
            else:  # without this, images of two sessions could become one series
                other = "session" if stated[0] == participant else "participant"
                remark(f"sub-{participant}: {image.name} is named after another {other} and passed over; mend it.")
    return [_first_echo(groups[key]) for key in sorted(groups)]


def _first_echo(images: Sequence[tuple[BidsName, Path]]) -> BidsSeries:
    """The series; of T1 images with several echoes each, the first echo alone, which has decayed least."""
    name, left_out = images[0][0].series, ""
    if name.suffix in ("IRT1", "VFA"):
        echoes = [n.entities.get("echo", "") for n, _ in images]
        first = min(echoes, key=lambda label: (len(label), label))
        if len(set(echoes)) > 1:
            left_out = f"of {len(set(echoes))} echoes of each image only echo-{first} is used for T1."
        images = [pair for pair, echo in zip(images, echoes, strict=True) if echo == first]
    return BidsSeries(name, tuple(path for _, path in images), left_out)


def _images(folder: Path) -> Iterator[Path]:
    return (folder / name for name in _names(folder) if NIFTI_NAME.search(name) and not name.startswith("."))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise NoInputError(f"{folder}: cannot be read ({error.strerror}); check its permissions.") from error
