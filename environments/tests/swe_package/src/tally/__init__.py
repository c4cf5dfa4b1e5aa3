"""Small sums over lists of numbers, for tests of the maker of tasks."""

from tally.ranges import clamp, overlaps, width
from tally.words import initials, plural

__all__ = ["clamp", "initials", "overlaps", "plural", "width"]
