#!/usr/bin/env python3
"""Runs each client against a gateway, and counts: how many replies were followed, and how many next states were found.

    driver.py --base-url URL --metrics URL --python PYTHON --node NODE_FOLDER [NAME ..]

A client is a file of `python`, `node` or `cli`. Its head says `packages:`, `setting:` (what was set beside nothing), and
where they are not one, `conversations:` (each has a last reply, which nothing follows) and `unanswered:` (replies beside
those that nothing follows, such as titles). Writes a row of Markdown each; ends with 1 if one of them disagrees."""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
PATIENCE_SECS = 600


def metrics(url: str) -> dict[str, float]:
    """Totals by name, and by name and `kind`."""
    totals: dict[str, float] = {}
    # A proxy has no business with this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for line in opener.open(url, timeout=10).read().decode().splitlines():
        found = re.match(r"(\w+)(?:\{([^}]*)\})? (\S+)$", line)
        if found:
            name, labels, value = found.groups()
            kind = re.search(r'kind="(\w+)"', labels or "")
            for key in {name, f"{name}.{kind.group(1)}" if kind else name}:
                totals[key] = totals.get(key, 0) + float(value)
    return totals


def head(path: pathlib.Path) -> dict[str, str]:
    """What a file says of itself."""
    lines = path.read_text().splitlines()
    said = (re.match(r"(?:#|//) ([\w ]+): (.*)", line) for line in lines if line[:1] in "#/")
    return {found.group(1): found.group(2) for found in said if found}


def command(path: pathlib.Path, args: argparse.Namespace) -> list[str]:
    match path.suffix:
        case ".py":
            return [args.python, str(path)]
        case ".mjs":
            # Where its packages are.
            copied = pathlib.Path(args.node) / path.name
            for module in path.parent.glob("*.mjs"):
                (copied.parent / module.name).write_bytes(module.read_bytes())
            return ["node", str(copied)]
        case _:
            return ["bash", str(path)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--metrics", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--node", default=str(HERE / "node"))
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    files = [path for folder in ("python", "node", "cli") for path in sorted((HERE / folder).glob("*"))]
    clients = [path for path in files if "setting" in head(path)] if not args.names else [
        path for path in files if path.stem in args.names or path.name in args.names
    ]
    failed = 0
    print("| client | set | turns | followed | found | |\n|---|---|---|---|---|---|", flush=True)
    env = {**os.environ, "OPENCLAW_BASE_URL": args.base_url, "PYTHONPATH": str(HERE / "python")}
    env |= {"OPENCLAW_NODE": args.node, "NO_PROXY": "*", "no_proxy": "*"}
    for number, path in enumerate(clients):
        env["OPENCLAW_NUMBERS"] = f"{10 + number} {50 - number}"
        said, before = head(path), metrics(args.metrics)
        try:
            ran = subprocess.run(command(path, args), env=env, capture_output=True, text=True, timeout=PATIENCE_SECS)
            problem = "" if ran.returncode == 0 else (ran.stderr.strip() or ran.stdout.strip())[-1500:]
        except subprocess.TimeoutExpired:
            problem = f"no end within {PATIENCE_SECS} s"
        time.sleep(1)  # a metric is written behind its event
        after = metrics(args.metrics)
        more = lambda name: int(after.get(name, 0) - before.get(name, 0))
        turns, found = more("openclaw_gateway_turns_total.main"), more("openclaw_sessions_next_states_total")
        alone = int(said.get("conversations", "1")) + int(said.get("unanswered", "0"))
        followed = max(turns - alone, 0)
        agrees = not problem and turns > 0 and found == followed
        failed += not agrees
        verdict = "" if agrees else "failed" if problem else "**differs**"
        row = [path.stem.replace("_", " "), said.get("setting", ""), str(turns), str(followed), str(found), verdict]
        print("| " + " | ".join(row) + " |", flush=True)
        if problem:
            print(problem, file=sys.stderr, flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
