#!/usr/bin/env python3
"""Compares what a sandbox costs with mini-swe-agent's own environment of bubblewrap.

    cargo build --release -p openclaw-sandbox --example peer
    python sandbox/compare.py                   # needs bwrap, and `pip install mini-swe-agent`

With 1, 8 and 16 at once, each started, used and ended by a thread of its own. Rounds of the two take turns, so that the
machine is the same for both. Told are medians of wall time over all rounds and threads, in milliseconds.

The two do not do the same. Theirs starts a sandbox for each command, without limits, and in the host's own network and
process ids; nothing but files lasts from one command to the next. Ours has one shell that lasts in namespaces of its own, with
limits, and its start makes a disk. `true, by itself` is ours as theirs: a sandbox for one command.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import threading
import time

os.environ.setdefault("MSWEA_SILENT_STARTUP", "1")
from minisweagent.environments.extra.bubblewrap import BubblewrapEnvironment

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS = ["true", "python3 -c pass"]


def play(steps, barrier, times):
    """One of theirs, which goes on when all others are as far."""

    def timed(name, work):
        began = time.perf_counter()
        done = work()
        times.append((name, time.perf_counter() - began))
        return done

    def run(environment, command):
        ran = environment.execute({"command": command})
        assert ran["returncode"] == 0, ran

    def start():
        environment = BubblewrapEnvironment()
        run(environment, "true")
        return environment

    barrier.wait()
    environment = timed("start", start)
    for command in STEPS:
        barrier.wait()
        for _ in range(steps):
            timed(command, lambda: run(environment, command))
    barrier.wait()
    timed("end", environment.cleanup)


def theirs(at_once, steps):
    barrier, times = threading.Barrier(at_once), []
    threads = [threading.Thread(target=play, args=(steps, barrier, times)) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_name = {}
    for name, took in times:
        by_name.setdefault(name, []).append(took)
    assert len(by_name["end"]) == at_once, "a thread has failed"
    return by_name


def ours(example, at_once, steps):
    ran = subprocess.run([example, str(at_once), str(steps)], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--example", default=ROOT / "target/release/examples/peer", type=pathlib.Path)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--steps", default=10, type=int)
    asked = parser.parse_args()
    print("| at once | | mini-swe-agent, ms | openclaw-rl, ms | ratio |\n|---|---|---|---|---|")
    for at_once in (1, 8, 16):
        all_times = ({}, {})
        for round in range(asked.rounds):
            sides = [lambda: theirs(at_once, asked.steps), lambda: ours(asked.example, at_once, asked.steps)]
            order = [0, 1] if round % 2 == 0 else [1, 0]
            for side in order:
                for name, times in sides[side]().items():
                    all_times[side].setdefault(name, []).extend(times)
        for name in ["start", *STEPS, "true, by itself", "end"]:
            peer = all_times[0].get(name) or all_times[0]["true"]
            peer, own = (1e3 * statistics.median(times) for times in (peer, all_times[1][name]))
            print(f"| {at_once} | {name} | {peer:.1f} | {own:.1f} | {peer / own:.2f} |", flush=True)


if __name__ == "__main__":
    main()
