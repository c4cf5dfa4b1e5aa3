"""Makes the reference files under tests/fixtures that the `model` crate is compared with.

Run it again when a case is added or when a newer transformers should be the yardstick (from anywhere):

    python3 -m venv VENV && VENV/bin/pip install torch transformers gguf
    VENV/bin/python tests/reference/make_fixtures.py            # all parts
    VENV/bin/python tests/reference/make_fixtures.py engine     # or one: engine, families, adapters, gguf, templates, tokenizer

`engine`     qwen3/<variant>/ and families/<variant>/: a random checkpoint as `save_pretrained` writes it, and reference.safetensors:
             ids, lengths     int64   two sequences, one after the other, and how long each is
             logits           f32     [tokens, vocab]
             logprobs         f32     log p(ids[i] | ids[..i]) of each sequence from its second token on
             loss             f32     mean of -logprobs over both sequences
             grad.<name>      f32     d loss / d <name>; a tied embedding has one gradient, the sum of both uses
`adapters`   adapters/<variant>/: an adapter as PEFT writes it on one of these, and the same reference of both together
`gguf`       gguf/: blocks.gguf, a tensor of each kind of block, and blocks.safetensors, what the `gguf` package makes of it;
             <architecture>.gguf, a random model with the vocabulary of tokenizer/, and <architecture>.safetensors: ids, and the
             logits of `transformers` with the file's weights
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
        draw_weights(model)
        folder = FIXTURES / "qwen3" / variant
        shutil.rmtree(folder, ignore_errors=True)
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
        if top_level:
            move_rope_theta_to_top_level(folder / "config.json")
        # Read back rather than `model.float()`: casting to bf16 has rounded the rotary frequencies too.
        reference_run(load_f32(folder), seed, folder)
        print(variant, f"{sum(f.stat().st_size for f in folder.iterdir()) / 1024:.0f} KiB")


def draw_weights(model):
    """Larger than usual, so that logits are far from flat; norm weights away from 1, so that each is felt."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.2 * torch.randn(parameter.shape)
            parameter.copy_(1.0 + noise if name.endswith("norm.weight") else noise)


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
        draw_weights(model)
        folder = FIXTURES / "families" / variant
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        reference_run(load_f32(folder), seed, folder)
        print(variant, f"{sum(f.stat().st_size for f in folder.iterdir()) / 1024:.0f} KiB")


BLOCKS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# Of a block, which bytes are numbers in f16: any others may be anything.
F16_AT = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
# architecture -> class of transformers; and which of its matrices is stored how, in turn
ARCHITECTURES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}
STORED = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16"]


