"""Child processes with a time limit: what faults or hangs in one takes nothing else with it."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time

# Children that run now, to be ended with this process.
RUNNING = set()
LOCK = threading.Lock()
# How long a killed child may take to go: one that waits for a broken GPU may never.
AFTER_KILL = 5


class Clock:
    """Seconds left of the whole run."""

    def __init__(self, seconds):
        self.start = time.monotonic()
        self.end = self.start + seconds

    def left(self):
        return max(0.0, self.end - time.monotonic())

    def passed(self):
        return time.monotonic() - self.start


class Ended:
    """How a child ended; `status` is None where it was stopped at its limit of `limit` seconds."""

    def __init__(self, status, out, err, seconds, limit):
        self.status, self.out, self.err, self.seconds, self.limit = status, out, err, seconds, limit

    def fields(self, kind):
        """The lines of standard output that begin with this word, as lists of their other fields."""
        lines = (line.split("\t") for line in self.out.splitlines())
        return [line[1:] for line in lines if line[0] == kind and len(line) > 1]

    def last(self, lines=1):
        """The end of what it said, standard error first."""
        told = [line for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return "\n".join(told[-lines:])

    def trouble(self):
        """Why there is no result: a fault, a hang or an exit."""
        if self.status is None:
            return f"hung, stopped after {self.limit:.0f} s"
        if " is lost: " in self.err:
            lines = [line for line in self.err.splitlines() if " is lost: " in line]
            return f"fault: {lines[-1].strip()}"
        if self.status < 0:
            with contextlib.suppress(ValueError):
                return f"ended by {signal.Signals(-self.status).name}: {self.last()}"
        return f"ended with status {self.status}: {self.last()}"


def run(command, limit, variables=None):
    """Runs a command for at most `limit` seconds; what it printed until then is kept."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        environment = os.environ | (variables or {})
        try:
            # A session of its own, so that what the child starts ends with it.
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment,
                                     start_new_session=True)
        except OSError as error:
            return Ended(127, "", f"cannot start {command[0]}: {error}", 0.0, limit)
        with LOCK:
            RUNNING.add(child.pid)
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
            kill(child.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(AFTER_KILL)
        with LOCK:
            RUNNING.discard(child.pid)
        told = []
        for file in (out, err):
            file.seek(0)
            told.append(file.read().decode(errors="replace"))
    return Ended(status, *told, time.monotonic() - start, limit)


def kill(pid):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def end_with_children(number, _frame):
    """A handler for signals that end this process."""
    with LOCK:
        for pid in RUNNING:
            kill(pid)
    os._exit(128 + number)
