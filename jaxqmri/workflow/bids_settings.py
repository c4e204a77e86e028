"""What the series of a BIDS dataset are fitted with: the choices of `jaxqmri bids`, as jobs, words and remedies."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..io.negative import Negative
from .jobs import LEVEL_FROM_RESIDUALS, NoiseChoice, t1_job, t2_job, t2star_job
from .run import Job

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
        noise: what the noise of all images is taken to be.
        negative: what becomes of negative magnitudes, "keep" or "abs", see `Job`.

    Raises:
        UsageError: choices that contradict each other.
    """

    t2star_method: str = "lm"
    t2_method: str = "lm"
    t2_b1: str = "estimate"
    noise: NoiseChoice = LEVEL_FROM_RESIDUALS
    negative: Negative = "keep"

    def __post_init__(self):
        if self.t2_b1 == "fmap" and self.t2_method == "mono":
            raise UsageError("--t2-method mono knows no B1; leave out --t2-b1 fmap, or use --t2-method lm.")
        for option, method, known in (
            ("--t2star-method", self.t2star_method, ("lm",)),
            ("--t2-method", self.t2_method, ("lm", "mono")),
        ):
            if self.noise.kind == "rician" and method not in known:
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
        if suffix == "MEGRE":
            job = t2star_job(self.t2star_method, noise=self.noise)
        elif suffix == "MESE":
            job = t2_job(self.t2_method, b1=b1, noise=self.noise)
        else:
            job = t1_job("ir" if suffix == "IRT1" else "vfa", b1=b1, noise=self.noise)
        return replace(job, negative=self.negative)

    def arguments(self, suffix: str) -> dict[str, Any]:
        """What the record of such images says of these choices; of B1 it tells whether there was a map."""
        job = self.job(suffix, None)
        return {key: value for key, value in job.arguments.items() if key != "b1"} | {"negative": job.negative}

    def options(self, suffix: str) -> list[str]:
        """The words on the command line that matter to images of this suffix; defaults are left out."""
        own = {"MEGRE": ("t2star_method",), "MESE": ("t2_method", "t2_b1")}.get(suffix, ())
        chosen = [
            f"--{name.replace('_', '-')} {value}"
            for name in own
            if (value := getattr(self, name)) != getattr(DEFAULTS, name)
        ]
        return chosen + self.noise.options + ([] if self.negative == "keep" else [f"--negative {self.negative}"])


DEFAULTS = Settings()


def for_a_dataset(text: str) -> str:
    """A message with remedies that `jaxqmri bids` can take."""
    for remedy, instead in _REMEDIES:
        text = re.sub(remedy, instead, text)
    return text
