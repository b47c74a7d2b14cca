"""The events of a download."""

from __future__ import annotations

from dataclasses import dataclass

from phasebus.bus import StepFailed, StepFinished, StepKind, StepProgress, StepStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadStarted(StepStarted):
    """Published when a model begins to be fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgress(StepProgress):
    """Published while a model is being fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFinished(StepFinished):
    """Published when a model is there, whole; its attributes say how many bytes, files and cache hits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFailed(StepFailed):
    """Published when a model could not be fetched."""


DOWNLOAD = StepKind(
    "download", started=DownloadStarted, progress=DownloadProgress, finished=DownloadFinished, failed=DownloadFailed
)
