"""RunConfig: what a run of the command reads, and how it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gramian.adapters.config.domain_sources import check_domains
from gramian.adapters.config.settings import FLAG, NAME, NATURAL, POSITIVE, SOURCES, check_ranges, one_of, setting

__all__ = ["RunConfig"]

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class RunConfig:
    """What a run of the command reads and how it is saved."""

    calibration: str | Mapping[str, float] = setting(
        "builtin", SOURCES, "builtin (English that ships with Python), self (sampled from the model), FILE.txt, "
        "FILE.safetensors (an integer tensor `tokens`, one window a row), FILE.jsonl (texts with labels), or "
        "hf:DATASET[:CONFIG][:SPLIT] (extra `datasets`); a line of FILE.jsonl has text and label, or source and target; "
        "of several sources each with its weight, such as law.txt=0.7, to which windows and tokens are weighted",
    )  # fmt: skip
    samples: int = setting(32, POSITIVE, "windows")
    length: int | None = setting(None, POSITIVE, "tokens in a window (512, or the model's context if that is less)")
    seed: int = setting(0, NATURAL, "which windows, where the source has more")
    recovery_calibration: str | None = setting(
        None, NAME, "a source of its own for what makes up for removed units: windows, named as for --calibration; units are "
        "still chosen on the calibration windows", of="units",
    )  # fmt: skip
    recovery_samples: int | None = setting(None, POSITIVE, "how many of them (as many as samples)", of="units")
    heldout: int | None = setting(
        None, NATURAL, "windows of the same source that are not calibrated on: errors are measured on them, and perplexity on "
        "the first 8 (an eighth of samples, at least 1; 0 for none)",
    )  # fmt: skip
    dtype: str = setting(
        "auto", one_of(*DTYPES), "dtype in which weights are stored, the checkpoint's own where auto; on a CPU the model runs "
        "in float32",
    )  # fmt: skip
    pad: bool = setting(
        False, FLAG, "save with zeros in place of removed units: where that is needed for widths that any program loads",
        of="units",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_ranges(self)
        if isinstance(self.calibration, Mapping):
            check_domains(self.calibration, self.samples, self.recovery_calibration)
        if self.recovery_samples is not None and self.recovery_calibration is None:
            raise ValueError(f"recovery_samples={self.recovery_samples} needs a source: give recovery_calibration= too")

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that calibrate."""
        return (self.calibration,) if isinstance(self.calibration, str) else tuple(self.calibration)

    @property
    def apart(self) -> int:
        """How many windows are held out."""
        return max(1, self.samples // 8) if self.heldout is None else self.heldout

    @property
    def recovery(self) -> tuple[str, int] | None:
        """The source of windows for recovery, and how many of them there are."""
        source = self.recovery_calibration
        return None if source is None else (source, self.recovery_samples or self.samples)
