"""The journal of a run: one JSON object a line, the source of truth that reports are made from.

The first line names the run and the process. Each further line is one event, with its ids and both clocks. A line is
written whole and at once, so that a process that is killed loses at most the line being written. `decoder` turns lines
back into events, for everything that reads journals.
"""

from phasebus.telemetry.journal.decoder import decode, decode_line, decode_lines
from phasebus.telemetry.journal.events import (
    DecodeError,
    JournalClosed,
    JournalEvent,
    JournalOpened,
    PhaseMoment,
    RecordedError,
)
from phasebus.telemetry.journal.format import FOOTER, FORMAT, HEADER, JournalError
from phasebus.telemetry.journal.location import find_journal, journal_of, journal_path, runs_folder
from phasebus.telemetry.journal.reader import RecordedStep, Run, read_journal
from phasebus.telemetry.journal.summary import RunBeginning, RunSummary, beginning_of, summarize
from phasebus.telemetry.journal.writer import JournalWriter

__all__ = [
    "FOOTER",
    "FORMAT",
    "HEADER",
    "DecodeError",
    "JournalClosed",
    "JournalError",
    "JournalEvent",
    "JournalOpened",
    "JournalWriter",
    "PhaseMoment",
    "RecordedError",
    "RecordedStep",
    "Run",
    "RunBeginning",
    "RunSummary",
    "beginning_of",
    "decode",
    "decode_line",
    "decode_lines",
    "find_journal",
    "journal_of",
    "journal_path",
    "read_journal",
    "runs_folder",
    "summarize",
]
