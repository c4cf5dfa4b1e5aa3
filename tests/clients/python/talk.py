"""What every client here says: a question that a tool helps with, a correction, and three more turns."""

import os

BASE = os.environ["OPENCLAW_BASE_URL"]
"""Where the gateway is, with /v1."""
ROOT = BASE.removesuffix("/v1")
KEY = "none"
MODEL = "policy"
SYSTEM = "You are a careful assistant."
A, B = os.environ.get("OPENCLAW_NUMBERS", "12 7").split()
"""Each client asks for something of its own: two conversations of the same words could not be told apart."""
ASKED = [
    f"What is {A} + {B}?",
    "No, answer with the number alone, please.",
    f"And {B} + 4?",
    f"Thanks. What is {A} + 6?",
    "That is right, thank you.",
]
MOST_CALLS = 2
"""Calls of tools that are followed within one turn."""
NUMBER = {"type": "integer", "minimum": 0, "maximum": 999}
"""Within limits: a small model that must call does not end a number by itself."""
SCHEMA = {
    "type": "object",
    "properties": {"a": NUMBER, "b": NUMBER},
    "required": ["a", "b"],
}


def add(a: int, b: int) -> int:
    """Adds two whole numbers."""
    return a + b


def result(arguments: dict) -> str:
    """What the tool says to a model's arguments."""
    try:
        return str(add(int(arguments["a"]), int(arguments["b"])))
    except (KeyError, TypeError, ValueError) as error:
        return f"Error: {error!r}"
