"""The steps that need no PyTorch: compilation, canaries, times, tests, compute-sanitizer."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import sys

from . import children
from .report import row

# Test binaries, and the few of their tests that a dry run has the patience for.
TESTS = {
    "golden": "logits::on_cuda::logprob_gap_logits",
    "losses": "scores::on_cuda::padding",
    "transformer": "swiglu::cuda",
}
# Seconds after which a step counts as hung.
LIMITS = {"device": 60, "compile": 120, "canary": 10, "times": 25, "tests": 100, "alone": 15, "parity": 40,
          "peers": 60, "sanitize": 25}
# Under this many seconds a step is not begun.
LEAST = 3
# The status of a child that has not what it needs: no PyTorch, or no GPU with it.
MISSING = 77
SYNC = {"OPENCLAW_CUDA_SYNC": "1"}
TOOLS = [(tool, name, chosen) for tool in ("memcheck", "racecheck", "initcheck") for name, chosen in (
    ("golden", "cuda::topk_distill"), ("golden", "cuda::ppo_logits"), ("golden", "cuda::logprob"),
    ("losses", "on_cuda::nothing_around"), ("transformer", "attention::cuda"))]


class Steps:
    """Runs steps and puts their results into the report."""

    def __init__(self, folder, report, clock, options):
        self.folder, self.report, self.clock, self.options = folder, report, clock, options
        self.target = "emulated" if options.dry_run else "cuda:0"

    def limit(self, word):
        # The emulation compiles what it launches.
        own = LIMITS[word] * (6 if self.options.dry_run else 1)
        return min(own if self.options.limit is None else self.options.limit, self.clock.left())

    def child(self, name, word, command, variables=None):
        """Runs a step's child, or says that there is no time; None then, and where the clock stopped it."""
        limit = self.limit(word)
        if limit < LEAST:
            self.report.not_run(name, "the time was up")
            return None
        ended = children.run([str(part) for part in command], limit, variables)
        if ended.status is None and self.clock.left() <= 0:
            self.report.not_run(name, f"stopped after {limit:.0f} s, the time was up")
            return None
        return ended

    def own(self, *words):
        return [self.folder / "gpu-steps", self.target, *words]

    def run(self, names):
        """Runs steps of one kind."""
        word = names[0].split()[0]
        # Kernels on tiny shapes share the device without harm; times want it alone.
        at_once = {"canary": min(8, os.cpu_count() or 1), "tests": 3}.get(word, 1)
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(self.one, name) for name in names]:
                done.result()

    def one(self, name):
        try:
            getattr(self, name.split()[0])(name)
        except Exception as error:  # a mistake of this script in one step
            why = f"{type(error).__name__}: {error}"
            self.report.put(name, "failed", [row(name.split()[0], name, f"**gpu-check: {why}**")], wrong=1)

    def device(self, name):
        self.facts(name, ["facts"])

    def facts(self, name, words):
        word = name.split()[0]
        ended = self.child(name, word, self.own(*words))
        if ended is None:
            return
        lines = [row(word, *fact) for fact in ended.fields("fact")]
        if ended.status == 0:
            self.report.put(name, lines=lines, seconds=ended.seconds)
        else:
            lines.append(row(word, name, f"**FAILED**: {ended.trouble()}"))
            self.report.put(name, "failed", lines, wrong=1, seconds=ended.seconds)

    def compile(self, name):
        self.facts(name, ["compile"])

    def canary(self, name):
        kernel = name.split()[1]
        ended = self.child(name, "canary", self.own("canary", kernel), SYNC)
        if ended is None:
            return
        found = [(what, float(worst), float(most), millis) for what, worst, most, millis in ended.fields("canary")]
        if ended.status not in (0, 1) or not found:
            line = row("canary", kernel, f"**{ended.trouble()}**")
            return self.report.put(name, "failed", [line], wrong=1, seconds=ended.seconds)
        millis = found[-1][3]
        # Written so that NaN is off.
        off = [f"{what} by {worst:.1e}" for what, worst, most, _ in found if not worst <= most]
        told = f"**off: {', '.join(off)}**" if off else "ok"
        self.report.put(name, "failed" if off else "done", [f"| {kernel} | {told} | {millis} |"], wrong=bool(off),
                        seconds=ended.seconds)

    def times(self, name):
        group = name.split()[1]
        small = ["small"] if self.options.small or self.options.dry_run else []
        ended = self.child(name, "times", self.own("times", group, *small))
        if ended is None:
            return
        lines = [f"| {' | '.join(fields)} |" for fields in ended.fields("time")]
        if ended.status == 0:
            return self.report.put(name, lines=lines, seconds=ended.seconds)
        told = ended.trouble()
        if told.startswith("fault"):
            # Once more, so that the kernel is named.
            again = children.run([str(part) for part in self.own("times", group, *small)],
                                 max(self.limit("times"), LEAST), SYNC)
            told += f"; each launch waited for: {again.trouble() if again.status else 'no fault'}"
        lines.append(row("times", group, f"**{told}**"))
        self.report.put(name, "failed", lines, wrong=1, seconds=ended.seconds)

    def tests(self, name):
        """Every test of a binary on the device; those that failed or were not reached once more, each alone."""
        binary = name.split()[1]
        few = TESTS[binary] if self.options.dry_run else "cuda"
        chosen = [self.folder / binary, few, "--skip", "without_clusters"]
        ended = self.child(name, "tests", [*chosen, "--test-threads", "1"])
        if ended is None:
            return
        told = outcomes(ended.out)
        passed = sum(result == "ok" for result in told.values())
        if ended.status == 0 and passed:
            return self.report.put(name, lines=[f"- {binary}: {passed} passed"], seconds=ended.seconds)
        listed = self.listed(chosen)
        left = [test for test in listed if told.get(test) not in ("ok", "ignored")]
        how = "failed" if ended.status == 101 else ended.trouble()
        started = re.findall(r"^test (\S+) \.\.\. *$", ended.out, re.MULTILINE)
        at = f", in `{started[-1]}`" if started and ended.status != 101 else ""
        lines = [f"- {binary}: **{how}{at}**; {passed} passed, {len(left)} run alone"]
        details = [f"What {binary} said last:", "```", ended.out[-2000:].strip(), *ended.err[-1000:].strip().splitlines()[-10:], "```"]
        alone = self.alone(binary, left)
        details += [f"- `{test}`, alone: {result}" for test, result in alone]
        wrong = sum(result.startswith("**") for _, result in alone)
        # A failure that shows beside other tests alone is one too.
        self.report.put(name, "failed", lines, details, max(1, wrong), seconds=ended.seconds)

    def listed(self, chosen):
        def ask(*more):
            ended = children.run([str(part) for part in [*chosen, "--list", *more]], 20)
            return re.findall(r"^(\S+): test$", ended.out, re.MULTILINE)

        ignored = set(ask("--ignored"))
        return [test for test in ask() if test not in ignored]

    def alone(self, binary, tests):
        def run(test):
            limit = self.limit("alone")
            if limit < LEAST:
                return test, "not run: the time was up"
            ended = children.run([str(self.folder / binary), "--exact", test, "--test-threads", "1"], limit, SYNC)
            if ended.status == 0 and " 1 passed" in ended.out:
                return test, "passes"
            if ended.status == 101:
                said = [line for line in ended.out.splitlines() if "panicked at" in line or " is lost" in line]
                panic = re.search(r"panicked at .*\n(.*)", ended.out)
                return test, f"**failed**: {panic.group(1) if panic else (said or [ended.last()])[-1]}"
            return test, f"**{ended.trouble()}**"

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return list(pool.map(run, tests))

    def with_torch(self, name):
        """Parity and times beside PyTorch, each in a child of this script."""
        word, what = name.split()
        child = [sys.executable, self.folder / "gpu-check", "--child", word, what]
        child += ["--dry-run"] * self.options.dry_run + ["--small"] * self.options.small
        ended = self.child(name, word, [*child, "--seconds", str(0.8 * self.limit(word))])
        if ended is None:
            return
        if ended.status == MISSING:
            return self.report.not_run(name, ended.last())
        lines = [line for [line] in ended.fields("line")]
        details = [line for [line] in ended.fields("detail")]
        wrong, missed = 0, 0
        for kind, told, holds in ended.fields("check"):
            said = "holds" if holds == "1" else {"check": "**FAILED**", "bar": "MISSED"}[kind]
            wrong += kind == "check" and holds != "1"
            missed += kind == "bar" and holds != "1"
            details.append(f"- {told}: {said}")
        if ended.status is None and word == "peers" and lines:
            # What it told before is whole; a compilation of PyTorch's that takes its time is no fault of ours.
            lines.append(row(word, what, f"the rest: {ended.trouble()}"))
        elif ended.status != 0:
            wrong += 1
            lines.append(row(word, what, f"**{ended.trouble()}**"))
        elif not lines:
            lines.append(row(word, what, f"{len(details)} claims"))
        self.report.put(name, "failed" if wrong else "done", lines, details, wrong, missed, ended.seconds)

    parity = peers = with_torch

    def sanitize(self, name):
        places = ["/usr/local/cuda/bin", *map(str, pathlib.Path("/usr/local").glob("cuda-*/bin"))]
        tool_path = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
        if self.options.dry_run or not tool_path:
            return self.report.not_run(name, "a dry run has no GPU" if self.options.dry_run
                                       else "compute-sanitizer is not on this machine")
        _, tool, binary, chosen = name.split()
        command = [tool_path, "--tool", tool, "--error-exitcode", "9", self.folder / binary, chosen,
                   "--skip", "without_clusters", "--test-threads", "1"]
        ended = self.child(name, "sanitize", command)
        if ended is None:
            return
        what = f"{tool}, {binary} {chosen}"
        if ended.status is None:
            # It slows kernels down a hundredfold: that is no finding.
            return self.report.put(name, lines=[f"- {what}: not finished after {ended.limit:.0f} s"])
        clean = ended.status == 0 and " 0 passed" not in ended.out
        details = [] if clean else ["```", *(ended.out + ended.err).splitlines()[-15:], "```"]
        self.report.put(name, "done" if clean else "failed", [f"- {what}: {'clean' if clean else '**FAILED**'}"],
                        details, wrong=not clean, seconds=ended.seconds)


def outcomes(out):
    """What libtest said of each test: `ok`, `FAILED` or `ignored`."""
    return dict(re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", out, re.MULTILINE))
