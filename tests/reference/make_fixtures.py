"""Makes the reference files under tests/fixtures that the `model` crate is compared with.

Run it again when a case is added or when a newer transformers should be the yardstick (from anywhere):

    python3 -m venv VENV && VENV/bin/pip install torch transformers
    VENV/bin/python tests/reference/make_fixtures.py            # all parts
    VENV/bin/python tests/reference/make_fixtures.py engine     # or one: engine, families, templates, tokenizer

`engine`     qwen3/<variant>/ and families/<variant>/: a random checkpoint as `save_pretrained` writes it, and reference.safetensors:
             ids, lengths     int64   two sequences, one after the other, and how long each is
             logits           f32     [tokens, vocab]
             logprobs         f32     log p(ids[i] | ids[..i]) of each sequence from its second token on
             loss             f32     mean of -logprobs over both sequences
             grad.<name>      f32     d loss / d <name>; a tied embedding has one gradient, the sum of both uses
`templates`  templates/cases.json: conversations and what `apply_chat_template` renders for each template beside it
`tokenizer`  tokenizer/: texts and their ids. tokenizer.json comes from our own trainer:
             BLESS=1 cargo test -p openclaw-model --test tokenizer

Everything is seeded: the same versions of torch and transformers write the same bytes.
"""

import json
import random
import shutil
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the folder is under version control
from conversations import CASES

TESTS = Path(__file__).resolve().parent.parent
FIXTURES = TESTS / "fixtures"
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
LLAMA3_ROPE = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    # So short that frequencies of all three kinds are among the four of a head.
    original_max_position_embeddings=64,
)
# name -> class, and changes to SMALL
FAMILIES = {
    "qwen2": ("Qwen2", dict()),
    "qwen2_untied": ("Qwen2", dict(tie_word_embeddings=False)),
    "llama": ("Llama", dict()),
    "llama3_rope": ("Llama", dict(tie_word_embeddings=False, head_dim=16, rope=LLAMA3_ROPE)),
    "mistral": ("Mistral", dict(tie_word_embeddings=False, sliding_window=None)),
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


def make_families():
    import torch
    import transformers

    torch.set_num_threads(1)
    for seed, (variant, (family, changes)) in enumerate(FAMILIES.items(), start=100):
        changes = dict(changes)
        rope = {"rope_type": "default", "rope_theta": ROPE_THETA, **changes.pop("rope", {})}
        config = getattr(transformers, f"{family}Config")(**{**SMALL, **changes}, rope_parameters=rope)
        torch.manual_seed(seed)
        model = getattr(transformers, f"{family}ForCausalLM")(config).float()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = 0.2 * torch.randn(parameter.shape)
                parameter.copy_(1.0 + noise if name.endswith("norm.weight") else noise)
        folder = FIXTURES / "families" / variant
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        reference_run(load_f32(folder), seed, folder)
        print(variant, f"{sum(f.stat().st_size for f in folder.iterdir()) / 1024:.0f} KiB")


def load_f32(folder):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


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


def make_templates():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<|begin|>", eos_token="<|im_end|>"
    )
    folder = FIXTURES / "templates"
    sources = {path.stem: path.read_text() for path in sorted(folder.glob("*.jinja"))}
    sources["nano"] = (TESTS.parent / "model" / "src" / "nano_template.jinja").read_text()
    rendered = []
    for case in CASES:
        for template in case["templates"]:
            text = tokenizer.apply_chat_template(
                case["messages"],
                tools=case.get("tools"),
                chat_template=sources[template],
                add_generation_prompt=case.get("add_generation_prompt", True),
                tokenize=False,
                **case.get("kwargs", {}),
            )
            rendered.append({**case, "templates": None, "template": template, "expected": text})
    for case in rendered:
        del case["templates"]
    write_json(folder / "cases.json", rendered)
    print("templates", len(rendered), "cases")


def make_tokenizer():
    from transformers import PreTrainedTokenizerFast

    folder = FIXTURES / "tokenizer"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    cases = []
    for text in tokenizer_texts():
        ids = tokenizer.encode(text, add_special_tokens=False)
        cases.append(
            {
                "text": text,
                "ids": ids,
                "decoded": tokenizer.decode(ids),
                "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
            }
        )
    # Ids that were never encoded: halves of characters, and every id once.
    draw = random.Random(5)
    for ids in [list(range(len(tokenizer)))] + [draw.choices(range(len(tokenizer)), k=40) for _ in range(8)]:
        cases.append(
            {
                "ids": ids,
                "decoded": tokenizer.decode(ids),
                "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
            }
        )
    summary = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "cases": cases,
    }
    write_json(folder / "cases.json", summary)
    print("tokenizer", len(cases), "cases")


def tokenizer_texts():
    texts = [
        "",
        " ",
        "Seven apples cost 3.50 each.",
        "1234567890 007 3,141.59",
        "  two  spaces\n\n\n\tand\r\ntabs  \n ",
        "I'm you're we'll THEY'VE it's he'd",
        "na\u0308ive and na\u00efve, \u212b and \u00c5",  # NFC joins the first of each pair
        "\u4f60\u597d\uff0c\u4e16\u754c \u0645\u0631\u062d\u0628\u0627 \u043f\u0440\u0438\u0432\u0435\u0442 \u0939\u093f",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1fa\U0001f1f3 \U0001f600!",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\nhm\n</think>\n\nhello<|im_end|>\n",
        "<|im_start|><|im_start|> <|im_end |> <|endoftext|>x<tool_call>{\"name\": \"f\"}</tool_call>",
        "def f(x):\n    return {'a': [x, -1.5e-3]}  # <>&\u00a0\u00ad\ufeff",
        "\x00\x01\x7f\x80",
    ]
    draw = random.Random(4)
    alphabet = " \n\t.,'!?<|>0123456789abcdefgHIJK\u00e9\u00df\u0416\u4e2d\U0001f680\u0301\u3000"
    texts += ["".join(draw.choices(alphabet, k=draw.randrange(1, 60))) for _ in range(25)]
    for case in CASES:
        texts += [message["content"] for message in case["messages"] if isinstance(message.get("content"), str)]
    return list(dict.fromkeys(texts))


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def quiet_progress_bars():
    from transformers.utils import logging

    logging.disable_progress_bar()


def main():
    parts = {"engine": make_engine, "families": make_families, "templates": make_templates, "tokenizer": make_tokenizer}
    chosen = sys.argv[1:] or list(parts)
    quiet_progress_bars()
    for part in chosen:
        if part not in parts:
            sys.exit(f"unknown part {part!r}: choose from {', '.join(parts)}")
        parts[part]()


if __name__ == "__main__":
    main()