def make_gguf():
    import gguf
    import numpy as np
    import torch
    import transformers
    from safetensors.numpy import save_file

    folder = FIXTURES / "gguf"
    folder.mkdir(exist_ok=True)
    random_bytes = np.random.default_rng(5)
    writer, expected = gguf.GGUFWriter(folder / "blocks.gguf", "blocks"), {}
    for name in BLOCKS:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rows, blocks = 3, 2 if elements > 1 else 64
        if elements == 1:
            values = random_bytes.normal(size=(rows, blocks)).astype(np.float32)
            data = gguf.quants.quantize(values, kind)
        else:
            data = random_bytes.integers(256, size=(rows, blocks, size), dtype=np.uint8)
            for at in F16_AT[name]:
                scale = random_bytes.normal(size=(rows, blocks)).astype(np.float16)
                data[:, :, at : at + 2] = scale[..., None].view(np.uint8)
            data = data.reshape(rows, blocks * size)
        raw = {"F16": np.float16, "F32": np.float32}.get(name)
        writer.add_tensor(name, data if raw is None else data.view(raw), raw_dtype=None if raw else kind)
        expected[name] = np.ascontiguousarray(gguf.quants.dequantize(data, kind), dtype=np.float32)
    close(writer)
    save_file(expected, folder / "blocks.safetensors")

    vocabulary = json.loads((FIXTURES / "tokenizer" / "tokenizer.json").read_text())
    template = (FIXTURES / "templates" / "thinking_tools.jinja").read_text()
    shape = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    for seed, (architecture, family) in enumerate(ARCHITECTURES.items(), start=200):
        ids = {**vocabulary["model"]["vocab"], **{t["content"]: t["id"] for t in vocabulary["added_tokens"]}}
        size = max(ids.values()) + 3  # two rows that no token has
        config = getattr(transformers, f"{family}Config")(
            **shape,
            head_dim=16,
            vocab_size=size,
            max_position_embeddings=256,
            rms_norm_eps=1e-5,
            tie_word_embeddings=architecture == "qwen3",
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        )
        torch.manual_seed(seed)
        model = getattr(transformers, f"{family}ForCausalLM")(config).float()
        writer = gguf.GGUFWriter(folder / f"{architecture}.gguf", architecture)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_rope_freq_base(ROPE_THETA)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        added = {t["content"]: t["special"] for t in vocabulary["added_tokens"]}
        tokens = [f"[PAD{id}]" for id in range(size)]
        kinds = [gguf.TokenType.UNUSED] * size
        for token, id in ids.items():
            tokens[id], kinds[id] = token, gguf.TokenType.NORMAL
            if token in added:
                kinds[id] = gguf.TokenType.CONTROL if added[token] else gguf.TokenType.USER_DEFINED
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in vocabulary["model"]["merges"]]
        writer.add_token_merges(merges)
        writer.add_eos_token_id(ids["<|im_end|>"])
        writer.add_pad_token_id(ids["<|endoftext|>"])
        writer.add_chat_template(template)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
        state = {}
        matrices = 0
        for name, parameter in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            noise = 0.2 * torch.randn(parameter.shape)
            values = (1.0 + noise if name.endswith("norm.weight") else noise).numpy()
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
            rotated = architecture == "llama" and heads
            if rotated:  # as llama.cpp's converter does
                values = values.reshape(heads, 2, -1, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
            kind = "F32"
            if values.ndim == 2:
                kind, matrices = STORED[matrices % len(STORED)], matrices + 1
            kind = gguf.GGMLQuantizationType[kind]
            data = gguf.quants.quantize(np.ascontiguousarray(values), kind)
            plain = kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
            writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=None if plain else kind)
            read = gguf.quants.dequantize(data, kind).astype(np.float32).reshape(values.shape)
            if rotated:
                read = read.reshape(heads, -1, 2, read.shape[-1]).swapaxes(1, 2).reshape(read.shape)
            state[name] = torch.from_numpy(np.ascontiguousarray(read))
        close(writer)
        model.load_state_dict(state, strict=not config.tie_word_embeddings)
        model.tie_weights()
        model.eval()
        ids = torch.randint(size, (40,), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            logits = model(ids[None]).logits[0]
        save_file({"ids": ids.numpy(), "logits": logits.numpy()}, folder / f"{architecture}.safetensors")


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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


# variant -> base, and what PEFT is told
ADAPTERS = {
    "all": ("families/llama", dict(r=4, lora_alpha=8, target_modules="all-linear")),
    "stabilised": ("families/qwen2", dict(r=8, lora_alpha=16, use_rslora=True, target_modules="all-linear")),
    "patterns": (
        "qwen3/gqa4",
        dict(
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "v_proj"],
            rank_pattern={"model.layers.0.self_attn.q_proj": 2},
            alpha_pattern={"model.layers.0.self_attn.q_proj": 6},
        ),
    ),
}


def make_adapters():
    import peft
    import torch

    torch.set_num_threads(1)
    for seed, (variant, (base, options)) in enumerate(ADAPTERS.items(), start=300):
        torch.manual_seed(seed)
        model = peft.get_peft_model(load_f32(FIXTURES / base), peft.LoraConfig(**options))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        folder = FIXTURES / "adapters" / variant
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = base
        config["target_modules"].sort()
        write_json(folder / "adapter_config.json", config)
        reference_run(model, seed, folder)
        print(variant, f"{sum(f.stat().st_size for f in folder.iterdir()) / 1024:.0f} KiB")


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
        if parameter.requires_grad:
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
    parts = {"engine": make_engine, "families": make_families, "adapters": make_adapters, "gguf": make_gguf, "templates": make_templates, "tokenizer": make_tokenizer}
    chosen = sys.argv[1:] or list(parts)
    quiet_progress_bars()
    for part in chosen:
        if part not in parts:
            sys.exit(f"unknown part {part!r}: choose from {', '.join(parts)}")
        parts[part]()


if __name__ == "__main__":
    main()
