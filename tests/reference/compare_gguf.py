"""Compares a GGUF file, imported by `openclaw-rl import`, with what `transformers` makes of the same file.

    python3 -m venv VENV && VENV/bin/pip install torch transformers gguf accelerate
    openclaw-rl import FILE.gguf DIR
    VENV/bin/python tests/reference/compare_gguf.py path/to/openclaw-rl FILE.gguf DIR

Prints, text by text, whether the ids are the same and how far log-probs are apart. Ids can differ where `transformers` splits
text otherwise than the model's own tokenizer: it reads no `tokenizer.ggml.pre`.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = [
    "Hello, how are you today? I'd like 12 apples for $3.50!\n\n  indented\ttab",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043a\u0430\u043a \u0434\u0435\u043b\u0430? \u0401\u043b\u043a\u0430 2024",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3001\u30c6\u30b9\u30c8",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "def f(x):\n    return x**2 + 1  # comment\n\n\nclass A: pass",
    "na\u00efve caf\u00e9 r\u00e9sum\u00e9 \u2014 \u201cquotes\u201d \U0001f642\U0001f44d\U0001f3fd",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "x" * 50 + "   " + "1234567890",
]


def main():
    binary, file, folder = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    asked = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    told = subprocess.run([binary, "score", folder], input=asked, capture_output=True, text=True, check=True).stdout
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    worst = 0.0
    for text, line in zip(TEXTS, map(json.loads, told.splitlines()), strict=True):
        ids = line["ids"]
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
        expected = [logprobs[at - 1, ids[at]].item() for at in range(1, len(ids))]
        off = max(abs(a - b) for a, b in zip(expected, line["logprobs"][1:], strict=True))
        worst = max(worst, off)
        same = tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        print(f"{'same ids' if same else 'OTHER IDS':9} {len(ids):4} tokens  off by {off:.1e}  {text[:30]!r}")
    print(f"log-probs are at most {worst:.1e} apart")


if __name__ == "__main__":
    main()
