"""What would shorten the next start, by how much, and whether a measurement agrees."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import yaml

from phasebus.initializer.cli.measured.comparison import series
from phasebus.initializer.cli.measured.starts import (
    Contender,
    arguments_of,
    arguments_of_command,
    new_folder,
    start_in_turns,
    start_once,
)
from phasebus.initializer.cli.report.journals import described
from phasebus.initializer.engines.optional import SuggestsLevers
from phasebus.initializer.engines.registry import engine_names, find_launcher
from phasebus.telemetry import analysis
from phasebus.telemetry.analysis import Advice, Lever, spread, time_to_ready
from phasebus.telemetry.analysis.advice import SMALLEST_SHARE
from phasebus.telemetry.formatting import format_duration
from phasebus.telemetry.history import find_run, usual_runs
from phasebus.telemetry.journal import JournalError, Run, read_journal


def print_advice(runs: Sequence[str], *, as_json: bool) -> None:
    """Print what would shorten the next start of a configuration.

    Args:
        runs: Its runs; none for the last one.
        as_json: Whether to print JSON.

    Raises:
        JournalError: There is no such run, or one has not become ready.
    """
    recorded = [read_journal(find_run(name)) for name in runs or (None,)]
    _check_ready(recorded)
    differ = _spread(recorded)
    found = analysis.advise(recorded, _levers, least=differ)
    if as_json:
        click.echo(json.dumps([_plain(each) for each in found], indent=2, ensure_ascii=False))
        return
    for each in recorded:
        click.echo(described(each))
    _print(found)
    if differ > SMALLEST_SHARE * median(map(time_to_ready, recorded)):
        click.echo(
            f"\nSavings below {format_duration(differ)} are left out: starts of this configuration differ by that."
        )


def measure_advice(config: str | None, command: Sequence[str], starts: int, into: Path | None, *, cold: bool) -> None:
    """Start a configuration, or a command, with and without each change, and print the predictions beside the results.

    Args:
        config: The path of the configuration; None for a command.
        command: The command, as for ``phasebus run``.
        starts: The number of starts of each.
        into: The folder for the journals; None for a new one here.
        cold: Whether the starts without a change get empty caches.

    Raises:
        StartsError: A start fails, or the folder is not empty.
    """
    runs = [] if config is None else [config]
    _measure(_contender(runs, command, new_folder(into, "phasebus-advise"), cold=cold), runs, starts)


def _spread(runs: Sequence[Run]) -> float:
    """Return how much the starts of the configuration of `runs` differ, in seconds."""
    usual: Sequence[Run] = ()
    with suppress(JournalError):
        usual = usual_runs(runs[-1])
    return spread([time_to_ready(run) for run in {each.run: each for each in (*usual, *runs)}.values()])


def _levers(run: Run) -> Iterator[Lever]:
    yield from analysis.common_levers(run)
    for name in engine_names():
        launcher = find_launcher(name)
        if isinstance(launcher, SuggestsLevers):
            yield from launcher.levers(run)


def _check_ready(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.root is None or run.root.outcome != "finished":
            raise JournalError(f"the run {run.run} has not become ready; advice needs starts that have")


def _print(found: Sequence[Advice]) -> None:
    if not found:
        click.echo("No change that phasebus knows would shorten this start by 3 %.")
    for each in found:
        click.echo(f"\n{_saving(each)}  {each.lever.name}")
        click.echo(f"    how:  {each.lever.how}")
        if each.lever.cost:
            click.echo(f"    cost: {each.lever.cost}")


def _saving(advice: Advice) -> str:
    return f"-{format_duration(advice.saved)} ({100 * advice.share:.0f} %)"


def _plain(advice: Advice) -> dict[str, object]:
    lever = advice.lever
    return {
        "name": lever.name,
        "how": lever.how,
        "cost": lever.cost,
        "saved_seconds": advice.saved,
        "seconds": advice.before,
    }


def _contender(runs: Sequence[str], command: Sequence[str], folder: Path, *, cold: bool) -> Contender:
    arguments = arguments_of_command(command) if command else arguments_of(Path(runs[0]))
    return Contender(title="as it is", arguments=arguments, folder=folder / "as-it-is", cold=cold)


def _measure(as_it_is: Contender, runs: Sequence[str], starts: int) -> None:
    click.echo("one start, to find what can be changed", err=True)
    first = replace(as_it_is, folder=as_it_is.folder.with_name("first"))
    start_once(first)
    found = analysis.advise(series(str(first.folder)), _levers)
    with tempfile.TemporaryDirectory(prefix="phasebus-caches-", ignore_cleanup_errors=True) as caches:
        variants = [(each.lever, _variant(each.lever, as_it_is, runs, caches)) for each in found]
        changed = {lever.name: variant for lever, variant in variants if variant is not None}
        if not changed:
            _print(found)
            click.echo("Nothing of that can be changed from here, so nothing was measured.")
            return
        for lever, variant in variants:
            if variant is not None and lever.fills_caches:
                start_once(replace(variant, folder=variant.folder.with_name("filling")))
        start_in_turns([as_it_is, *changed.values()], starts)
    _report(as_it_is, changed, starts)


def _report(as_it_is: Contender, changed: Mapping[str, Contender], starts: int) -> None:
    """Print what was predicted for each change, and what was measured."""
    before = series(str(as_it_is.folder))
    # both are medians: the smallest saving, which is advised, would be compared with that of an average start
    savings = [{each.lever.name: each.saved for each in analysis.advise([run], _levers)} for run in before]
    predicted = {name: median(saved.get(name, 0.0) for saved in savings) for name in changed}
    usual, differ = median(map(time_to_ready, before)), spread([time_to_ready(run) for run in before])
    click.echo(f"as it is: ready in {format_duration(usual)} ± {format_duration(differ)}, the median of {starts}")
    for name, variant in changed.items():
        after = [time_to_ready(run) for run in series(str(variant.folder))]
        seconds = median(after)
        said = f"-{format_duration(predicted[name])}" if predicted[name] else "nothing"
        unclear = ", less than the starts differ by" if abs(seconds - usual) < max(differ, spread(after)) else ""
        click.echo(
            f"{name}: ready in {format_duration(seconds)}; predicted {said}, measured {seconds - usual:+.2f} s{unclear}"
        )


def _variant(lever: Lever, as_it_is: Contender, runs: Sequence[str], caches: str) -> Contender | None:
    """Return the same start with the lever, and the folder `caches` for what it keeps; None if it cannot be pulled from here."""
    slug = "".join(each if each.isalnum() else "-" for each in lever.name)
    changed = replace(as_it_is, title=lever.name, folder=as_it_is.folder.with_name(slug))
    if lever.variables:
        values = {name: value.format(folder=str(Path(caches, slug))) for name, value in lever.variables.items()}
        return replace(changed, variables=values)
    if lever.fills_caches and as_it_is.cold:
        return replace(changed, cold=False)
    if lever.around:
        return replace(changed, before=lever.around[0], after=lever.around[1])
    if lever.callback and runs:
        kept = _callbacks_without(Path(runs[0]), lever.callback)
        return None if kept is None else replace(changed, arguments=arguments_of(Path(runs[0]), [f"callbacks={kept}"]))
    return None


def _callbacks_without(config: Path, name: str) -> str | None:
    """Return the value of `callbacks` without the one called `name`; None if it is not in there by that name."""
    callbacks = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("callbacks")
    if not isinstance(callbacks, list):
        return None
    kept = [each for each in callbacks if not str(each).endswith((f":{name}", f".{name}"))]
    return json.dumps(kept) if len(kept) == len(callbacks) - 1 else None
