"""Sliding windows over events: one pure implementation for the stream, the backfill and the tests.

Events fall into tiles of one hop; a window is a run of tiles that ends at the current one. Everything here is a
function of (plan, states, rows, logical time): no I/O, no clock, no order of arrival.
"""
