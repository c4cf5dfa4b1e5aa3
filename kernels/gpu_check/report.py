"""What the check found, as Markdown to read and as JSON to go on from."""

import hashlib
import json
import os
import threading
import time

# In the order of the report: what begins a section, and the head of its table, if it is one.
SECTIONS = {
    "device": ("Device", None),
    "compile": ("Compilation", None),
    "canary": ("Kernels, each in its own process beside the CPU", ("kernel", "result", "ms")),
    "times": ("Times of this library alone", ("operation", "median ms", "p10", "p90", "runs", "rate")),
    "tests": ("Tests", None),
    "parity": ("Parity with PyTorch in float64", None),
    "peers": ("Times beside PyTorch and Liger",
              ("operation", "", "median ms", "p10", "p90", "runs", "x floor", "x ours")),
    "sanitize": ("compute-sanitizer", None),
}


def build_of(folder):
    """Names what is checked: results of other binaries are not continued."""
    digest = hashlib.sha256()
    for name in ("gpu-steps", "libpeer.so", "golden", "losses", "transformer"):
        file = folder / name
        digest.update(name.encode())
        digest.update(file.read_bytes() if file.exists() else b"")
    return digest.hexdigest()[:16]


class Report:
    """Results by the names of steps. Every one is on disk before the next begins."""

    def __init__(self, folder, build, title):
        folder.mkdir(parents=True, exist_ok=True)
        self.markdown, self.json = folder / "gpu-check.md", folder / "gpu-check.json"
        self.build, self.title, self.names = build, title, []
        self.entries = {}
        self.lock = threading.Lock()
        self.kept = self.load()

    def load(self):
        """Takes over what an earlier run of the same build and kind found; how many results that is."""
        try:
            before = json.loads(self.json.read_text())
        except (OSError, ValueError):
            return 0
        if (before.get("build"), before.get("title")) != (self.build, self.title):
            self.json.replace(self.json.with_name(f"gpu-check-{before.get('build', 'unknown')}.json"))
            return 0
        self.entries = before["entries"]
        return sum(self.is_there(name) for name in self.entries)

    def is_there(self, name):
        return name in self.entries and self.entries[name]["state"] != "not run"

    def plan(self, names):
        """All steps there are, in order: also those that are not run have a line."""
        self.names = list(names)
        for name in self.names:
            if name not in self.entries:
                self.entries[name] = entry(state="not run", lines=not_run(name, "not asked for"))
        self.save()

    def forget(self, names):
        """Results that are to be found again."""
        for name in names:
            self.entries.pop(name, None)

    def put(self, name, state="done", lines=(), details=(), wrong=0, missed=0, seconds=0.0):
        """The result of a step. `lines` are rows where its section is a table; `details` come below."""
        with self.lock:
            self.entries[name] = entry(state, list(lines), list(details), wrong, missed, seconds)
            self.save()
            print(f"{name}: {'; '.join(lines)}", flush=True)
            for line in details:
                print(line, flush=True)

    def not_run(self, name, why):
        self.put(name, "not run", not_run(name, why))

    def count(self, what):
        return sum(self.entries[name][what] for name in self.names)

    def summary(self):
        left = sum(not self.is_there(name) for name in self.names)
        return f"{self.count('wrong')} wrong, {self.count('missed')} bars missed, {left} of {len(self.names)} not run"

    def save(self):
        kept = dict(build=self.build, title=self.title, entries=self.entries)
        write(self.json, json.dumps(kept, indent=1))
        write(self.markdown, self.text())

    def text(self):
        lines = [f"# {self.title}", "", f"{time.strftime('%Y-%m-%d %H:%M')}, build {self.build}: {self.summary()}"]
        for word, (heading, columns) in SECTIONS.items():
            names = [name for name in self.names if name.split()[0] == word]
            if not names:
                continue
            lines += ["", f"## {heading}", ""]
            if columns:
                lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
            for name in names:
                lines += self.entries[name]["lines"]
            details = [line for name in names for line in self.entries[name]["details"]]
            lines += ["", *details] if details else []
        return "\n".join(lines) + "\n"


def entry(state, lines=(), details=(), wrong=0, missed=0, seconds=0.0):
    return dict(state=state, lines=list(lines), details=list(details), wrong=wrong, missed=missed,
                seconds=round(seconds, 2))


def row(word, first, told):
    """A line of a section that is not a whole row of its table."""
    columns = SECTIONS[word][1]
    if not columns:
        return f"- {first}: {told}"
    told = told.replace("|", "/").replace("\n", " ")
    return f"| {first} | {told} |" + " |" * (len(columns) - 2)


def not_run(name, why):
    word, _, rest = name.partition(" ")
    return [row(word, rest or word, f"not run: {why}")]


def write(path, text):
    # Renamed last: whoever reads it, a second run too, finds the old text or all of the new.
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)
