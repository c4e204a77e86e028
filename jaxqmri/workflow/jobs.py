"""The jobs there are: what each estimates from which images. To add one, write a function here and a subcommand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..io.images import read_b1_map
from ..io.maps import Maps
from ..io.series import ImageSeries
from ..mapping import DEFAULT_T1, noise_of, t1_map, t2_map, t2star_map
from ..mapping.predictions import compare_with_mono, decay_curves, flip_angle_curves, recovery_curves, train_curves
from .run import Estimate, Job


@dataclass(frozen=True)
class NoiseChoice:
    """What the noise is taken to be, before the images are there; see `noise_of`.

    Attributes:
        kind: "gaussian" or "rician".
        sigma: its level [units of the images], or None.

    Raises:
        UsageError: a level that cannot be.
    """

    kind: str = "gaussian"
    sigma: float | None = None

    def __post_init__(self):
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise UsageError(f"--sigma must be above 0 and finite, got {self.sigma:g}.")

    @property
    def options(self) -> list[str]:
        """The words on the command line."""
        kind = [] if self.kind == "gaussian" else [f"--noise {self.kind}"]
        return kind + ([] if self.sigma is None else [f"--sigma {self.sigma:g}"])

    def maps(self, series: ImageSeries, pipeline: Callable[..., Maps], **arguments: Any) -> Maps:
        """The maps of a pipeline under this noise, whose words say where its level comes from."""
        noise, words = noise_of(series, self.kind, self.sigma)
        maps = pipeline(series, noise=noise, **arguments)
        if words is not None:
            maps.metadata["Noise"] = words
        return maps


LEVEL_FROM_RESIDUALS = NoiseChoice()


def t2star_job(method: str = "lm", te: Sequence[float] | None = None, noise: NoiseChoice = LEVEL_FROM_RESIDUALS) -> Job:
    """T2* of multi-echo gradient echoes.

    Args:
        method: "lm", "loglinear" or "adam", see `t2star_map`.
        te: (echo,) echo times [s] that replace those in the files.
        noise: what the noise is taken to be; Rician noise goes with "lm" only.

    Raises:
        UsageError: arguments that contradict each other.
    """
    if noise.kind == "rician" and method != "lm":
        raise UsageError(f"--method {method} knows no Rician noise; use --method lm.")

    def estimate(series: ImageSeries, mask: np.ndarray | None, progress: Callable[[int], None]) -> Estimate:
        maps = noise.maps(series, t2star_map, method=method, mask=mask, progress=progress)
        return Estimate(maps, lambda voxels: decay_curves(series.te, maps["S0map"][voxels], maps["T2starmap"][voxels]))

    return Job(
        word="t2star",
        label="T2*",
        main_map="T2starmap",
        estimate=estimate,
        options=[f"--method {method}", *noise.options],
        arguments={"method": method, "noise": noise.kind, "sigma": noise.sigma},
        given=te,
    )


def t2_job(
    method: str = "lm",
    b1: Path | None = None,
    t1: float | None = None,
    flip_angle: float | None = None,
    te: Sequence[float] | None = None,
    noise: NoiseChoice = LEVEL_FROM_RESIDUALS,
) -> Job:
    """T2, and B1 where it is not given, of multi-echo spin echoes.

    Args:
        method: "lm", "dictionary" or "mono", see `t2_map`.
        b1: a NIfTI file on the grid of the images, true / nominal flip angle; None: B1 is estimated too.
        t1: T1 of all tissue [s]; None: see `t2_map`.
        flip_angle: nominal refocusing angle [rad]; None: see `t2_map`.
        te: (echo,) echo times [s] that replace those in the files.
        noise: what the noise is taken to be; Rician noise does not go with "dictionary".

    Raises:
        UsageError: arguments that contradict each other.
    """
    if noise.kind == "rician" and method == "dictionary":
        raise UsageError(f"--method {method} knows no Rician noise; use --method lm.")
    if method == "mono" and any(value is not None for value in (b1, t1, flip_angle)):
        raise UsageError(
            "--method mono knows no B1, T1 or refocusing angle; leave out --b1, --t1-ms, --refocusing-deg."
        )

    if t1 is not None and not t1 > 0:
        raise UsageError(f"--t1-ms must be above 0, got {1e3 * t1:g}.")

    def estimate(series: ImageSeries, mask: np.ndarray | None, progress: Callable[[int], None]) -> Estimate:
        if method == "mono":
            maps = noise.maps(series, t2_map, method=method, mask=mask, progress=progress)
            return Estimate(maps, lambda voxels: decay_curves(series.te, maps["M0map"][voxels], maps["T2map"][voxels]))
        known: Any = {
            "b1": None if b1 is None else read_b1_map(b1, series),
            "t1": DEFAULT_T1 if t1 is None else t1,
            "flip_angle": flip_angle,
        }
        maps = noise.maps(series, t2_map, method=method, **known, mask=mask, progress=progress)
        return Estimate(
            maps,
            curves=lambda voxels: train_curves(series, maps, voxels, **known),
            compare=lambda: compare_with_mono(series, maps, **known),
        )

    options = [f"--method {method}"]
    options += [] if b1 is None else ["--b1 FILE"]
    options += [] if t1 is None else [f"--t1-ms {1e3 * t1:.10g}"]
    options += [] if flip_angle is None else [f"--refocusing-deg {np.rad2deg(flip_angle):.10g}"]
    options += noise.options
    return Job(
        word="t2",
        label="T2",
        main_map="T2map",
        estimate=estimate,
        options=options,
        arguments={
            "method": method,
            "b1": b1 and "FILE",
            "t1_s": t1,
            "flip_angle_rad": flip_angle,
            "noise": noise.kind,
            "sigma": noise.sigma,
        },
        files={} if b1 is None else {"--b1": b1},
        given=te,
    )


def t1_job(
    method: str = "auto",
    *,
    tr: float | None = None,
    efficiency: float | None = None,
    b1: Path | None = None,
    component: str | None = None,
    ti: Sequence[float] | None = None,
    flip_angles: Sequence[float] | None = None,
    noise: NoiseChoice = LEVEL_FROM_RESIDUALS,
) -> Job:
    """T1 of images of different inversion times or flip angles.

    Args:
        method: "ir", "vfa" or "auto", see `t1_map`.
        tr: repetition time [s]; None: that of the images.
        efficiency: of the inversion; None: see `t1_map`.
        b1: a NIfTI file on the grid of the images, true / nominal flip angle; None: 1 everywhere.
        component: "magnitude" or "real" images; None: magnitude if there are.
        ti: (n,) inversion times [s] that replace those in the files.
        flip_angles: (n,) flip angles [rad] that replace those in the files.
        noise: what the noise is taken to be; Rician noise goes with magnitude images only.

    Raises:
        UsageError: arguments that contradict each other.
    """
    if ti is not None and flip_angles is not None:
        raise UsageError("--ti-ms and --flip-deg are both given, but only one can vary; give the one that does.")
    if (method == "ir" and flip_angles is not None) or (method == "vfa" and ti is not None):
        wanted, other = ("--ti-ms", "--flip-deg") if method == "ir" else ("--flip-deg", "--ti-ms")
        raise UsageError(f"--method {method} needs no {other}; give {wanted}, or another method.")
    inverted = {"ir": True, "vfa": False}.get(method, None if ti is None and flip_angles is None else ti is not None)
    if inverted and b1 is not None:
        raise UsageError("inversion recovery needs no B1 map: its efficiency is estimated; leave out --b1.")
    if inverted is False and efficiency is not None:
        raise UsageError("variable flip angles have no inversion; leave out --efficiency.")
    axes = ("ti", "flip_angle") if inverted is None else ("ti",) if inverted else ("flip_angle",)

    def estimate(series: ImageSeries, mask: np.ndarray | None, progress: Callable[[int], None]) -> Estimate:
        b1_map = None if b1 is None else read_b1_map(b1, series)
        known = {"tr": tr, "efficiency": efficiency, "b1": b1_map}
        maps = noise.maps(series, t1_map, **known, mask=mask, progress=progress)
        if series.ti is not None:
            return Estimate(maps, lambda voxels: recovery_curves(series, maps, voxels, tr=tr, efficiency=efficiency))
        return Estimate(maps, lambda voxels: flip_angle_curves(series, maps, voxels, tr=tr, b1=b1_map))

    options = [f"--method {method}"]
    options += [] if tr is None else [f"--tr-ms {1e3 * tr:.10g}"]
    options += [] if efficiency is None else [f"--efficiency {efficiency:g}"]
    options += [] if b1 is None else ["--b1 FILE"]
    options += noise.options
    return Job(
        word="t1",
        label="T1",
        main_map="T1map",
        estimate=estimate,
        options=options,
        arguments={
            "method": method,
            "tr_s": tr,
            "efficiency": efficiency,
            "b1": b1 and "FILE",
            "noise": noise.kind,
            "sigma": noise.sigma,
        },
        files={} if b1 is None else {"--b1": b1},
        axes=axes,
        component=component,
        given=flip_angles if ti is None else ti,
    )
