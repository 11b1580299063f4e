"""Goldens of exported graphs: logits of transformers and PEFT for tiny models.

usage: make.py OUT_FOLDER

Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0 (CPU). Weights, adapters and token ids
are not stored: both sides draw them from the generator `draw` (package internal/testmodel is its twin).

  NAME.safetensors  tokens (T) I32, and logits (T, vocab): "base" without and "adapter" with the adapter that
                    stands on every linear layer with rank 4 and alpha 8
  families/NAME.*   the same of other architectures, with the configuration and the sequences beside it as in
                    ../gradient/families: those configurations of internal/testmodel/configs.json whose heads are too
                    narrow for ONNX Runtime, with wider ones
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

MASK = (1 << 64) - 1


def draw(name, n):
    """n values in [-1, 1), multiples of 2^-23: splitmix64 over a counter that starts at the FNV-1a hash of the name."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(np.float32) / np.float32(1 << 23)


def fill(name, p):
    v = draw(name, p.numel()).reshape(p.shape)
    v = 1 + v / 2 if name.endswith("norm.weight") else v / 4
    with torch.no_grad():
        p.copy_(torch.from_numpy(v))


common = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, head_dim=16, vocab_size=300,
              max_position_embeddings=128, rms_norm_eps=1e-5)
default = dict(rope_type="default", rope_theta=10000.0)
llama3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
models = {
    "llama": dict(num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=default),
    "llama-mha-untied": dict(num_key_value_heads=4, tie_word_embeddings=False, rope_parameters=default),
    "llama-bias": dict(num_key_value_heads=2, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rope_parameters=default),
    "llama-rope3": dict(num_key_value_heads=1, tie_word_embeddings=False, rope_parameters=llama3),
}


def tokens(name, n, vocab):
    return ((draw(name, n).astype(np.float64) + 1) / 2 * vocab).astype(np.int64)


def logits(model, sequences):
    """Of the model without and with the adapter, sequences one after the other."""
    run = lambda m: torch.cat([m(torch.from_numpy(s)[None]).logits[0] for s in sequences]).contiguous()
    with torch.no_grad():
        base = run(model)
        peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
        for key, p in peft.named_parameters():
            if "lora_" in key:
                fill(key.replace(".default", ""), p)
        return base, run(peft)


for name, config in models.items():
    model = LlamaForCausalLM(LlamaConfig(**common, **config, attn_implementation="eager")).float().eval()
    for key, p in model.named_parameters():
        fill(key, p)
    ids = tokens("onnx tokens", 20, 300)
    base, adapter = logits(model, [ids])
    save_file({"tokens": torch.from_numpy(ids).int(), "base": base, "adapter": adapter}, Path(sys.argv[1]) / f"{name}.safetensors")

wider = dict(num_attention_heads=2, num_key_value_heads=1, vocab_size=53)
families = {
    "mistral": {}, "qwen2-window": {}, "smollm3": {}, "granite": {}, "granite-bias": dict(num_key_value_heads=2), "olmo2-groups": {},
    "qwen3-yarn": dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16), "phi3": dict(sliding_window=8),
    "phi3-long": dict(hidden_size=64, partial_rotary_factor=0.5, rope_scaling=dict(type="longrope",
                      short_factor=[1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0], long_factor=[1.0, 1.5, 2.5, 4.0, 6.0, 8.0, 9.0, 12.0])),
}
configs = json.loads((Path(__file__).resolve().parent / "../../../internal/testmodel/configs.json").read_text())
out = Path(sys.argv[1]) / "families"
out.mkdir(exist_ok=True)
for name, change in families.items():
    config = configs[name] | wider | change
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager").float().eval()
    for key, p in model.named_parameters():
        fill(key, p)
    sequences = [tokens(f"{name}.{i}", n, 53) for i, n in enumerate((20, 5))]
    base, adapter = logits(model, sequences)
    save_file({"logits.base": base, "logits.adapter": adapter}, out / f"{name}.safetensors")
    (out / f"{name}.json").write_text(json.dumps(dict(config=config, sequences=[s.tolist() for s in sequences])) + "\n")
