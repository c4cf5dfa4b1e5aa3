"""Runs a verifier's tests and says how each came out, on a way that no program they start can reach.

Read from the input: one line of JSON with `key`, `args`, `env`, `last`, `first` and `must_fail`. Written to the output: `ready`,
and then one line of JSON with the key. All that pytest and the tests write goes to the error output."""

import json
import os
import re
import sys

sys.path.append(os.path.dirname(os.path.abspath(__file__)))
import guard


MESSAGE = 300


class Results:
    """A test passed if all of its parts did, each time it ran."""

    def __init__(self):
        self.tests = {}
        self.statuses = {}
        self.messages = {}

    def add(self, name, passed):
        self.tests[name] = self.tests.get(name, True) and passed

    def tell(self, report, status):
        if self.statuses.get(report.nodeid) in ("FAILED", "ERROR"):
            return
        self.statuses[report.nodeid] = status
        if status in ("FAILED", "ERROR"):
            crash = getattr(report.longrepr, "reprcrash", None)
            said = crash.message if crash else str(report.longrepr)
            # Where something lies in memory differs each time.
            self.messages[report.nodeid] = re.sub("0x[0-9a-f]{6,}", "0x..", said)[:MESSAGE]

    def pytest_collectreport(self, report):
        if report.failed:
            self.add(report.nodeid, False)
            self.tell(report, "ERROR")

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or not report.passed:
            expected = hasattr(report, "wasxfail")
            failed = "FAILED" if report.when == "call" else "ERROR"
            status = {"passed": "XPASS" if expected else "PASSED", "skipped": "XFAIL" if expected else "SKIPPED"}
            self.tell(report, status.get(report.outcome, failed))
        # What fails as was expected is skipped, and what passes all the same is no pass.
        expected_failure = hasattr(report, "wasxfail")
        if report.when == "call" or not report.passed:
            self.add(report.nodeid, report.skipped or (report.passed and not expected_failure))


def must_fail(pytest):
    """No test passes: one that is said to have passed all the same was not judged by what it does."""

    class MustFail:
        @pytest.hookimpl(trylast=True)
        def pytest_runtest_call(self, item):
            raise AssertionError("no test passes in this run")

    return MustFail()


def hide():
    """Other processes of this user may not look into this one, nor write to its files."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    except (ImportError, AttributeError):
        pass


def main():
    asked = json.loads(sys.stdin.readline())
    # Closed in what is started from here.
    out = os.dup(1)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    hide()
    os.environ.clear()
    os.environ.update(asked["env"])
    guard.install(asked["last"], asked["first"])
    import pytest

    os.write(out, b"ready\n")
    results = Results()
    plugins = [results, must_fail(pytest)] if asked["must_fail"] else [results]
    code = pytest.main(["-p", "no:cacheprovider", *asked["args"]], plugins=plugins)
    said = {"key": asked["key"], "code": int(code), "tests": results.tests}
    said.update(statuses=results.statuses, messages=results.messages)
    told = (json.dumps(said) + "\n").encode()
    while told:
        told = told[os.write(out, told) :]
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of a test may go on for ever.
    os._exit(0)


main()
