"""Our operations against PyTorch in float64 on the same tensors, one shape and type in a process."""

from .with_torch import Missing, check

# Rows, logits in a row, and the largest error in float32 and in bfloat16.
SHAPES = [(64, 1000), (33, 32_000), (64, 151_936), (17, 152_064)]
SMALL = [(3, 1000), (5, 2049)]
DTYPES = ("float32", "bfloat16")
# A step of its own: positions that need more than 31 bits.
LARGE = "2^31"


def names(small):
    shapes = [f"{rows}x{vocab}-{dtype}" for rows, vocab in (SMALL if small else SHAPES) for dtype in DTYPES]
    return [*shapes, LARGE]


def run(setting, what):
    if what == LARGE:
        return large(setting)
    shape, dtype = what.split("-")
    rows, vocab = map(int, shape.split("x"))
    torch, compare, ours, gpu = setting.torch, setting.compare, setting.ours, setting.gpu
    tolerance = 2e-5 if dtype == "float32" else 4e-3
    inputs = compare.Inputs(rows, vocab, getattr(torch, dtype), k=50, device=gpu.name, call_device=1)
    what = f"T {rows}, V {vocab}, {dtype}"
    for name, worst in errors(torch, setting.peers, ours, inputs, gpu).items():
        check(f"{what}, {name}: off by {worst:.1e} of the largest", worst <= tolerance)
    once = inputs.work.clone()
    inputs.restore()
    gpu.wait()
    inputs.ours(ours, "distill", logits=inputs.work)()
    same = torch.equal(once, inputs.work)
    alone = compare.Inputs(1, vocab, getattr(torch, dtype), device=gpu.name, call_device=1)
    alone.clean.copy_(inputs.clean[1:2])
    alone.targets_i32.copy_(inputs.targets_i32[1:2])
    gpu.wait()
    alone.ours(ours, "logprob", logits=alone.clean, entropy=alone.entropy)()
    same &= torch.equal(alone.logprobs, inputs.logprobs[1:2])
    same &= torch.equal(alone.entropy, inputs.entropy[1:2])
    check(f"{what}, twice and a row alone: the same bits", same)


def large(setting):
    torch, peers, ours, gpu = setting.torch, setting.peers, setting.ours, setting.gpu
    if setting.small:
        raise Missing("the shapes are small")
    rows, vocab = 14_336, 151_936
    if torch.cuda.mem_get_info()[0] < 4 * rows * vocab * 2:
        raise Missing("the GPU's memory is too small")
    inputs = setting.compare.Inputs(rows, vocab, torch.bfloat16, device=gpu.name, call_device=1)
    inputs.leaf = None
    gpu.wait()
    inputs.ours(ours, "logprob", logits=inputs.clean)()
    inputs.ours(ours, "policy", logits=inputs.work)()
    worst = 0.0
    for part in (slice(0, 8), slice(14_128, 14_144), slice(rows - 8, rows)):
        logits = inputs.clean[part].double().requires_grad_()
        logprobs = logits.log_softmax(-1).gather(-1, inputs.targets[part][:, None])[:, 0]
        peers.ppo(logprobs, inputs.old[part], inputs.advantages[part], inputs.weights[part]).backward()
        worst = max(worst, (inputs.logprobs[part] - logprobs).abs().max().item() / 10)
        scale = logits.grad.abs().max()
        worst = max(worst, ((inputs.work[part].double() - logits.grad).abs().max() / scale).item())
    check(f"T x V = {rows * vocab / 2**31:.3f} x 2^31: off by {worst:.1e}", worst <= 4e-3)


def errors(torch, peers, ours, inputs, gpu):
    """The largest error of each result, relative to its largest value. Leaves `distill`'s gradient in `work`."""
    def relative(found, expected):
        return ((found.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()

    exact = inputs.clean.double().log_softmax(-1)
    taken = exact.gather(-1, inputs.targets[:, None])[:, 0]
    found = {}
    gpu.wait()
    inputs.ours(ours, "logprob", logits=inputs.clean, entropy=inputs.entropy)()
    found["log-prob"] = relative(inputs.logprobs, taken)
    found["entropy"] = relative(inputs.entropy, -(exact.exp() * exact).sum(-1))
    kept = inputs.logprobs.clone()
    inputs.ours(ours, "gap", logits=inputs.clean, source=inputs.clean, gap=inputs.gap)()
    found["gap of equal logits"] = inputs.gap.abs().max().item()
    inputs.logprobs.copy_(kept)
    for name, loss in (
        ("policy", lambda leaf: peers.ppo(
            leaf.log_softmax(-1).gather(-1, inputs.targets[:, None])[:, 0],
            inputs.old.double(), inputs.advantages.double(), inputs.weights.double())),
        ("distill", lambda leaf: peers.reverse_kl(
            leaf.log_softmax(-1).gather(-1, inputs.ids), inputs.teacher.double(), inputs.weights.double())),
    ):
        leaf = inputs.clean.double().requires_grad_()
        loss(leaf).backward()
        inputs.restore()
        gpu.wait()
        inputs.ours(ours, name, logits=inputs.work)()
        found[f"{name} gradient"] = relative(inputs.work, leaf.grad)
    return found
