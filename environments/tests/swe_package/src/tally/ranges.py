"""Ranges as pairs of numbers, the lesser first."""


def width(pair):
    """How many whole numbers a range has, its ends included."""
    low, high = pair
    if low > high:
        return 0
    return high - low + 1


def clamp(number, low, high):
    """The number, or the end of the range that it is beyond."""
    return max(low, min(number, high))


def overlaps(one, other):
    """Whether two ranges have a number in common."""
    if not one or not other:
        return False
    return one[0] <= other[1] and other[0] <= one[1]
