"""What Locust loads: the personas, a shape where LOAD_SHAPE names one, and the gate at the end.

locust -f loadtest/locustfile.py --host localhost:50051
"""

from __future__ import annotations

import os
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.gate import verdict
from loadtest.personas import Browser, Buyer, Mailer
from loadtest.shapes import SHAPES

__all__ = ["Browser", "Buyer", "Mailer"]

if name := os.environ.get("LOAD_SHAPE"):
    # Locust takes the shape it finds among this module's names.
    shape = SHAPES[name]


@events.init_command_line_parser.add_listener
def add_gate_options(parser: LocustArgumentParser) -> None:
    """Add the gate's bound to Locust's options."""
    parser.add_argument(
        "--max-p99-ms", type=float, default=500.0, help="fail the run if Decide's p99 is higher"
    )


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Set the exit code."""
    options = environment.parsed_options
    problems = verdict(environment.stats, max_p99_ms=options.max_p99_ms if options else 500.0)
    for problem in problems:
        print(f"load test failed: {problem}")
    environment.process_exit_code = 1 if problems else 0
