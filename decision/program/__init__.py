"""Conditions as one program of flat arrays, run in Numba over one row or many.

Computes what the reference interpreter computes; knows typed expressions and values, nothing of offers or decisions.
"""

from decision.program.columns import Column, Frame, Numbers, Row, TextCodes
from decision.program.program import Program, Results, warm
from decision.program.verdicts import Bits, Truth

__all__ = ["Bits", "Column", "Frame", "Numbers", "Program", "Results", "Row", "TextCodes", "Truth", "warm"]
