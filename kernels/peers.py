"""The loss operations as others compute them in PyTorch, for the comparisons on the CPU and on a GPU."""

import torch
import torch.nn.functional as F

CLIP_LOW, CLIP_HIGH = 0.2, 0.28


def ppo(logprobs, old, advantages, weights):
    """The clipped policy loss of the taken tokens."""
    ratio = (logprobs - old).exp()
    clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    return (weights * torch.maximum(-ratio * advantages, -clipped * advantages)).sum()


def by_log_softmax(logits, targets):
    return logits.float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]


def by_logsumexp(logits, targets):
    logits = logits.float()
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)


def by_cross_entropy(logits, targets):
    return -F.cross_entropy(logits.float(), targets, reduction="none")


def entropy(logits):
    logprobs = logits.float().log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


class InPlaceLogprob(torch.autograd.Function):
    """Log-probs as Megatron's fused cross-entropy computes them: passes over a float32 softmax that it keeps."""

    @staticmethod
    def forward(ctx, logits, targets):
        logits = logits.float()
        logits -= logits.max(-1, keepdim=True).values
        taken = logits.gather(-1, targets[:, None])[:, 0]
        softmax = logits.exp_()
        total = softmax.sum(-1)
        softmax /= total[:, None]
        ctx.save_for_backward(softmax, targets)
        return taken - total.log()

    @staticmethod
    def backward(ctx, d_logprobs):
        softmax, targets = ctx.saved_tensors
        gradient = softmax.neg()
        gradient.scatter_add_(-1, targets[:, None], torch.ones_like(targets, dtype=gradient.dtype)[:, None])
        return gradient.mul_(d_logprobs[:, None]), None


def in_place(logits, targets):
    # The fused form writes over its input, so its callers hand it a clone.
    return InPlaceLogprob.apply(logits.clone(), targets)


def tail(logprobs):
    mass = logprobs.logsumexp(-1).clamp(max=-1e-7)
    return torch.log(-torch.expm1(mass))


def reverse_kl(student, teacher, weights):
    """KL(student | teacher) over the candidates and one bin for all other tokens."""
    student_tail, teacher_tail = tail(student), tail(teacher)
    kl = (student.exp() * (student - teacher)).sum(-1)
    return (weights * (kl + student_tail.exp() * (student_tail - teacher_tail))).sum()


def distill_by_passes(logits, ids, teacher, weights):
    """The published form: one log-prob pass, on a clone of the logits, for each of the K ids."""
    student = torch.stack([in_place(logits, ids[:, k].contiguous()) for k in range(ids.shape[1])], -1)
    return reverse_kl(student, teacher, weights)


def distill_at_once(logits, ids, teacher, weights):
    logits = logits.float()
    student = logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)
    return reverse_kl(student, teacher, weights)


def backward(loss, leaf):
    """The gradient of `loss(leaf)` to `leaf`, in the leaf's own type."""
    leaf.grad = None
    loss(leaf).backward()
    return leaf.grad
