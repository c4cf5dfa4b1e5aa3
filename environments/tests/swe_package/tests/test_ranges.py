import pytest

from tally import clamp, overlaps, width


@pytest.mark.parametrize("pair, expected", [((1, 1), 1), ((2, 5), 4), ((5, 2), 0)])
def test_width(pair, expected):
    assert width(pair) == expected


def test_clamp_below():
    assert clamp(1, 3, 9) == 3


def test_clamp_above():
    assert clamp(12, 3, 9) == 9


def test_clamp_inside():
    assert clamp(5, 3, 9) == 5


def test_overlap_at_an_end():
    assert overlaps((1, 3), (3, 5)) and overlaps((3, 5), (1, 3))


def test_no_overlap():
    assert not overlaps((1, 2), (3, 5)) and not overlaps((3, 5), (1, 2))


def test_nothing_overlaps_nothing():
    assert overlaps((), (1, 2)) is False
