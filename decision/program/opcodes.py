"""Numbers of the operations that the program's kernel knows.

A program is groups of equal operations: `kind, count, out, stride, register, next`, then the words of the operations
up to the word `next`, where the next group begins. Results of a group lie next to each other from `out` on.

- Groups that compare one register with constants: `register` names it, each operation has `stride` words of constants.
  Where they compare by order or equality, the constants ascend. After the operations of IN come all their items,
  ascending, and for each of them the operations that hold it.
- Truth from truth: the words are int32, and an operation's first one is the register of its own result.
- All others: `stride` words an operation, registers of operands and whatever else the kind needs.
"""

from __future__ import annotations

from typing import Final

HEADER: Final = 6

# One register against constants: LE, GE, EQ and NE are enough, see `thresholds`.
LE_I: Final = 0
GE_I: Final = 1
EQ_I: Final = 2
NE_I: Final = 3
LE_F: Final = 4
GE_F: Final = 5
EQ_F: Final = 6
NE_F: Final = 7
# One instant against now() less constant intervals.
LT_NOW: Final = 8
LE_NOW: Final = 9
GT_NOW: Final = 10
GE_NOW: Final = 11
LIKE: Final = 12  # word: bit of the pattern in the text's row
IN_I: Final = 13  # words: where the sorted items of the operation begin, how many
IN_F: Final = 14
SPREAD_LAST: Final = 14

# Truth from truth.
AND: Final = 15
OR: Final = 16
NOT: Final = 17
COPY: Final = 18
EQ_T: Final = 19
NE_T: Final = 20
NULL_T: Final = 21
COALESCE_T: Final = 22
SELECT_T: Final = 23
LOGIC_LAST: Final = 23

# Truth from numbers.
NULL_I: Final = 24
NULL_F: Final = 25
NULL_L: Final = 26  # word: the list
LT_II: Final = 27
LE_II: Final = 28
EQ_II: Final = 29
NE_II: Final = 30
LT_FF: Final = 31
LE_FF: Final = 32
EQ_FF: Final = 33
NE_FF: Final = 34
CONTAINS_I: Final = 35  # words: list, operand
CONTAINS_F: Final = 36
CONTAINS_T: Final = 37
TEST_LAST: Final = 37

# int64, timestamps, intervals and codes of texts.
ADD_I: Final = 38
SUB_I: Final = 39
MUL_I: Final = 40
REM_I: Final = 41
NEG_I: Final = 42
ABS_I: Final = 43
MIN_I: Final = 44
MAX_I: Final = 45
COALESCE_I: Final = 46
SELECT_I: Final = 47
PART: Final = 48  # words: operand, part, where the zone begins
BUCKET_I: Final = 49  # words: operand, where the salt begins, count
BUCKET_TEXT: Final = 50  # words: operand, column of the text's row from the back, count
INT_LAST: Final = 50

ADD_F: Final = 51
SUB_F: Final = 52
MUL_F: Final = 53
DIV_F: Final = 54
REM_F: Final = 55
NEG_F: Final = 56
ABS_F: Final = 57
MIN_F: Final = 58
MAX_F: Final = 59
ROUND_F: Final = 60
FLOOR_F: Final = 61
TO_F: Final = 62
COALESCE_F: Final = 63
SELECT_F: Final = 64

NOW_KINDS: Final = {"<": LT_NOW, "<=": LE_NOW, ">": GT_NOW, ">=": GE_NOW}

# Truth as a byte: AND is the least, OR the greatest, NOT is 2 - x.
FALSE: Final = 0
NULL: Final = 1
TRUE: Final = 2

# Words at the start of a program.
AT_BEGIN: Final = 0
AT_END: Final = 1
AT_NUMBERS: Final = 2  # registers of numbers
AT_CELLS: Final = 3  # registers of bytes
AT_TRUTH: Final = 4  # first register of truth
AT_WORDS: Final = 5  # how many masks of 64 the registers of truth fill
AT_NOW: Final = 6  # register of now(), -1 where nothing reads it
AT_RESULTS: Final = 7  # how many registers of truth are results of conditions
AT_PARTS: Final = 8  # how many, from the next word on, are other truths
AT_EACH: Final = 9  # where the groups end that read nothing but what all rows have in common
AT_COMMON: Final = 10  # their registers: how many of numbers, which, how many of bytes, which
PROLOGUE: Final = 11

PARTS: Final = ("year", "month", "day", "day_of_year", "weekday", "hour", "minute", "second")
