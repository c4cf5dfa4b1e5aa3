"""Python of a task's own script begins here, see `guard.py`."""

import os
import sys

import guard


def program():
    """The file that is run, if it is one."""
    words = getattr(sys, "orig_argv", [])[1:]
    return next((word for word in words[:1] if not word.startswith("-")), None)


last = [path for path in os.environ.get("OPENCLAW_PYTHONPATH", "").split(":") if path]
if program() and guard.of_the_agent(program()):
    # The agent's own program finds what it would find anywhere else.
    sys.path[:] = last + sys.path
else:
    guard.install(last)
