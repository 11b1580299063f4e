"""Adapters of every variant of PEFT's LoRA, as PEFT saves them, and what PEFT computes with them.

usage: make.py OUT_FOLDER

Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0 (CPU, one thread).

  VARIANT/             adapter_config.json and adapter_model.safetensors as save_pretrained writes them, without copies of the base's own tables
  matrix.json          the configurations of the bases, whose weights both sides draw (see ../../gradient/make.py); for each variant its base
                       and the token ids; adapters in use together
  logits.safetensors   for each variant PEFT's logits behind the last 4 tokens (4, vocab), under base/NAME those of the bare base, and under
                       together/NAME those of several adapters

Every trained value is moved by a random amount, so that nothing is neutral.
"""
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

if os.environ.get("PYTHONHASHSEED") != "0":  # lists of modules are sets, saved in their order
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict(PYTHONHASHSEED="0"))
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "../../gradient"))
from make import build_any, tokens  # noqa: E402

warnings.simplefilter("ignore")
torch.set_num_threads(1)
out = Path(sys.argv[1])
CONFIGS = json.loads((HERE / "../../../../internal/testmodel/configs.json").read_text())
for wide in ("qwen2", "phi3"):  # heads that ONNX Runtime's attention takes
    CONFIGS[wide] |= dict(num_attention_heads=2, num_key_value_heads=1)
TIED, UNTIED, BIASED, FUSED, OFFSET = "llama", "llama-mha-untied", "qwen2", "phi3", "gemma3"
FEW = ["q_proj", "v_proj", "down_proj"]
ROWS = [3, 200, 17]

