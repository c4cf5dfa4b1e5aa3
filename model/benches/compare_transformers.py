"""Measures `transformers` where our benches measure ourselves, and prints the ratios.

    cargo bench -p openclaw-model                      # writes target/criterion/**/estimates.json
    python model/benches/compare_transformers.py       # needs torch and transformers

Same shape as in the benches (or the checkpoint folder given), same number of threads, float32, CPU. Run both on an idle
machine, one after the other. `--json FILE` also writes the numbers.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

PREFILL_TOKENS = 512
DECODE_PROMPT_TOKENS = 128
DECODE_STEPS = 64
TRAIN_SEQUENCES, TRAIN_TOKENS = 4, 512

# Criterion's folder for each measurement, and the tokens of one iteration.
BENCHES = {
    "prefill 512": ("generate/prefill/512", PREFILL_TOKENS),
    "decode, 1 stream": ("generate/decode/1", DECODE_STEPS),
    "decode, 8 streams": ("generate/decode/8", 8 * DECODE_STEPS),
    "training step 4 x 512": ("train/step/2048", TRAIN_SEQUENCES * TRAIN_TOKENS),
}


def ours(criterion: Path) -> dict[str, float | None]:
    """Tokens per second by our benches; None where a bench has not run."""
    found = {}
    for name, (folder, tokens) in BENCHES.items():
        path = criterion / folder / "new" / "estimates.json"
        if not path.exists():
            found[name] = None
            continue
        nanoseconds = json.loads(path.read_text())["median"]["point_estimate"]
        found[name] = tokens / (nanoseconds * 1e-9)
    return found


def load_model(folder: str | None):
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

    if folder:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    config = Qwen3Config(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    return Qwen3ForCausalLM(config).float()


def median_rate(tokens: int, rounds: int, run, prepare=lambda: None) -> float:
    """Median tokens per second of `run(prepare())`, after one round that does not count."""
    rates = []
    for _ in range(rounds + 1):
        prepared = prepare()
        start = time.perf_counter()
        run(prepared)
        rates.append(tokens / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def theirs(model, rounds: int) -> dict[str, float]:
    """Tokens per second by `transformers`, with what makes it fast: sdpa, a KV cache, fused AdamW."""
    import torch

    vocab = model.config.vocab_size
    generator = torch.Generator().manual_seed(1)
    rates = {}

    def ids(sequences: int, tokens: int):
        return torch.randint(0, vocab, (sequences, tokens), generator=generator)

    def draw(logits):
        return torch.multinomial(torch.softmax(logits[:, -1].float(), -1), 1)

    model.eval()
    with torch.inference_mode():
        rates["prefill 512"] = median_rate(
            PREFILL_TOKENS,
            rounds,
            lambda prompt: draw(model(prompt, use_cache=True, logits_to_keep=1).logits),
            lambda: ids(1, PREFILL_TOKENS),
        )

        for streams in (1, 8):

            def prefilled(streams=streams):
                out = model(ids(streams, DECODE_PROMPT_TOKENS), use_cache=True, logits_to_keep=1)
                return out.past_key_values, draw(out.logits)

            def decode(state):
                cache, token = state
                for _ in range(DECODE_STEPS):
                    out = model(token, past_key_values=cache, use_cache=True)
                    token = draw(out.logits)

            name = f"decode, {streams} stream" + ("s" if streams > 1 else "")
            rates[name] = median_rate(streams * DECODE_STEPS, rounds, decode, prefilled)

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def train(batch):
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    rates["training step 4 x 512"] = median_rate(
        TRAIN_SEQUENCES * TRAIN_TOKENS, rounds, train, lambda: ids(TRAIN_SEQUENCES, TRAIN_TOKENS)
    )
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="checkpoint folder; without it a random model of the nano shape")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OPENCLAW_BENCH_THREADS", "2")))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--criterion", type=Path, default=Path("target/criterion"))
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    rates, own = theirs(load_model(arguments.model), arguments.rounds), ours(arguments.criterion)

    print(f"{'tokens/s':24}{'transformers':>14}{'openclaw-rl':>14}{'ratio':>8}")
    for name, rate in rates.items():
        mine = own[name]
        columns = f"{mine:14.0f}{mine / rate:8.2f}" if mine else f"{'not measured':>14}{'':>8}"
        print(f"{name:24}{rate:14.0f}{columns}")
    if arguments.json:
        result = {name: {"transformers": rate, "openclaw_rl": own[name]} for name, rate in rates.items()}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
