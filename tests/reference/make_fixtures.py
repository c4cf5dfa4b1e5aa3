"""Makes the reference files under tests/fixtures that the `model` crate is compared with.

Run it again when a case is added or when a newer transformers should be the yardstick (from anywhere):

    python3 -m venv VENV && VENV/bin/pip install torch transformers
    VENV/bin/python tests/reference/make_fixtures.py            # all parts
    VENV/bin/python tests/reference/make_fixtures.py engine     # or one: engine, templates, tokenizer

`engine`     qwen3/<variant>/: a random checkpoint as `save_pretrained` writes it, and reference.safetensors:
             ids, lengths     int64   two sequences, one after the other, and how long each is
             logits           f32     [tokens, vocab]
             logprobs         f32     log p(ids[i] | ids[..i]) of each sequence from its second token on
             loss             f32     mean of -logprobs over both sequences
             grad.<name>      f32     d loss / d <name>; a tied embedding has one gradient, the sum of both uses
`templates`  templates/cases.json: conversations and what `apply_chat_template` renders for each template beside it
`tokenizer`  tokenizer/: texts and their ids. tokenizer.json comes from our own trainer:
             cargo test -p openclaw-model --test tokenizer -- --ignored writes_the_fixture_tokenizer

Everything is seeded: the same versions of torch and transformers write the same bytes.
"""

import json
import shutil
import sys
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
SEQUENCE_LENGTHS = [37, 11]  # the longer one spans several KV pages of 16 and ends inside one

SMALL = dict(
    vocab_size=101,  # odd, so that no vector width divides it
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
)
ROPE_THETA = 1_000_000.0

# name -> changes to SMALL, and how the checkpoint is saved
VARIANTS = {
    "mha": dict(num_key_value_heads=4),
    "gqa4": dict(num_attention_heads=8, num_key_value_heads=2, head_dim=4),
    "wide_head": dict(head_dim=24),
    "untied": dict(tie_word_embeddings=False),
    "sharded": dict(tie_word_embeddings=False, max_shard_size="30KB"),
    "bf16": dict(dtype="bfloat16"),
    # A theta that is nobody's default: a reader that looks in the wrong place cannot pass.
    "rope_parameters": dict(rope_theta=500.0),
    "rope_top_level": dict(rope_theta=500.0, top_level_rope_theta=True),
}


def make_engine():
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.set_num_threads(1)
    for seed, (variant, changes) in enumerate(VARIANTS.items()):
        changes = dict(changes)
        max_shard_size = changes.pop("max_shard_size", "1GB")
        top_level = changes.pop("top_level_rope_theta", False)
        dtype = getattr(torch, changes.pop("dtype", "float32"))
        theta = changes.pop("rope_theta", ROPE_THETA)
        config = Qwen3Config(
            **{**SMALL, **changes},
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        )
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config).float()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # Larger than usual, so that logits are far from flat; norm weights away from 1, so that each is felt.
                noise = 0.2 * torch.randn(parameter.shape)
                parameter.copy_(1.0 + noise if name.endswith("norm.weight") else noise)

        folder = FIXTURES / "qwen3" / variant
        shutil.rmtree(folder, ignore_errors=True)
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
        if top_level:
            move_rope_theta_to_top_level(folder / "config.json")
        # Read back rather than `model.float()`: casting to bf16 has rounded the rotary frequencies too.
        reference_run(load_f32(folder), seed, folder)
        print(variant, f"{sum(f.stat().st_size for f in folder.iterdir()) / 1024:.0f} KiB")


def load_f32(folder):
    import torch
    from transformers import Qwen3ForCausalLM

    return Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def move_rope_theta_to_top_level(path):
    """Writes the config as transformers before version 5 did."""
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def reference_run(model, seed, folder):
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(1000 + seed)
    vocab = model.config.vocab_size
    sequences = [torch.randint(vocab, (length,), generator=generator) for length in SEQUENCE_LENGTHS]
    logits, logprobs = [], []
    model.eval()
    for ids in sequences:
        sequence_logits = model(ids[None]).logits[0]
        predicted = torch.log_softmax(sequence_logits[:-1], dim=-1).gather(1, ids[1:, None])[:, 0]
        logits.append(sequence_logits)
        logprobs.append(predicted)
    loss = -torch.cat(logprobs).mean()
    loss.backward()
    tensors = {
        "ids": torch.cat(sequences),
        "lengths": torch.tensor(SEQUENCE_LENGTHS),
        "logits": torch.cat(logits).detach(),
        "logprobs": torch.cat(logprobs).detach(),
        "loss": loss.detach()[None],
    }
    for name, parameter in model.named_parameters():
        tensors[f"grad.{name}"] = parameter.grad
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "reference.safetensors")


def quiet_progress_bars():
    from transformers.utils import logging

    logging.disable_progress_bar()


def main():
    parts = {"engine": make_engine}
    chosen = sys.argv[1:] or list(parts)
    quiet_progress_bars()
    for part in chosen:
        if part not in parts:
            sys.exit(f"unknown part {part!r}: choose from {', '.join(parts)}")
        parts[part]()


if __name__ == "__main__":
    main()