VARIANTS = {
    "plain": (UNTIED, dict(target_modules="all-linear")),
    "plain_tied": (TIED, dict(target_modules=FEW)),
    "plain_biased": (BIASED, dict(target_modules="all-linear")),
    "plain_offset": (OFFSET, dict(target_modules="all-linear")),
    "fused": (FUSED, dict(target_modules=["qkv_proj", "gate_up_proj", "o_proj"])),
    "fused_rslora": (FUSED, dict(target_modules="all-linear", use_rslora=True, rank_pattern={"qkv_proj": 3})),
    "rslora": (TIED, dict(target_modules=FEW, use_rslora=True)),
    "patterns": (TIED, dict(target_modules=FEW, rank_pattern={r"layers\.1\.self_attn\.q_proj": 5, "v_proj": 1}, alpha_pattern={"down_proj": 7, "v_proj": 0.5})),
    "rslora_patterns": (UNTIED, dict(target_modules=FEW, use_rslora=True, rank_pattern={"q_proj": 3}, alpha_pattern={"down_proj": 7})),
    "regex": (TIED, dict(target_modules=r".*\.1\..*(q|up)_proj")),
    "layers": (TIED, dict(target_modules=FEW, layers_to_transform=[1])),
    "fan_in": (TIED, dict(target_modules=FEW, fan_in_fan_out=True)),
    "dora": (UNTIED, dict(target_modules="all-linear", use_dora=True)),
    "dora_patterns": (TIED, dict(target_modules=FEW, use_dora=True, use_rslora=True, rank_pattern={"q_proj": 5})),
    "dora_biased": (BIASED, dict(target_modules=FEW, use_dora=True)),
    "dora_fused": (FUSED, dict(target_modules=["qkv_proj", "down_proj"], use_dora=True)),
    "dora_offset": (OFFSET, dict(target_modules=FEW, use_dora=True)),
    "dora_ends": (UNTIED, dict(target_modules=["q_proj", "embed_tokens", "lm_head"], use_dora=True)),
    "lora_bias": (BIASED, dict(target_modules=["q_proj", "k_proj"], lora_bias=True)),
    "lora_bias_none": (UNTIED, dict(target_modules=FEW, lora_bias=True)),
    "table": (UNTIED, dict(target_modules=["q_proj", "embed_tokens"])),
    "table_tied": (TIED, dict(target_modules=["q_proj", "embed_tokens"])),
    "table_offset": (OFFSET, dict(target_modules=["embed_tokens"])),
    "head": (UNTIED, dict(target_modules=["q_proj", "lm_head"])),
    "head_tied": (TIED, dict(target_modules=["q_proj", "lm_head"])),
    "both_tied": (TIED, dict(target_modules=["embed_tokens", "lm_head"])),
    "one_tied": (TIED, dict(target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True)),
    "save_table": (UNTIED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "save_head": (UNTIED, dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "save_table_tied": (TIED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "save_head_tied": (TIED, dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "save_one_tied": (TIED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "save_norm": (OFFSET, dict(target_modules=["q_proj"], modules_to_save=["norm"])),
    "rows": (UNTIED, dict(target_modules=["q_proj"], trainable_token_indices=ROWS)),
    "rows_tied": (TIED, dict(target_modules=["q_proj"], trainable_token_indices=ROWS)),
    "rows_head": (UNTIED, dict(target_modules=["q_proj"], trainable_token_indices={"lm_head": ROWS})),
    "bias_lora": (BIASED, dict(target_modules=["q_proj"], bias="lora_only")),
    "bias_all": (BIASED, dict(target_modules=["q_proj"], bias="all")),
    # Several of the above at once. New ones go last: the draws follow the order.
    "both_one_tied": (TIED, dict(target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True)),
    "head_one_tied": (TIED, dict(target_modules=["q_proj", "lm_head"], ensure_weight_tying=True)),
    "dora_ends_tied": (TIED, dict(target_modules=["embed_tokens", "lm_head"], use_dora=True)),
    "dora_table_offset": (OFFSET, dict(target_modules=["embed_tokens", "q_proj"], use_dora=True)),
    "dora_bias_all": (BIASED, dict(target_modules=["q_proj"], use_dora=True, bias="all")),
    "save_both_one_tied": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True)),
    "save_table_offset": (OFFSET, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "save_product": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["v_proj", "input_layernorm"])),
    "save_block": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["mlp"])),
    "save_dora": (BIASED, dict(target_modules=["q_proj", "lm_head"], use_dora=True, modules_to_save=["embed_tokens"])),
    "rows_one_tied": (TIED, dict(target_modules=["q_proj"], trainable_token_indices=ROWS, ensure_weight_tying=True)),
    "rows_both": (UNTIED, dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": ROWS, "lm_head": [200, 5]})),
    "rows_both_tied": (TIED, dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": ROWS, "lm_head": ROWS})),
    "rows_offset": (OFFSET, dict(target_modules=["q_proj"], trainable_token_indices=ROWS)),
    "rows_head_pair": (UNTIED, dict(target_modules=["q_proj", "lm_head"], trainable_token_indices=ROWS)),
    "lora_bias_head": (UNTIED, dict(target_modules=["lm_head"], lora_bias=True)),
    "exclude": (TIED, dict(target_modules="all-linear", exclude_modules=["down_proj", "layers.0.self_attn.q_proj"])),
    "negative": (TIED, dict(target_modules=FEW, alpha_pattern={"v_proj": -2.5})),
}

# Adapters in use together, with their scales. With DoRA in eval mode PEFT's sum depends on the order: each multiplies by its gain what those
# before it have added. So DoRA goes first, which then is the sum of what each adds to the base alone.
TOGETHER = {
    "two": [("plain_tied", 1), ("rslora", 1)],
    "scaled": [("plain_tied", 0.5), ("patterns", -2), ("layers", 0)],
    "dora_first": [("dora_patterns", 1), ("plain_tied", 0.75)],
    "dora_half": [("dora_patterns", 0.5)],
    "ends": [("table_tied", 1), ("head_tied", 0.5), ("both_tied", 1)],
    "dora_end": [("dora_ends_tied", 0.5), ("both_tied", 1)],
    "offset": [("dora_table_offset", 1), ("table_offset", 0.5)],
    "biased": [("dora_biased", 1), ("lora_bias", 0.5)],
    "whole_half": [("save_norm", 0.5)],
    "rows_half": [("rows_tied", 0.5)],
    "twice": [("plain_tied", 0.5), ("plain_tied", 0.25)],
}


def ids(base):
    vocab = CONFIGS[base]["vocab_size"]
    return [t for t in ROWS if t < vocab] + tokens(f"matrix.{base}", 13, vocab)


def logits(model, base):
    with torch.no_grad():
        return model.eval()(torch.tensor([ids(base)])).logits[0, -4:].contiguous()


def together(base, uses):
    """PEFT's logits with several of the adapters active."""
    model = build_any(CONFIGS[base])
    for i, (name, _) in enumerate(uses):  # numbers: a name must not be a module's
        if i == 0:
            model = PeftModel.from_pretrained(model, out / name, "0")
        else:
            model.load_adapter(out / name, str(i))
    model.base_model.set_adapter([str(i) for i in range(len(uses))])
    for m in model.modules():
        if isinstance(m, LoraLayer):
            for i, (_, scale) in enumerate(uses):
                m.set_scale(str(i), scale)
    return logits(model, base)


def main():
    torch.manual_seed(0)
    found, info = {}, {}
    for name, (base, config) in VARIANTS.items():
        model = build_any(CONFIGS[base])
        found.setdefault("base/" + base, logits(model, base))
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=3, lora_dropout=0.0, **config))
        torch.manual_seed(len(found))
        # Gemma's by less: where llama.cpp and MLX round GELU's operand to 16 bits, a larger model's differences would drown the adapter's.
        size = 0.04 if base == OFFSET else 0.15
        for p in model.parameters():
            if p.requires_grad:
                p.data += size * torch.randn_like(p)
        found[name] = logits(model, base)
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        assert "/" not in (folder / "adapter_config.json").read_text()
        path = folder / "adapter_model.safetensors"
        kept = {k: v for k, v in load_file(path).items() if not k.endswith(".base_layer.weight")}
        save_file(kept, path, metadata={"format": "pt"})
        info[name] = dict(base=base, tokens=ids(base))
        moved = (found[name] - found["base/" + base]).abs().max().item()
        assert moved > 0.01, (name, moved)
    for name, uses in TOGETHER.items():
        found["together/" + name] = together(info[uses[0][0]]["base"], uses)
    bases = {name: CONFIGS[name] for name in (TIED, UNTIED, BIASED, FUSED, OFFSET)}
    (out / "matrix.json").write_text(json.dumps(dict(bases=bases, variants=info, together=TOGETHER), indent=0) + "\n")
    save_file(found, out / "logits.safetensors", metadata={"format": "pt"})


main()
