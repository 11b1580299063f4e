"""Goldens of adapters.Combine: two adapters that PEFT saved, what add_weighted_adapter makes of them, and where it is wrong.

usage: make.py OUT_FOLDER

Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0.

  one/, two/             adapters of equal rank, with some modules in common, an embedding table among them
  cases.json             what was asked for in each case
  NAME.safetensors       A and B of every module of the combination, scale 1
  rslora/, patterns/, lora_bias/, dora/, first_layer/, head/, tokens/
                         adapters that PEFT adds up wrongly
  three/                 a plain one beside them
  wrong.json             what came of that: of each combination, as saved and loaded again, the largest share of what a
                         module does that is wrong, or what was raised; of one adapter that was to have rank 1, its rank

DARE's masks come from torch's generator, which is not to be reproduced. So random_pruning is replaced here by one with
the masks of adapters.maskKey: the arithmetic around them is PEFT's.
"""
import json
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import merge_utils
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
out = Path(sys.argv[1])
SEED = 11


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                                        num_key_value_heads=1, head_dim=8, vocab_size=20, tie_word_embeddings=False))


def save(name, seed, **config):
    model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", **config))
    torch.manual_seed(seed)
    for key, p in model.named_parameters():
        if "lora_" in key and "magnitude" not in key:
            torch.nn.init.normal_(p, std=0.3)
        elif "magnitude" in key or "modules_to_save" in key or "trainable_tokens" in key:
            p.data *= 1.5
    shutil.rmtree(out / name, ignore_errors=True)
    model.save_pretrained(out / name)
    os.remove(out / name / "README.md")
    assert "/" not in (out / name / "adapter_config.json").read_text()


def load(*names):
    model = PeftModel.from_pretrained(base(), out / names[0], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(out / name, adapter_name=name)
    return model


def layers(model, adapter):
    for name, m in model.base_model.model.named_modules():
        if hasattr(m, "get_delta_weight"):
            if adapter in m.lora_A:
                yield name, m, m.lora_A[adapter].weight.data, m.lora_B[adapter].weight.data
            elif adapter in m.lora_embedding_A:
                yield name, m, m.lora_embedding_A[adapter].data, m.lora_embedding_B[adapter].data


M = (1 << 64) - 1


def mix(z):
    z = (z + 0x9E3779B97F4A7C15) & M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def mask_key(a, b, part):
    h = mix(SEED)
    for x in (a, b):
        for bits in x.detach().numpy().view(np.uint32).ravel().tolist():
            h = ((h ^ bits) * 0x100000001B3) & M
        h = mix(h)
    return mix((h + part) & M)


known = []  # (tensor that may be pruned, its key, whether it is to be transposed to (out, in))


def random_pruning(tensor, density, rescale):
    key, turned = next((k, t) for x, k, t in known if x.shape == tensor.shape and torch.equal(x, tensor))
    mask = torch.tensor([float((mix((key + i) & M) >> 11) / (1 << 53) < density) for i in range(tensor.numel())])
    mask = mask.reshape(tensor.T.shape).T if turned else mask.reshape(tensor.shape)
    pruned = tensor * mask
    return pruned / density if rescale else pruned


merge_utils.random_pruning = random_pruning

save("one", 1, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "embed_tokens"])
save("two", 2, r=4, lora_alpha=6, target_modules=["q_proj", "up_proj", "embed_tokens"])

cases = []
for method in ["linear", "cat", "svd", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd",
               "magnitude_prune", "magnitude_prune_svd"]:
    sparse = method not in ("linear", "cat", "svd")
    cases.append(dict(name=method, method=method, weights=[0.7, 0.5], density=0.6 if sparse else 0))
    cases.append(dict(name=method + "_minus", method=method, weights=[1.25, -0.5], density=0.35 if sparse else 0))
    if "ties" in method:
        cases.append(dict(name=method + "_frequency", method=method, weights=[0.7, 0.5], density=0.8, majority="frequency"))
    if method.endswith("svd"):
        cases.append(dict(name=method + "_rank2", method=method, weights=[1.0, 1.0], density=0.5 if sparse else 0, rank=2))
