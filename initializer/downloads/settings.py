"""What an operator may set about downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DownloadMode = Literal["MODEL_AND_TOKENIZER", "TOKENIZER_ONLY", "EXCLUDE_SAFETENSORS", "NONE"]


class ExtraFile(BaseModel):
    """A file, or a folder of files, fetched beside the model; a pair of source and destination will do in its place."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    source: str
    """Where it comes from; written as a model is, such as s3://bucket/compile-cache."""

    destination: Path
    """The folder it goes to."""

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) == 2:
            return {"source": value[0], "destination": value[1]}
        return value


class DownloadSettings(BaseModel):
    """How downloads go about their work."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    concurrency: int = Field(default=8, ge=1, le=64)
    """How many files are fetched at once."""

    attempts: int = Field(default=6, ge=1)
    """How often a file may fail in a row; a try that got further than a mebibyte begins a new row."""

    stall_seconds: float = Field(default=30.0, gt=0)
    """How long no byte may come before a try counts as failed, in seconds."""

    connect_seconds: float = Field(default=10.0, gt=0)
    """How long connecting to a server may take, in seconds."""

    first_pause_seconds: float = Field(default=0.5, ge=0)
    """How long to wait before the second try, in seconds; each further pause is twice as long, up to the longest."""

    longest_pause_seconds: float = Field(default=30.0, ge=0)
    """How long to wait between two tries at most, in seconds; a server that asks for more gets up to four times that."""
