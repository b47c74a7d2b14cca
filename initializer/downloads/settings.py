"""The settings of downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DownloadMode = Literal["MODEL_AND_TOKENIZER", "TOKENIZER_ONLY", "EXCLUDE_SAFETENSORS", "NONE"]


def _accept_pair(schema: dict[str, Any]) -> None:
    """Add the pair to the JSON schema of an extra file."""
    mapping = {name: schema.pop(name) for name in ("type", "properties", "required", "additionalProperties")}
    pair = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
    schema["anyOf"] = [pair, mapping]


class ExtraFile(BaseModel):
    """A file or a folder to download in addition to the model; also written as a pair of source and destination."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        json_schema_extra=_accept_pair,
    )

    source: str
    """The address, in the same form as a model's, such as s3://bucket/compile-cache."""

    destination: Path
    """The folder it is downloaded into."""

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) == 2:
            return {"source": value[0], "destination": value[1]}
        return value


class DownloadSettings(BaseModel):
    """The limits of downloads."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    concurrency: int = Field(default=8, ge=1, le=64)
    """Number of files downloaded at the same time."""

    attempts: int = Field(default=6, ge=1)
    """Maximum consecutive failed attempts per file; an attempt that gets at least 1 MiB further than all before resets the count."""

    stall_seconds: float = Field(default=30.0, gt=0)
    """Maximum time for a response to begin, and for each 4 KiB of it to arrive, in seconds; otherwise the attempt fails."""

    connect_seconds: float = Field(default=10.0, gt=0)
    """Time limit for connecting to a server, in seconds."""

    first_pause_seconds: float = Field(default=0.5, ge=0)
    """Pause before the second attempt, in seconds; each further pause is twice as long, up to `longest_pause_seconds`."""

    longest_pause_seconds: float = Field(default=30.0, ge=0)
    """Maximum pause between two attempts, in seconds; up to four times as long if the server requests it."""
