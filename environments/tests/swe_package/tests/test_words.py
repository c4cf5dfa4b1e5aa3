import unittest

from tally import initials, plural


class Plural(unittest.TestCase):
    def test_one(self):
        self.assertEqual(plural("cat", 1), "cat")

    def test_two(self):
        self.assertEqual(plural("cat", 2), "cats")

    def test_after_s(self):
        self.assertEqual(plural("bus", 3), "buses")


class Initials(unittest.TestCase):
    def test_words(self):
        self.assertEqual(initials("ada king"), "AK")

    def test_limit(self):
        self.assertEqual(initials("a b c d"), "ABC")

    def test_gaps(self):
        self.assertEqual(initials("a  b"), "AB")
