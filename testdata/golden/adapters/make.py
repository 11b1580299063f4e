"""Goldens of the adapters package: folders that PEFT saved, what they do to weights, and a file by ONNX Runtime.

usage: make.py OUT_FOLDER

Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0, onnxruntime 1.32.0.

  peft/NAME/            adapter_config.json and adapter_model.safetensors as save_pretrained writes them
  peft/NAME/delta.safetensors   get_delta_weight of every adapted module, under the module's path (out, in)
  variants/NAME/        adapters that are more than pairs of matrices, also saved by PEFT
  refused/NAME/         adapters of other kinds, also saved by PEFT
  ort.onnx_adapter      two tensors written by onnxruntime.AdapterFormat; ort.json has their values
"""
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from peft import AdaLoraConfig, IA3Config, KasaConfig, LoHaConfig, LoKrConfig, LoraConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
out = Path(sys.argv[1])


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                                        num_key_value_heads=1, head_dim=8, vocab_size=20, tie_word_embeddings=False))


def save(folder, dtype=None, **config):
    model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", **config))
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.3)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    os.remove(folder / "README.md")
    path = folder / "adapter_model.safetensors"
    if dtype:
        save_file({k: v.to(dtype).contiguous() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    text = (folder / "adapter_config.json").read_text()
    assert "/" not in text, text
    return model


def deltas(folder, model):
    found = {}
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight") and "default" in module.lora_A:
            found[name] = module.get_delta_weight("default").detach().contiguous()
    save_file(found, folder / "delta.safetensors")


plain = dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
for name, dtype, config in [
    ("plain", None, plain),
    ("bf16", torch.bfloat16, plain),
    ("f16", torch.float16, plain),
    ("patterns", None, dict(r=4, lora_alpha=6, use_rslora=True, target_modules="all-linear",
                            # PEFT saves patterns sorted, and then takes the first that matches.
                            rank_pattern={r"layers\.1\.mlp\.down_proj": 8, "mlp.down_proj": 3, "q_proj": 2},
                            alpha_pattern={r"layers\.[01]\.self_attn\.v_proj": 3.5, "model.layers.0.mlp.up_proj": 1})),
    ("regex", None, dict(r=3, lora_alpha=5, target_modules=r".*\.1\..*(gate|up)_proj")),
]:
    model = save(out / "peft" / name, dtype, **config)
    if dtype:
        for key, v in load_file(out / "peft" / name / "adapter_model.safetensors").items():
            model.get_parameter(key.replace(".weight", ".default.weight")).data.copy_(v.float())
    deltas(out / "peft" / name, model)

for name, config in {
    "dora": dict(target_modules=["q_proj"], use_dora=True),
    "modules_to_save": dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "embedding": dict(target_modules=["embed_tokens"]),
    "lora_bias": dict(target_modules=["q_proj"], lora_bias=True),
    "trainable_tokens": dict(target_modules=["q_proj"], trainable_token_indices=[3]),
    "bias": dict(target_modules=["q_proj"], bias="all"),
}.items():
    save(out / "variants" / name, r=2, **config)

# What is not LoRA, or LoRA that does something else in the forward pass.
one = dict(target_modules=["q_proj"])
for name, config in {
    "ia3": IA3Config(task_type="CAUSAL_LM", feedforward_modules=[], **one),
    "loha": LoHaConfig(task_type="CAUSAL_LM", r=2, **one),
    "lokr": LoKrConfig(task_type="CAUSAL_LM", r=2, **one),
    "adalora": AdaLoraConfig(task_type="CAUSAL_LM", init_r=2, target_r=1, total_step=10, tinit=1, tfinal=1, **one),
    "vera": VeraConfig(task_type="CAUSAL_LM", r=2, **one),
    "pissa": LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights="pissa", **one),
    "kasa": LoraConfig(task_type="CAUSAL_LM", r=2, kasa_config=KasaConfig(), **one),
    "alora": LoraConfig(task_type="CAUSAL_LM", r=2, alora_invocation_tokens=[1, 2], **one),
    "qalora": LoraConfig(task_type="CAUSAL_LM", r=2, use_qalora=True, qalora_group_size=8, **one),
    "replication": LoraConfig(task_type="CAUSAL_LM", r=2, layer_replication=[(0, 2), (1, 2)], **one),
    "parameters": LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=[], target_parameters=["self_attn.q_proj.weight"]),
}.items():
    folder = out / "refused" / name
    shutil.rmtree(folder, ignore_errors=True)
    get_peft_model(base(), config).save_pretrained(folder)
    os.remove(folder / "README.md")

a = onnxruntime.AdapterFormat()
a.set_adapter_version(3)
a.set_model_version(5)
tensors = {"x.lora_A.weight": np.arange(12, dtype=np.float32).reshape(6, 2) / 8, "x.lora_B.weight": -np.arange(6, dtype=np.float32).reshape(2, 3),
           "empty": np.zeros((4, 0), np.float32)}
a.set_parameters({k: onnxruntime.OrtValue.ortvalue_from_numpy(v) for k, v in tensors.items()})
a.export_adapter(str(out / "ort.onnx_adapter"))
(out / "ort.json").write_text(json.dumps({k: {"shape": v.shape, "data": v.ravel().tolist()} for k, v in tensors.items()}, indent=1, sort_keys=True) + "\n")
