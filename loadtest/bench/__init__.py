"""Benchmarks of one part each against its rivals: a module with `run() -> dict`, run by `waypost bench`."""
