"""Words for counts."""


def plural(word, count):
    """The word for so many."""
    if count == 1:
        return word
    if word.endswith("s"):
        return word + "es"
    return word + "s"


def initials(name, limit=3):
    """The first letters of a name's words, at most so many."""
    letters = [word[0].upper() for word in name.split(" ") if word]
    return "".join(letters[:limit])
