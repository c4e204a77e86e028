"""Which job maps a series of a BIDS dataset, what can be chosen for it, and remedies in the words of `jaxqmri bids`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import Choose, Give, MapWith, Remedy, UsageError, Wording, in_words, on_the_command_line
from ..mapping import all_jobs
from ..mapping.job import Job
from ..mapping.settings import SettingRow, settings_of
from ..quantities import QUANTITIES

FOR_ALL_SERIES = ("noise", "sigma", "negative", "mask")
FROM_FMAP = "fmap"  # stands for the TB1map of the session


@cache
def jobs() -> dict[str, type[Job]]:
    """BIDS suffix of raw images -> the job that maps them."""
    return {suffix: job for job in all_jobs() for suffix in job.suffixes}


@cache
def settings_for(job: type[Job]) -> dict[str, SettingRow]:
    """What can be chosen for the series of a job, by its name there: what neither images nor their suffix decide.

    The option, and the argument of `run_bids`, of a setting that only this job has begins with the job: "t2_method".
    """
    rows, found = {row.name: row for row in settings_of(job)}, {}
    common = {row.name for row in settings_of(Job)}
    decided = {name for settings in job.suffixes.values() for name in settings}
    for row in rows.values():
        of_session = row.name == "b1"  # of the maps of a setting the only one that a session may have
        if row.name in common or row.name in decided or row.of_reading or not (row.choices or of_session):
            continue
        choices = {"estimate": row.otherwise, FROM_FMAP: "the fmap/*_TB1map of the session"}
        as_choice = {"is_map": False, "otherwise": "", "choices": choices} if of_session else {}
        own = {"name": f"{job.name}_{row.name}", "help": f"of {' and '.join(job.suffixes)}", "always_stated": False}
        found[row.name] = replace(row, **own, **as_choice, is_table=False)
    return found | {name: replace(rows[name], is_map=False) for name in FOR_ALL_SERIES}


def dataset_settings() -> dict[str, SettingRow]:
    """All that can be chosen for a dataset, by name of the argument."""
    found: dict[str, SettingRow] = {}
    for job in dict.fromkeys(jobs().values()):
        for row in settings_for(job).values():
            # Of settings for all series the words of the job that says what it does where nothing is chosen.
            found[row.name] = row if row.otherwise or row.name not in found else found[row.name]
    return found


def chosen_for(suffix: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the job for a suffix, by their names there; `b1` is "fmap" where a map is to be used."""
    job = jobs()[suffix]
    chosen = {name: settings[row.name] for name, row in settings_for(job).items() if row.name in settings}
    return chosen | dict(job.suffixes[suffix])


def make_job(suffix: str, settings: Mapping[str, Any], b1: Path | float | None = None) -> Job:
    """The job for a suffix; settings of `dataset_settings` that are not given have their defaults.

    The B1 map is used where there is one and `chosen_for` wants it.
    """
    chosen = chosen_for(suffix, settings)
    if chosen.pop("b1", None) == FROM_FMAP:
        chosen["b1"] = b1
    return jobs()[suffix](**chosen)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises UsageError where there is no such setting or value, or where they contradict each other."""
    rows = dataset_settings()
    for name, value in settings.items():
        if name not in rows:
            raise UsageError(f"{name} is no setting for a dataset; there are {', '.join(rows)}.")
        rows[name].check(value)
    for suffix, job in jobs().items():
        try:
            make_job(suffix, settings, b1=1.0)
        except UsageError as error:
            raise UsageError(in_words(error.parts, in_a_dataset(job))) from None


def in_a_dataset(job: type[Job]) -> Wording:
    """Remedies for those who run `jaxqmri bids`, about series that a job maps."""
    own = settings_for(job)

    def wording(remedy: Remedy) -> str:
        match remedy:
            case MapWith(other):
                return f"name them {' or '.join(s for s, of_it in jobs().items() if of_it.name == other)} if they are"
            case Choose("series", name):
                return f"keep only series {name}"
            case Choose("component", part):
                return f"name them part-{part}"
            case Give("b1", what):
                option = f" and use {own['b1'].flag} {FROM_FMAP}" if "b1" in own else ""
                return f"put {what or 'it'} into fmap/ as TB1map{option}"
            case Give(in_files=instead) if instead:
                return instead
            case Give(name, what) if name not in own and name in QUANTITIES and (key := QUANTITIES[name].keyword):
                return f"state {f'{what} ({key})' if what else key} in the sidecars"
        if remedy.setting not in own:
            return on_the_command_line(remedy)
        words = on_the_command_line(replace(remedy, setting=own[remedy.setting].name))
        return f"{words}, which then holds for all series" if isinstance(remedy, Give) else words

    return wording
