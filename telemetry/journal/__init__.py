"""The journal of a run: one JSON object a line, the source of truth that reports are made from.

The first line says what the file is and whose. Each further line is one event, with its ids and both clocks. A line is
written whole and at once, so that whatever kills the process costs at most the line being written.
"""

from phasebus.telemetry.journal.format import FOOTER, FORMAT, HEADER, JournalError
from phasebus.telemetry.journal.location import find_journal, journal_of, journal_path, runs_folder
from phasebus.telemetry.journal.reader import PhaseMoment, RecordedStep, Run, read_journal
from phasebus.telemetry.journal.writer import JournalWriter

__all__ = [
    "FOOTER",
    "FORMAT",
    "HEADER",
    "JournalError",
    "JournalWriter",
    "PhaseMoment",
    "RecordedStep",
    "Run",
    "find_journal",
    "journal_of",
    "journal_path",
    "read_journal",
    "runs_folder",
]
