"""Conditions as one program of flat arrays, run in Numba over one row or many.

Computes what the reference interpreter computes; knows typed expressions and values, nothing of offers or decisions.
"""

from decision.program.columns import Column, Frame, Numbers, Row, TextCodes
from decision.program.gather import Input
from decision.program.program import Binding, Program, warm
from decision.program.results import Results
from decision.program.verdicts import Bits, Truth

__all__ = [
    "Binding",
    "Bits",
    "Column",
    "Frame",
    "Input",
    "Numbers",
    "Program",
    "Results",
    "Row",
    "TextCodes",
    "Truth",
    "warm",
]
