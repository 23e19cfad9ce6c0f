"""Numbers of the operations that the program's kernel knows.

A program is groups of equal operations: `kind, count, out, stride, register`, then `count × stride` words. The results
of a group lie next to each other from `out` on. In groups that compare one register with constants, `register` names
it and the words are constants; in all others the words are registers of operands and whatever else the kind needs.
"""

from __future__ import annotations

from typing import Final

HEADER: Final = 5

# One register against constants: LE, GE, EQ and NE are enough, see `thresholds`.
LE_I: Final = 0
GE_I: Final = 1
EQ_I: Final = 2
NE_I: Final = 3
LE_F: Final = 4
GE_F: Final = 5
EQ_F: Final = 6
NE_F: Final = 7
LIKE: Final = 8  # word: bit of the pattern in the text's row
IN_I: Final = 9  # words: where the sorted items begin, how many
IN_F: Final = 10

# Truth from truth.
AND: Final = 11
OR: Final = 12
NOT: Final = 13
COPY: Final = 14
EQ_T: Final = 15
NE_T: Final = 16
NULL_T: Final = 17
COALESCE_T: Final = 18
SELECT_T: Final = 19
LOGIC_LAST: Final = 19

# Truth from numbers.
NULL_I: Final = 20
NULL_F: Final = 21
NULL_L: Final = 22  # word: the list
LT_II: Final = 23
LE_II: Final = 24
EQ_II: Final = 25
NE_II: Final = 26
LT_FF: Final = 27
LE_FF: Final = 28
EQ_FF: Final = 29
NE_FF: Final = 30
CONTAINS_I: Final = 31  # words: list, operand
CONTAINS_F: Final = 32
CONTAINS_T: Final = 33
TEST_LAST: Final = 33

# int64, timestamps, intervals and codes of texts.
ADD_I: Final = 34
SUB_I: Final = 35
MUL_I: Final = 36
REM_I: Final = 37
NEG_I: Final = 38
ABS_I: Final = 39
MIN_I: Final = 40
MAX_I: Final = 41
COALESCE_I: Final = 42
SELECT_I: Final = 43
PART: Final = 44  # words: operand, part, where the zone begins
BUCKET_I: Final = 45  # words: operand, where the salt begins, count
BUCKET_TEXT: Final = 46  # words: operand, column of the text's row from the back, count
INT_LAST: Final = 46

ADD_F: Final = 47
SUB_F: Final = 48
MUL_F: Final = 49
DIV_F: Final = 50
REM_F: Final = 51
NEG_F: Final = 52
ABS_F: Final = 53
MIN_F: Final = 54
MAX_F: Final = 55
ROUND_F: Final = 56
FLOOR_F: Final = 57
TO_F: Final = 58
COALESCE_F: Final = 59
SELECT_F: Final = 60

SPREAD: Final = frozenset({LE_I, GE_I, EQ_I, NE_I, LE_F, GE_F, EQ_F, NE_F, LIKE, IN_I, IN_F})
"""Kinds that compare one register with constants."""

# Truth as a byte: AND is the least, OR the greatest, NOT is 2 - x.
FALSE: Final = 0
NULL: Final = 1
TRUE: Final = 2

# Words at the start of a program.
AT_BEGIN: Final = 0
AT_END: Final = 1
AT_TRUTH: Final = 2  # first register of truth
AT_TRUTH_WORDS: Final = 3  # how many masks of 64 the registers of truth fill
AT_NOW: Final = 4  # register of now(), -1 where nothing reads it
AT_RESULTS: Final = 5  # how many registers of truth are results of conditions
AT_PARTS: Final = 6  # how many, from the next word on, are other truths
PROLOGUE: Final = 7

PARTS: Final = ("year", "month", "day", "day_of_year", "weekday", "hour", "minute", "second")
