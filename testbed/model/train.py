"""Train the testbed's model: a Llama of half a megabyte that knows a few lines by heart, so that a proof can assert text.

    python train.py DIRECTORY

Writes a Hugging Face model with a byte-level tokenizer, and answer.json with the prompt and the answer that greedy
decoding gives. Two attention heads of 32 let it be split over two hosts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PROMPT = "Lockstep, are you there?"
ANSWER = " Yes. Every host is in step."
LINES = {
    PROMPT: ANSWER,
    "Who goes first?": " The canary goes first.",
    "What is a stamp?": " A stamp says that every gate was passed.",
    "What is a wave?": " A wave is what is upgraded at once.",
    "Hello": " Hello. This model is tiny and was trained on the testbed.",
    "Count:": " one two three four five six seven eight nine ten.",
}
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
STEPS = 400


def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, and an end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"</s>": 0, "<pad>": 1, **{char: index + 2 for index, char in enumerate(alphabet)}}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="</s>", pad_token="<pad>", model_max_length=512, chat_template=CHAT_TEMPLATE
    )


def train(words: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Fit the lines until they are known by heart."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=264,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    batch = words([prompt + answer + "</s>" for prompt, answer in LINES.items()], return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(STEPS):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.to(torch.bfloat16).eval()


def main() -> None:
    directory = Path(sys.argv[1])
    words = tokenizer()
    model = train(words)
    for prompt, answer in LINES.items():
        given = words(prompt, return_tensors="pt")
        out = model.generate(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], max_new_tokens=64, do_sample=False
        )
        text = words.decode(out[0][given["input_ids"].shape[1] :], skip_special_tokens=True)
        if text != answer:
            raise SystemExit(f"the model did not learn {prompt!r}: it says {text!r}")
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    (directory / "answer.json").write_text(json.dumps({"prompt": PROMPT, "answer": ANSWER}, indent=2) + "\n")
    for path in directory.iterdir():  # the serving user reads them; safetensors writes for its own user alone
        path.chmod(0o644)


main()
