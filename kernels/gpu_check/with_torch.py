"""A child of the check that has PyTorch: how it tells its results, and how it takes times."""

import ctypes
import os
import random
import statistics
import sys
import time

# How far above its floor an operation may be.
BAR, HEAD_BAR = 1.15, 1.12


def check(what, holds):
    """A claim about results."""
    print(f"check\tcheck\t{what}\t{int(bool(holds))}", flush=True)


def bar(what, holds):
    """A claim about speed: where it is missed, results are right all the same."""
    print(f"check\tbar\t{what}\t{int(bool(holds))}", flush=True)


def line(text):
    print(f"line\t{text}", flush=True)


def detail(text):
    print(f"detail\t{text}", flush=True)


class Missing(Exception):
    """What a comparison with PyTorch needs and is not here."""


class Gpu:
    """The device, and how its work is timed: by CUDA events, or by a clock on the emulation."""

    def __init__(self, torch, dry):
        self.torch, self.dry = torch, dry
        self.name = "cpu" if dry else "cuda:0"

    def wait(self):
        if not self.dry:
            self.torch.cuda.synchronize()

    def millis(self, run):
        """Milliseconds of PyTorch's stream."""
        if self.dry:
            start = time.perf_counter()
            run()
            return (time.perf_counter() - start) * 1e3
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        result = run()
        end.record()
        end.synchronize()
        del result
        return start.elapsed_time(end)


class Setting:
    """PyTorch, our library and the device that both use."""

    def __init__(self, folder, options):
        try:
            import torch
        except ImportError as error:
            raise Missing(f"PyTorch is not here: {error}") from error
        if not options.dry_run and not torch.cuda.is_available():
            raise Missing("PyTorch finds no GPU")
        if not (folder / "libpeer.so").exists():
            raise Missing(f"libpeer.so is not in {folder}")
        sys.path.insert(0, str(folder))
        import compare
        import peers

        self.torch, self.compare, self.peers = torch, compare, peers
        self.dry, self.small = options.dry_run, options.dry_run or options.small
        self.gpu = Gpu(torch, self.dry)
        self.end = time.monotonic() + options.seconds
        if not self.dry:
            # What is compared is float32 against float32.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.zeros(1, device="cuda")
        self.ours = compare.Ours(folder / "libpeer.so", os.cpu_count() or 1)
        self.ours.library.peer_open_cuda.restype = ctypes.c_uint32
        if not self.ours.library.peer_open_cuda(ctypes.c_int32(-1 if self.dry else 0)):
            raise RuntimeError("our library does not open the device")


def timed(setting, candidates):
    """Median and tenth and ninetieth percentile of each candidate: `{name: (prepare, run, is_ours)}`."""
    times, gpu, small = {}, setting.gpu, setting.small
    for name, (prepare, run, own) in list(candidates.items()):
        try:
            for _ in range(1 if small else 3):
                prepare()
                gpu.wait()
                run()
            gpu.wait()
            times[name] = []
        except Exception as error:  # a peer that does not run here is named and left out
            why = str(error).splitlines()[0] if str(error) else ""
            detail(f"- {name}: {type(error).__name__}: {why}")
            if own:
                raise
            del candidates[name]
    rounds, end = 2 if small else 60, min(setting.end, time.monotonic() + 15)
    for done in range(rounds):
        if done >= 5 and time.monotonic() > end:
            break
        order = list(candidates)
        random.shuffle(order)
        for name in order:
            prepare, run, own = candidates[name]
            prepare()
            gpu.wait()
            times[name].append(run() if own else gpu.millis(run))
    return {name: (statistics.median(t), sorted(t)[len(t) // 10], sorted(t)[len(t) * 9 // 10], len(t))
            for name, t in times.items()}


def rows_of_table(times, floor, mine=None):
    """Rows for all but the copy; `mine` is our median, where it is not the first among them."""
    mine = mine or next((times[name][0] for name in times if name.startswith("ours")), float("nan"))
    for name, (median, low, high, runs) in times.items():
        if name != "copy":
            bold = "**" if name.startswith("ours") else ""
            line(f"| | {bold}{name}{bold} | {median:.3f} | {low:.3f} | {high:.3f} | {runs} "
                 f"| {median / floor:.2f} | {median / mine:.2f} |")
