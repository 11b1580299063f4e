"""Goldens of training LoRA's variants: what PEFT and transformers' Trainer make of ten steps.

usage: variants.py OUT_FOLDER

Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0 (CPU, one thread). Weights are drawn as in
../gradient/make.py, and so are the first values of what is trained, but where the weights themselves say them. Writes

  NAME.json         the configuration, the text, which byte by byte is the tokens, the keys of the recipe, losses and norms
  NAME.safetensors  what is trained, after the last step, under the names that PEFT saves it by; of pissa and olora, which
                    decide the signs of factors as they like, the change of each weight instead, after PEFT's conversion
                    to an adapter of the base as it was
  inits.json        the mean squares of A, B and B·A of each init_lora_weights, over many modules
"""
import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gradient"))
from make import BASE, TEXT, Norms, Steps, build, fill, saved_key  # noqa: E402

TIED = BASE | dict(hidden_size=32, intermediate_size=48, head_dim=8, vocab_size=260, num_hidden_layers=2)
UNTIED = TIED | dict(tie_word_embeddings=False, num_hidden_layers=1)
BIASED = TIED | dict(attention_bias=True, mlp_bias=True)
HOW = dict(learning_rate=5e-3, weight_decay=0.1, max_grad_norm=1.0, max_steps=10, warmup_steps=2, adam_epsilon=1e-8, adam_beta1=0.9, adam_beta2=0.95)


def steps(out, name, cfg, keys):
    keys = dict(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]) | keys
    plus = {k: keys[k] for k in keys if k.startswith("loraplus")}
    peft = {k: v for k, v in keys.items() if k not in plus}
    taken = peft.get("init_lora_weights") in ("pissa", "olora")
    torch.manual_seed(0)
    model = get_peft_model(build(cfg), LoraConfig(lora_dropout=0.0, task_type="CAUSAL_LM", **peft))
    first = tempfile.mkdtemp() + "/first"
    if taken:
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(first)
    else:
        for n, p in model.named_parameters():
            if p.requires_grad:
                key = saved_key(n)
                fill(key + (".norm.weight" if key.endswith("magnitude_vector") else ""), p)
    args = TrainingArguments(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=2, logging_steps=1, report_to=[], save_strategy="no",
                             use_cpu=True, bf16=False, optim="adamw_torch", lr_scheduler_type="linear", **HOW)
    optimizers = (None, None)
    if plus:
        optimizers = (create_loraplus_optimizer(model, torch.optim.AdamW, lr=HOW["learning_rate"], betas=(0.9, 0.95), eps=1e-8,
                                                loraplus_weight_decay=HOW["weight_decay"], **plus), None)
    ids = list(TEXT.encode())
    rows = [ids[i : i + 24] for i in range(0, len(ids) - 23, 24)]
    norms = Norms()
    trainer = Steps(model=model, args=args, train_dataset=Dataset.from_list([dict(input_ids=r, labels=r) for r in rows]), callbacks=[norms],
                    optimizers=optimizers)
    trainer.losses = []
    trainer.train()
    tensors = {saved_key(n): p.detach() for n, p in model.named_parameters() if p.requires_grad}
    if taken:
        folder = tempfile.mkdtemp()
        model.save_pretrained(folder, path_initial_model_for_weight_conversion=first)
        saved, config = load_file(folder + "/adapter_model.safetensors"), json.loads(Path(folder, "adapter_config.json").read_text())
        scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
        tensors = {k.removesuffix(".lora_B.weight"): scale * b @ saved[k.replace("lora_B", "lora_A")] for k, b in saved.items() if "lora_B" in k}
    info = dict(config=cfg, text=TEXT, length=24, batch=2, recipe=HOW | keys, losses=trainer.losses, norms=norms.norms)
    (out / f"{name}.json").write_text(json.dumps(info) + "\n")
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, out / f"{name}.safetensors", metadata={"format": "pt"})


def inits(out):
    cfg = TIED | dict(hidden_size=128, intermediate_size=256, head_dim=32, num_hidden_layers=4)
    found = {}
    for init in (True, False, "gaussian", "orthogonal"):
        torch.manual_seed(0)
        model = get_peft_model(build(cfg), LoraConfig(r=8, target_modules=["up_proj", "down_proj", "embed_tokens"], init_lora_weights=init))
        for m in ("up_proj", "down_proj"):
            layers = [x for n, x in model.named_modules() if n.endswith(m) and hasattr(x, "lora_A")]
            a, b = (torch.stack([getattr(x, f)["default"].weight.detach() for x in layers]) for f in ("lora_A", "lora_B"))
            found[f"{init}.{m}".lower()] = [float((v**2).mean()) for v in (a, b, b @ a)]
        e = next(x for n, x in model.named_modules() if n.endswith("embed_tokens") and hasattr(x, "lora_A"))
        a, b = e.lora_embedding_A["default"].detach(), e.lora_embedding_B["default"].detach()
        found[f"{init}.embed_tokens".lower()] = [float((v**2).mean()) for v in (a, b, b @ a)]
    (out / "inits.json").write_text(json.dumps(dict(config=cfg, r=8, found=found)) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    steps(folder, "dora", BIASED, dict(use_dora=True))
    steps(folder, "patterns", TIED, dict(use_rslora=True, rank_pattern={"q_proj": 3, r"1\.mlp\.down_proj": 6}, alpha_pattern={"k_proj": 5},
                                         target_modules=["q_proj", "k_proj", "up_proj", "down_proj"], exclude_modules=["up_proj"],
                                         layers_to_transform=[1], layers_pattern=["layers"]))
    steps(folder, "loraplus", TIED, dict(target_modules=["q_proj", "embed_tokens"], loraplus_lr_ratio=4.0, loraplus_lr_embedding=1e-2))
    steps(folder, "loraplus_dora", UNTIED, dict(use_dora=True, loraplus_lr_ratio=4.0))
    steps(folder, "saved", UNTIED, dict(modules_to_save=["lm_head", "norm"]))
    steps(folder, "rows", TIED | dict(num_hidden_layers=1), dict(trainable_token_indices=[101, 32, 116], lora_bias=True))
    steps(folder, "biases", BIASED | dict(num_hidden_layers=1), dict(bias="lora_only"))
    steps(folder, "ends", UNTIED, dict(target_modules=["v_proj", "embed_tokens", "lm_head"], use_rslora=True))
    steps(folder, "pissa", TIED | dict(num_hidden_layers=1), dict(init_lora_weights="pissa"))
    steps(folder, "pissa_rslora", TIED | dict(num_hidden_layers=1), dict(init_lora_weights="pissa", use_rslora=True))
    steps(folder, "olora", TIED | dict(num_hidden_layers=1), dict(init_lora_weights="olora"))
    inits(folder)
