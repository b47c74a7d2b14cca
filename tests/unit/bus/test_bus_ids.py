from __future__ import annotations

import random
import subprocess
import sys

from phasebus.bus import new_step_id, new_trace_id


def test_ids_are_hexadecimal_of_their_length_and_differ() -> None:
    steps, traces = {new_step_id() for _ in range(1000)}, {new_trace_id() for _ in range(1000)}
    assert (len(steps), len(traces)) == (1000, 1000)
    assert {len(step) for step in steps} == {16}
    assert {len(trace) for trace in traces} == {32}
    assert all(int(each, 16) for each in steps | traces)


def test_a_program_that_seeds_its_random_numbers_gets_new_ids_all_the_same() -> None:
    random.seed(5)
    first = new_trace_id()
    random.seed(5)
    assert new_trace_id() != first


def test_a_forked_process_gets_ids_of_its_own() -> None:
    program = (
        "import os; from phasebus.bus import new_step_id; child = os.fork(); child and os.waitpid(child, 0); "
        "print(new_step_id())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == 2
