#!/usr/bin/env python3
"""Compares the CPU's loss operations with PyTorch's, in one process and on the same tensors.

    cargo build --release -p openclaw-kernels --example peer
    python kernels/compare.py            # needs torch, and g++ for torch.compile

Every round runs every candidate once, in random order. Times are CPU time (user + system, of all threads) and wall
time; the ratios are of median CPU times, which a shared machine disturbs least. Each group is measured under both
allocator settings: glibc's own, where PyTorch maps and faults fresh pages for every large tensor, and one that keeps
its pages. Our operations allocate nothing of the logits' size and do not care.
"""

import argparse
import ctypes
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time

KEEPS_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}
# Threads that spin while they wait would be charged as work.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


class Call(ctypes.Structure):
    """The arguments of `examples/peer`."""

    _fields_ = [
        ("device", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        *[(name, ctypes.c_size_t) for name in ("rows", "vocab", "k", "width", "chunk_rows")],
        *[(name, ctypes.c_void_p) for name in (
            "logits", "source", "targets", "weights", "advantages", "old_logprobs", "ids", "teacher_logprobs",
            "hidden", "head")],
        ("entropy_coef", ctypes.c_float),
        *[(name, ctypes.c_void_p) for name in (
            "logprobs", "lse", "entropy", "gap", "stats", "d_hidden", "d_head", "scratch")],
        ("millis", ctypes.c_float),
    ]


class Ours:
    """The operations of `libpeer`, on tensors."""

    def __init__(self, library, threads):
        self.library = ctypes.CDLL(str(library))
        self.library.peer_floor_read.restype = ctypes.c_float
        self.instructions = ["portable", "AVX2", "AVX-512"][self.library.peer_open(ctypes.c_size_t(threads))]

    def call(self, operation, rows, vocab, dtype, device=0, entropy_coef=0.0, **arguments):
        """A function that runs `operation` and returns the GPU's milliseconds; it keeps the tensors alive."""
        numbers = {k: v for k, v in arguments.items() if isinstance(v, int)}
        pointers = {k: v.data_ptr() for k, v in arguments.items() if not isinstance(v, int)}
        call = Call(device=device, dtype=dtype, rows=rows, vocab=vocab, entropy_coef=entropy_coef, **numbers, **pointers)
        function = getattr(self.library, f"peer_{operation}")

        def run(_keep=arguments):
            if function(ctypes.byref(call)) != 0:
                raise RuntimeError(f"peer_{operation} failed")
            return call.millis

        return run

    def floor(self, kind, *tensors):
        function = getattr(self.library, f"peer_floor_{kind}")
        words = ctypes.c_size_t(tensors[0].numel() * tensors[0].element_size() // 4)
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        return lambda: function(*pointers, words)


class Inputs:
    """Rows as a trained model writes them, peaked on the taken token, and what their losses need."""

    def __init__(self, rows, vocab, dtype, k=0, device="cpu", call_device=0):
        import torch

        generator = torch.Generator(device).manual_seed(7)
        self.rows, self.vocab, self.k, self.call_device = rows, vocab, k, call_device
        make = dict(generator=generator, device=device)
        self.clean = torch.empty(rows, vocab, dtype=dtype, device=device)
        self.targets = torch.randint(0, vocab, (rows,), **make)
        logprobs = []
        for clean, targets in zip(self.clean.split(256), self.targets.split(256)):
            logits = torch.randn(clean.shape, **make) * 2.5
            logits[torch.arange(len(targets), device=device), targets] += 12.0
            clean.copy_(logits)
            logprobs.append(clean.float().log_softmax(-1).gather(-1, targets[:, None])[:, 0])
        self.work = self.clean.clone()
        self.leaf = self.clean.clone().requires_grad_()
        self.targets_i32 = self.targets.to(torch.int32)
        self.old = torch.cat(logprobs) + 0.2 * torch.randn(rows, **make)
        self.advantages = torch.randn(rows, **make)
        self.weights = torch.full((rows,), 1.0 / rows, device=device)
        self.logprobs, self.lse, self.entropy, self.gap = (torch.empty(rows, device=device) for _ in range(4))
        self.stats = torch.empty(rows, 6, device=device)
        if k:
            # Distinct ids, spread from the taken one.
            steps = torch.arange(k, device=device) * (vocab // k)
            self.ids = (self.targets[:, None] + steps) % vocab
            self.ids_i32 = self.ids.to(torch.int32)
            self.teacher = (torch.randn(rows, k, **make) - 1).log_softmax(-1) - 0.05

    def restore(self):
        self.work.copy_(self.clean)

    def ours(self, ours, operation, **arguments):
        import torch

        dtype = 0 if self.clean.dtype == torch.float32 else 1
        fixed = dict(targets=self.targets_i32, weights=self.weights, advantages=self.advantages,
                     old_logprobs=self.old, logprobs=self.logprobs, lse=self.lse, stats=self.stats)
        if self.k:
            fixed |= dict(ids=self.ids_i32, teacher_logprobs=self.teacher, k=self.k)
        return ours.call(operation, self.rows, self.vocab, dtype, self.call_device, **(fixed | arguments))


def measure(candidates, rounds):
    """Median and least CPU and wall time of each candidate, in ms: `{name: (prepare, run)}`."""
    for prepare, run in candidates.values():
        prepare()
        run()
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        order = list(candidates)
        random.shuffle(order)
        for name in order:
            prepare, run = candidates[name]
            prepare()
            wall, cpu = time.perf_counter(), time.process_time()
            result = run()
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
            del result
    table = {}
    for name, runs in times.items():
        cpu, wall = ([1e3 * run[i] for run in runs] for i in (0, 1))
        table[name] = dict(cpu=statistics.median(cpu), cpu_min=min(cpu), wall=statistics.median(wall),
                           wall_min=min(wall))
    return table


def nothing():
    pass


def close(what, found, expected, tolerance):
    error = (found.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    if not error <= tolerance * max(scale, 1e-30):
        sys.exit(f"{what} differs by {error:.3g} of {scale:.3g}")


def forward(ours, torch, peers, rows, vocab, dtype, full):
    inputs = Inputs(rows, vocab, dtype)
    run = inputs.ours(ours, "logprob", logits=inputs.clean)
    run()
    part = slice(0, 64)
    exact = inputs.clean[part].double().log_softmax(-1).gather(-1, inputs.targets[part][:, None])[:, 0]
    close("log-prob", inputs.logprobs[part], exact, 2e-6)

    def torch_run(form):
        def go():
            with torch.no_grad():
                return form(inputs.clean, inputs.targets)
        return nothing, go

    candidates = {
        "floor: read": (nothing, ours.floor("read", inputs.clean)),
        "ours": (nothing, run),
        "ours, with entropy": (nothing, inputs.ours(ours, "logprob", logits=inputs.clean, entropy=inputs.entropy)),
        "torch.compile logsumexp + gather": torch_run(compiled(torch, peers.by_logsumexp)),
        "torch.compile log_softmax + gather": torch_run(compiled(torch, peers.by_log_softmax)),
        "torch log_softmax + gather": torch_run(peers.by_log_softmax),
    }
    if full:
        candidates |= {
            "torch F.cross_entropy": torch_run(peers.by_cross_entropy),
            "torch logsumexp + gather": torch_run(peers.by_logsumexp),
            "Megatron's passes in place": torch_run(peers.in_place),
            "torch entropy alone": (nothing, lambda: torch.no_grad()(peers.entropy)(inputs.clean)),
        }
    return candidates


def compiled(torch, function):
    return torch.compile(function, dynamic=False)


def policy(ours, torch, peers, rows, vocab, dtype, full):
    inputs = Inputs(rows, vocab, dtype)
    run = inputs.ours(ours, "policy", logits=inputs.work)
    gradient = torch.empty_like(inputs.clean)
    apart = inputs.ours(ours, "policy", logits=gradient, source=inputs.clean)
    backward = inputs.ours(ours, "logprob_backward", logits=gradient, source=inputs.clean)

    def loss_of(form):
        def loss(leaf):
            return peers.ppo(form(leaf, inputs.targets), inputs.old, inputs.advantages, inputs.weights)
        return loss

    run()
    apart()
    part = slice(0, 64)
    leaf = inputs.clean[part].double().requires_grad_()
    exact = leaf.log_softmax(-1).gather(-1, inputs.targets[part][:, None])[:, 0]
    peers.ppo(exact, inputs.old[part], inputs.advantages[part], inputs.weights[part]).backward()
    close("gradient", inputs.work[part], leaf.grad, 2e-5 if dtype == torch.float32 else 4e-3)
    if not torch.equal(gradient, inputs.work):
        sys.exit("the gradient out of place is not the one in place")

    def torch_run(form, compile):
        loss = loss_of(form)
        loss = compiled(torch, loss) if compile else loss
        return nothing, lambda: peers.backward(loss, inputs.leaf)

    candidates = {
        "floor: in place": (nothing, ours.floor("in_place", inputs.work)),
        "floor: copy": (nothing, ours.floor("copy", inputs.clean, gradient)),
        "ours, in place": (inputs.restore, run),
        "ours, with entropy bonus": (inputs.restore, inputs.ours(ours, "policy", logits=inputs.work,
                                                                 entropy_coef=0.01)),
        "ours, out of place": (nothing, apart),
        "ours, log-prob gradient out of place": (nothing, backward),
        "torch.compile logsumexp + gather": torch_run(peers.by_logsumexp, True),
        "torch.compile log_softmax + gather": torch_run(peers.by_log_softmax, True),
        "torch log_softmax + gather": torch_run(peers.by_log_softmax, False),
    }
    if full:
        candidates |= {
            "torch F.cross_entropy": torch_run(peers.by_cross_entropy, False),
            "Megatron's passes in place": torch_run(peers.in_place, False),
        }
    return candidates


def gap(ours, torch, peers, rows, vocab, dtype, full):
    inputs, teacher = Inputs(rows, vocab, dtype), Inputs(rows, vocab, dtype)
    run = inputs.ours(ours, "gap", logits=inputs.clean, source=teacher.clean, gap=inputs.gap)

    def torch_run(form):
        def go():
            with torch.no_grad():
                return form(teacher.clean, inputs.targets) - form(inputs.clean, inputs.targets)
        return nothing, go

    def floor():
        ours.floor("read", inputs.clean)()
        ours.floor("read", teacher.clean)()

    return {
        "floor: read": (nothing, floor),
        "ours": (nothing, run),
        "torch.compile logsumexp + gather": torch_run(compiled(torch, peers.by_logsumexp)),
        "torch log_softmax + gather": torch_run(peers.by_log_softmax),
    }


def distill(ours, torch, peers, rows, vocab, dtype, full):
    inputs = Inputs(rows, vocab, dtype, k=50)
    run = inputs.ours(ours, "distill", logits=inputs.work)

    def loss_of(form):
        return lambda leaf: form(leaf, inputs.ids, inputs.teacher, inputs.weights)

    run()
    part = slice(0, 16)
    leaf = inputs.clean[part].double().requires_grad_()
    student = leaf.log_softmax(-1).gather(-1, inputs.ids[part])
    peers.reverse_kl(student, inputs.teacher[part].double(), inputs.weights[part].double()).backward()
    close("gradient", inputs.work[part], leaf.grad, 2e-5 if dtype == torch.float32 else 4e-3)
    return {
        "floor: in place": (nothing, ours.floor("in_place", inputs.work)),
        "ours, in place": (inputs.restore, run),
        "torch, 50 passes as published": (
            nothing, lambda: peers.backward(loss_of(peers.distill_by_passes), inputs.leaf)),
        "torch, one logsumexp": (nothing, lambda: peers.backward(loss_of(peers.distill_at_once), inputs.leaf)),
        "torch.compile, one logsumexp": (
            nothing, (lambda loss: lambda: peers.backward(loss, inputs.leaf))(
                compiled(torch, loss_of(peers.distill_at_once)))),
    }


def head(ours, torch, peers, rows, vocab, dtype, full):
    import torch.nn.functional as F

    width, chunk_rows = 1024, 64
    inputs = Inputs(rows, vocab, dtype)
    hidden = (torch.randn(rows, width) / 8).requires_grad_()
    weight = (torch.randn(vocab, width) / 8).requires_grad_()
    d_hidden, d_head = torch.empty(rows, width), torch.zeros(vocab, width)
    scratch = torch.empty(chunk_rows * (vocab + width))
    with torch.no_grad():
        inputs.old = peers.by_log_softmax(hidden @ weight.T, inputs.targets)
    run = inputs.ours(ours, "head_policy", logits=inputs.work, hidden=hidden, head=weight, d_hidden=d_hidden,
                      d_head=d_head, scratch=scratch, width=width, chunk_rows=chunk_rows)

    def torch_run(form):
        def go():
            hidden.grad = weight.grad = None
            logprobs = form(F.linear(hidden, weight), inputs.targets)
            peers.ppo(logprobs, inputs.old, inputs.advantages, inputs.weights).backward()
        return nothing, go

    logits = torch.empty(rows, vocab)

    def products():
        torch.mm(hidden.detach(), weight.detach().T, out=logits)
        torch.mm(logits, weight.detach(), out=d_hidden)
        torch.mm(logits.T, hidden.detach(), out=d_head)

    return {
        "floor: PyTorch's three matrix products": (nothing, products),
        "ours": (nothing, run),
        "torch linear + log_softmax + gather": torch_run(peers.by_log_softmax),
    }


GROUPS = {
    # name: (what, builder, rows, vocab, dtype, candidates of lesser interest too)
    "forward-f32": ("Log-prob forward", forward, 1024, 151_936, "float32", True),
    "policy-f32": ("Policy loss, forward and backward", policy, 1024, 151_936, "float32", True),
    "distill-f32": ("Top-k distillation, K = 50, forward and backward", distill, 64, 151_936, "float32", True),
    "gap-f32": ("Log-prob gap of two models", gap, 1024, 151_936, "float32", True),
    "forward-bf16": ("Log-prob forward", forward, 1024, 151_936, "bfloat16", False),
    "policy-bf16": ("Policy loss, forward and backward", policy, 1024, 151_936, "bfloat16", False),
    "forward-32k": ("Log-prob forward", forward, 2048, 32_768, "float32", False),
    "policy-32k": ("Policy loss, forward and backward", policy, 2048, 32_768, "float32", False),
    "forward-4k": ("Log-prob forward", forward, 4096, 4096, "float32", False),
    "policy-4k": ("Policy loss, forward and backward", policy, 4096, 4096, "float32", False),
    "head-f32": ("Linear head and policy loss, H = 1024", head, 256, 32_768, "float32", False),
}


def bars(times):
    """What is promised: (claim, found, at least)."""
    def ratio(group, peer, mine):
        return times[group][peer]["cpu"] / times[group][mine]["cpu"]

    found = []
    if "forward-f32" in times:
        best = min(ratio("forward-f32", peer, "ours") for peer in times["forward-f32"] if "compile" in peer)
        found.append(("log-prob forward against torch.compile", best, 3.0))
        found.append(("log-prob forward, share of the read floor", ratio("forward-f32", "floor: read", "ours"), 0.75))
    if "policy-f32" in times:
        best = min(ratio("policy-f32", peer, "ours, in place") for peer in times["policy-f32"] if "compile" in peer)
        found.append(("policy loss in place against torch.compile", best, 4.0))
    if "distill-f32" in times:
        passes = ratio("distill-f32", "torch, 50 passes as published", "ours, in place")
        found.append(("top-k distillation against the 50 passes", passes, 200.0))
    return found


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def child(arguments):
    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import peers

    torch.set_num_threads(arguments.threads)
    ours = Ours(arguments.library, arguments.threads)
    times = {}
    for group in arguments.groups:
        _, build, rows, vocab, dtype, full = GROUPS[group]
        torch._dynamo.reset()
        candidates = build(ours, torch, peers, rows, vocab, getattr(torch, dtype), full)
        slow = any("50 passes" in name for name in candidates)
        times[group] = measure(candidates, max(3, arguments.rounds // 4) if slow else arguments.rounds)
        print(f"{group} done", file=sys.stderr)
    versions = f"PyTorch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), ours {ours.instructions}"
    print(json.dumps(dict(times=times, versions=versions)))


def table(group, own, keeping):
    what, _, rows, vocab, dtype, _ = GROUPS[group]
    mine = next(name for name in keeping if name.startswith("ours"))
    lines = [f"### {what}, T = {rows}, V = {vocab}, {dtype}", "",
             "| | CPU ms | CPU min | wall ms | wall min | x ours | glibc's allocator: CPU ms | x ours |",
             "|---|---|---|---|---|---|---|---|"]
    for name, t in keeping.items():
        o = own[name]
        bold = "**" if name.startswith("ours") else ""
        lines.append(
            f"| {bold}{name}{bold} | {t['cpu']:.1f} | {t['cpu_min']:.1f} | {t['wall']:.1f} | {t['wall_min']:.1f} "
            f"| {t['cpu'] / keeping[mine]['cpu']:.2f} | {o['cpu']:.1f} | {o['cpu'] / own[mine]['cpu']:.2f} |")
    return "\n".join(lines) + "\n"


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--library", default=root / "target/release/examples/libpeer.so")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [group for group in arguments.groups if group not in GROUPS]
    if unknown:
        parser.error(f"unknown group {unknown[0]}")
    if arguments.child:
        return child(arguments)
    if not pathlib.Path(arguments.library).exists():
        sys.exit(f"{arguments.library} is not there: cargo build --release -p openclaw-kernels --example peer")
    results = []
    for setting in ({}, KEEPS_PAGES):
        command = [sys.executable, __file__, "--child", *sys.argv[1:]]
        done = subprocess.run(command, env=os.environ | ENVIRONMENT | setting, stdout=subprocess.PIPE, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    own, keeping = (result["times"] for result in results)
    huge = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    pages = huge.read_text().strip() if huge.exists() else "unknown"
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}, {arguments.threads} threads, {results[0]['versions']}, "
          f"huge pages {pages}, load {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds\n")
    for group in keeping:
        print(table(group, own[group], keeping[group]))
    missed = 0
    for claim, found, least in bars(keeping):
        missed += found < least
        print(f"- {claim}: {found:.2f}, at least {least} {'holds' if found >= least else 'MISSED'}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
