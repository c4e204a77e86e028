"""What the series of a BIDS dataset are fitted with: the choices of `jaxqmri bids`, as jobs, words and remedies."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Remedy, UsageError, on_the_command_line
from ..io.negative import Negative
from ..mapping import all_jobs
from ..mapping.job import Job
from ..mapping.settings import settings_of

# Remedies that only the commands for one series take -> what can be done in a dataset.
_REMEDIES = (
    (r"mend or remove the file and give --te-ms, --ti-ms or --flip-deg", "mend it"),
    (r",? or give (the [a-z ]+ that are there with )?--(te-ms|ti-ms|flip-deg)( if they are)?", ""),
    (r"with --(te-ms|ti-ms|flip-deg|tr-ms)( \([a-z_]+=[^)]*\))?", "in the sidecars"),
    (r"give it with --b1( \(b1=\))?", "put it into fmap/ as TB1map"),
    (r"give a B1 map with --b1, or use --method", "put a B1 map into fmap/ and use --t2-b1 fmap, or --t2-method"),
    (r"Use --method mono", "Use --t2-method mono"),
    (r"`jaxqmri t2star` maps that", "name them MEGRE if they are"),
    (r"`jaxqmri t2` maps that", "name them MESE if they are"),
    (r"On the command line: --sigma", "In a dataset: --sigma, which then holds for all of its series"),
)


@dataclass(frozen=True)
class Settings:
    """How series are fitted, whatever there may be in a dataset.

    Attributes:
        t2star_method: of MEGRE, see `t2star_job`.
        t2_method: of MESE, see `t2_job`.
        t2_b1: where B1 of MESE comes from: "estimate", from the echoes, or "fmap", the `TB1map` of the session. That of
            VFA always comes from there.
        noise, sigma: what the noise of all images is taken to be.
        negative: what becomes of negative magnitudes, "keep" or "abs", see `Job`.

    Raises:
        UsageError: choices that contradict each other.
    """

    t2star_method: str = "lm"
    t2_method: str = "lm"
    t2_b1: str = "estimate"
    noise: str = "gaussian"
    sigma: float | None = None
    negative: Negative = "keep"

    def __post_init__(self):
        Job(noise=self.noise, sigma=self.sigma)
        if self.t2_b1 == "fmap" and self.t2_method == "mono":
            raise UsageError("--t2-method mono knows no B1; leave out --t2-b1 fmap, or use --t2-method lm.")
        for option, method, known in (
            ("--t2star-method", self.t2star_method, ("lm",)),
            ("--t2-method", self.t2_method, ("lm", "mono")),
        ):
            if self.noise == "rician" and method not in known:
                raise UsageError(f"{option} {method} knows no Rician noise; use {option} lm, or leave out --noise.")

    def uses_b1_map(self, suffix: str) -> bool:
        """Whether images of this suffix are fitted with a B1 map where there is one."""
        return suffix == "VFA" or (suffix == "MESE" and self.t2_b1 == "fmap")

    def job(self, suffix: str, b1: Path | None) -> Job:
        """The job for images of this suffix.

        Args:
            suffix: "MEGRE", "MESE", "IRT1" or "VFA".
            b1: their B1 map, where `uses_b1_map`.
        """
        (job,) = [job for job in all_jobs() if suffix in job.suffixes]
        own = {"method": self.t2star_method} if suffix == "MEGRE" else {"method": self.t2_method}
        own = {**own, **job.suffixes[suffix], **({} if b1 is None else {"b1": b1})}
        return job(**own, noise=self.noise, sigma=self.sigma, negative=self.negative)

    def arguments(self, suffix: str) -> dict[str, Any]:
        """What the record of such images says of these choices; of B1 it tells whether there was a map."""
        arguments = self.job(suffix, None).arguments()
        return {key: value for key, value in arguments.items() if key not in ("b1", "mask")}

    def options(self, suffix: str) -> list[str]:
        """The words on the command line that matter to images of this suffix; defaults are left out."""
        own = {"MEGRE": ("t2star_method",), "MESE": ("t2_method", "t2_b1")}.get(suffix, ())
        chosen = [
            f"--{name.replace('_', '-')} {value}"
            for name in own
            if (value := getattr(self, name)) != getattr(DEFAULTS, name)
        ]
        common = [row.words(getattr(self, row.name)) for row in settings_of(Job) if hasattr(self, row.name)]
        return [*chosen, *filter(None, common)]


DEFAULTS = Settings()


def for_a_dataset(text: str) -> str:
    """A message with remedies that `jaxqmri bids` can take."""
    for remedy, instead in _REMEDIES:
        text = re.sub(remedy, instead, text)
    return text


def in_a_dataset(remedy: Remedy) -> str:
    """A remedy for those who run `jaxqmri bids`."""
    return for_a_dataset(on_the_command_line(remedy))
