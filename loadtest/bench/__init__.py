"""Benchmarks of one part each against its rivals, run by `waypost bench NAME`.

To add one, write a module `loadtest/bench/NAME.py` with two functions (`server.measurement.Measurement`):

- `run(tell)` measures and returns the JSON's content. Call `tell("…")` before each long step. Time what is compared
  with `measure.in_turn`, in one run, and check that rivals give the same answers; put medians and p99 under keys that
  end in their unit and quantile (`waypost_us_p50`); what could not be measured is None. `environment` holds
  `measure.environment("numpy", …)` with the packages whose versions matter.
- `report(results)` makes tables, bounds and notes of it (`server.measurement.Report`), from the results alone.

Then put `<!-- begin bench NAME -->` and `<!-- end bench NAME -->` into docs/performance.md with a paragraph on the
method, and let `make bench NAME=NAME ARGS="--docs docs/performance.md"` fill in the tables. Whatever has `run` is
part of `make bench`.
"""
