"""Each operation beside its peers on the same tensors, and its floor by a copy timed among them; one group in a process."""

from .with_torch import BAR, HEAD_BAR, bar, detail, line, rows_of_table, timed

# Names of steps, and of what they time.
GROUPS = {
    "log-prob": "1 log-prob",
    "gap": "2 gap",
    "policy": "3 policy loss and gradient",
    "head": "4 head and policy loss",
    "distill": "5 top-k distillation, K = 50",
}


def liger():
    """Liger's operations, or why there are none."""
    try:
        from liger_kernel.ops.grpo_loss import fused_selective_log_softmax
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
        from liger_kernel.transformers.grpo_loss import triton_grpo_loss

        return dict(logprob=fused_selective_log_softmax, grpo=triton_grpo_loss,
                    head=liger_fused_linear_cross_entropy), None
    except Exception as error:  # whatever its import runs into
        return None, f"{type(error).__name__}: {error}"


def run(setting, what):
    found, missing = liger()
    if missing:
        detail(f"- {what}: Liger is not compared: {missing}")
    if what == "head":
        return head(setting, found)
    torch, compare, peers = setting.torch, setting.compare, setting.peers
    ours, gpu = setting.ours, setting.gpu
    rows, vocab = (6, 1024) if setting.small else (8192, 151_936)
    if not setting.small:
        while rows * vocab * 2 * 14 > torch.cuda.mem_get_info()[0]:
            rows //= 2
    inputs = compare.Inputs(rows, vocab, torch.bfloat16, k=50, device=gpu.name, call_device=1)
    other = inputs.clean.clone()
    compiled = (lambda function: function) if setting.small else (lambda function: torch.compile(
        function, dynamic=False, mode="max-autotune-no-cudagraphs"))
    bytes_of_logits = inputs.clean.numel() * 2

    def no_grad(form, *arguments):
        def run():
            with torch.no_grad():
                return form(*arguments)
        return lambda: None, run, False

    def both(form):
        return lambda: None, lambda: peers.backward(form, inputs.leaf), False

    def own(operation, logits, restore, **arguments):
        return (inputs.restore if restore else (lambda: None)), inputs.ours(
            ours, operation, logits=logits, **arguments), True

    copy = {"copy": (lambda: None, lambda: other.copy_(inputs.clean), False)}
    # Liger takes sequences whose last position is dropped, and one advantage for each.
    length = 1024 if rows % 1024 == 0 else rows
    sequences = inputs.clean.view(rows // length, length, vocab)
    ids = inputs.targets.view(rows // length, length)[:, 1:].contiguous()
    old = inputs.old.view(rows // length, length)[:, 1:].contiguous()
    leaf = inputs.leaf.detach().view(rows // length, length, vocab).requires_grad_()

    def grpo():
        leaf.grad = None
        loss = found["grpo"](leaf, old, None, ids, inputs.advantages[:rows // length].contiguous(), temperature=1.0,
                             beta=0.0, eps_low=0.2, eps_high=0.28, inplace=False)
        loss[0].sum().backward()

    def ppo(form):
        return lambda logits: peers.ppo(form(logits, inputs.targets), inputs.old, inputs.advantages, inputs.weights)

    def distilled(logits):
        return peers.distill_at_once(logits, inputs.ids, inputs.teacher, inputs.weights)

    def gap(form):
        return lambda: form(other, inputs.targets) - form(inputs.clean, inputs.targets)

    groups = {
        "log-prob": (1, lambda: {
            "ours": own("logprob", inputs.clean, False),
            "ours, with entropy": own("logprob", inputs.clean, False, entropy=inputs.entropy),
            "torch eager": no_grad(peers.by_log_softmax, inputs.clean, inputs.targets),
            "torch.compile": no_grad(compiled(peers.by_logsumexp), inputs.clean, inputs.targets),
            **({"Liger": no_grad(found["logprob"], sequences, ids, 1.0)} if found else {}),
        }),
        "gap": (2, lambda: {
            "ours": own("gap", inputs.clean, False, source=other, gap=inputs.gap),
            "torch eager": no_grad(gap(peers.by_log_softmax)),
            "torch.compile": no_grad(gap(compiled(peers.by_logsumexp))),
        }),
        "policy": (2, lambda: {
            "ours, in place": own("policy", inputs.work, True),
            "ours, with entropy bonus": own("policy", inputs.work, True, entropy_coef=0.01),
            "torch eager": both(ppo(peers.by_log_softmax)),
            "torch.compile": both(compiled(ppo(peers.by_logsumexp))),
            **({"Liger": (lambda: None, grpo, False)} if found else {}),
        }),
        "distill": (2, lambda: {
            "ours, in place": own("distill", inputs.work, True),
            "torch eager, one pass": both(distilled),
            "torch.compile, one pass": both(compiled(distilled)),
        }),
    }
    passes, candidates = groups[what]
    candidates = candidates()
    # A compilation can take longer than all else: what it is compared with is told before.
    slow = {name: one for name, one in candidates.items() if name.startswith("torch.compile")}
    times = timed(setting, copy | {name: one for name, one in candidates.items() if name not in slow})
    floor = times["copy"][0] * passes / 2
    rate = 2 * bytes_of_logits / times["copy"][0] / 1e9
    line(f"| {GROUPS[what]}, T = {rows}, V = {vocab}, bfloat16 | floor, {passes} x the logits at {rate:.2f} TB/s "
         f"| {floor:.3f} | | | | 1.00 | |")
    rows_of_table(times, floor)
    mine = next(name for name in times if name.startswith("ours"))
    if not setting.small:
        bar(f"{GROUPS[what]} within {BAR} of its floor", times[mine][0] <= BAR * floor)
    if slow:
        again = timed(setting, {mine: candidates[mine]} | slow)
        rows_of_table({name: again[name] for name in again if name != mine}, floor, again[mine][0])


def head(setting, found):
    """The head with its loss, in float32 as the backend takes it: beside the bare products of the same precision."""
    import torch.nn.functional as F

    torch, compare, peers = setting.torch, setting.compare, setting.peers
    ours, gpu = setting.ours, setting.gpu
    rows, vocab, width, chunk = (6, 1024, 32, 4) if setting.small else (2048, 151_936, 2560, 2048)
    inputs = compare.Inputs(rows, vocab, torch.float32, device=gpu.name, call_device=1)
    inputs.leaf = None
    make = dict(device=gpu.name)
    hidden = (torch.randn(rows, width, **make) / 8).requires_grad_()
    weight = (torch.randn(vocab, width, **make) / 8).requires_grad_()
    with torch.no_grad():
        inputs.old = peers.by_log_softmax(hidden @ weight.T, inputs.targets)
    d_hidden, d_head = torch.empty(rows, width, **make), torch.zeros(vocab, width, **make)
    scratch = torch.empty(chunk * (vocab + width), **make)
    arguments = dict(hidden=hidden, head=weight, d_hidden=d_hidden, d_head=d_head, scratch=scratch, width=width,
                     chunk_rows=chunk)
    logits, other = inputs.work, inputs.clean

    def products():
        torch.mm(hidden.detach(), weight.detach().T, out=logits)
        torch.mm(logits, weight.detach(), out=d_hidden)
        torch.mm(logits.T, hidden.detach(), out=d_head)

    def through(loss):
        def run():
            hidden.grad = weight.grad = None
            loss().backward()
        return lambda: None, run, False

    def eager():
        logprobs = peers.by_log_softmax(F.linear(hidden, weight), inputs.targets)
        return peers.ppo(logprobs, inputs.old, inputs.advantages, inputs.weights)

    candidates = {
        "copy": (lambda: None, lambda: other.copy_(logits), False),
        "three bare products": (lambda: None, products, False),
        "ours": (lambda: None, inputs.ours(ours, "head_policy", logits=inputs.work, **arguments), True),
        "torch eager": through(eager),
    }
    if hasattr(F, "linear_cross_entropy"):
        candidates["torch F.linear_cross_entropy"] = through(
            lambda: F.linear_cross_entropy(hidden, weight, inputs.targets))
    if found:
        def fused():
            loss = found["head"](hidden, weight, inputs.targets)
            return loss[0] if isinstance(loss, tuple) else loss
        candidates["Liger fused linear cross-entropy"] = through(fused)
    times = timed(setting, candidates)
    floor = times["three bare products"][0] + times["copy"][0]
    line(f"| {GROUPS['head']}, T = {rows}, V = {vocab}, H = {width}, float32 | floor: three products and "
         f"one read and write of the logits | {floor:.3f} | | | | 1.00 | |")
    rows_of_table(times, floor)
    if not setting.small:
        bar(f"{GROUPS['head']} within {HEAD_BAR} of its floor", times["ours"][0] <= HEAD_BAR * floor)
