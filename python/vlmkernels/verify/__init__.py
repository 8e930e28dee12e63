"""Proof that the operators compute what they should on this machine: every operator against float64, forward and backward, over a grid of cases.

`vlmkernels verify` prints it as a table; the tests run the same cases on every instruction set.
"""

from vlmkernels.verify.grid import Case, cases
from vlmkernels.verify.rule import Finding, compare
from vlmkernels.verify.run import check_accuracy, check_repeatable

__all__ = ["Case", "Finding", "cases", "check_accuracy", "check_repeatable", "compare"]