for case in cases:
    model = load("one", "two")
    known = []
    for adapter in ("one", "two"):
        for name, m, a, b in layers(model, adapter):
            known += [(a, mask_key(a, b, 0), False), (b, mask_key(a, b, 1), False),
                      (m.get_delta_weight(adapter).detach(), mask_key(a, b, 2), "embed" in name)]
    model.add_weighted_adapter(["one", "two"], case["weights"], "sum", combination_type=case["method"], density=case["density"] or None,
                               svd_rank=case.get("rank"), majority_sign_method=case.get("majority", "total"))
    tensors = {}
    for name, m, a, b in layers(model, "sum"):
        assert m.scaling["sum"] == 1
        tensors[name + ".A"], tensors[name + ".B"] = a.contiguous(), b.contiguous()
    save_file(tensors, out / (case["name"] + ".safetensors"))
(out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")

# What PEFT gets wrong.
save("rslora", 3, r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "up_proj"])
save("patterns", 4, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2}, alpha_pattern={"v_proj": 3})
save("lora_bias", 5, r=4, lora_alpha=8, lora_bias=True, target_modules=["q_proj", "up_proj"])
save("dora", 6, r=4, lora_alpha=8, use_dora=True, target_modules=["k_proj", "up_proj"])
save("head", 9, r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["lm_head"])
save("tokens", 10, r=4, lora_alpha=8, target_modules=["q_proj"], trainable_token_indices=[3, 7])
save("three", 12, r=4, lora_alpha=6, target_modules=["q_proj", "up_proj"])
save("first_layer", 7, r=4, lora_alpha=8, target_modules=["q_proj"], layers_to_transform=[0])
x = torch.randn(8, 24, generator=torch.Generator().manual_seed(8))


def effect(m, adapters):
    """What adapters do to a layer's output, each by itself."""
    rows = x[:, :m.in_features] if hasattr(m, "in_features") else None
    total = 0
    for adapter in adapters:
        if adapter in getattr(m, "lora_A", {}):
            m.set_adapter([adapter])
            total = total + (m(rows) - m.base_layer(rows))
    return total


def replaced(model):
    """What stands in for the base's head and rows of its table."""
    found = {}
    for key, p in model.state_dict().items():
        if "modules_to_save" in key or "trainable_tokens_delta" in key:
            found[key.split(".modules_to_save")[0].split(".token_adapter")[0]] = p
    return found


wrong = {}
with torch.no_grad(), tempfile.TemporaryDirectory() as tmp:
    for pair, method in [(["rslora", "three"], "cat"), (["patterns", "three"], "linear"), (["patterns"], "linear"), (["lora_bias", "three"], "cat"),
                         (["dora", "three"], "cat"), (["first_layer", "three"], "cat"), (["head", "three"], "cat"), (["tokens", "three"], "cat"),
                         (["three"], "svd")]:
        name = "+".join(pair) + " " + method
        try:
            model = load(*pair)
            trained = {k: v.clone() for k, v in replaced(load(pair[0])).items()}
            model.add_weighted_adapter(pair, [1.0] * len(pair), "sum", combination_type=method, svd_rank=1 if method == "svd" else None)
            model.save_pretrained(tmp, selected_adapters=["sum"])
            again = PeftModel.from_pretrained(base(), Path(tmp) / "sum", adapter_name="sum")
            far = 0.0
            there = dict(again.base_model.model.named_modules())
            for key, m in model.base_model.model.named_modules():
                if hasattr(m, "get_delta_weight"):
                    want = effect(m, pair)
                    if not isinstance(want, int):
                        far = max(far, float(torch.linalg.norm(effect(there[key], ["sum"]) - want) / torch.linalg.norm(want)))
            got = replaced(again)
            for key, v in trained.items():
                far = max(far, float((got[key] - v).norm() / v.norm()) if key in got else 1.0)
            if method == "svd":
                wrong["rank 1 of " + name] = next(m.r["sum"] for m in there.values() if hasattr(m, "get_delta_weight"))
                continue
            wrong[name] = round(far, 3)
        except Exception as e:
            wrong[name] = type(e).__name__ + ": " + str(e).split("\n")[0][:60]
(out / "wrong.json").write_text(json.dumps(wrong, indent=1) + "\n")
print(json.dumps(wrong, indent=1))
