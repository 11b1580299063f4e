"""Goldens of the gradient engine: what PEFT, bitsandbytes and TRL compute for tiny models.

usage: make.py OUT_FOLDER [families|variants]

Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, bitsandbytes 0.50.2, trl 1.16.0, safetensors 0.8.0
(CPU, one thread). Weights, adapters and token ids are not stored: both sides draw them from the generator
`draw` (package internal/testmodel is its twin), so a file holds only configurations and results:

  NAME.json         the configuration (config.json's keys), r, alpha, the sequences, the loss, and for DPO its figures
  NAME.safetensors  logits (T, vocab) of the sequences one after the other, without and with the adapter,
                    and the gradient of the loss in every trained matrix under the name PEFT or transformers gives it

families/NAME.* are the same of every other architecture and way in which its configurations differ: those of
internal/testmodel/configs.json, with fewer words. Attention is the eager one, some sequences are longer than the window.
full_NAME.* are full training of some of them. With the word families only these are made.

variants/NAME.* are what else PEFT's LoRA trains: DoRA, pairs on the embedding table and the head, whole modules, token rows,
biases, patterns of ranks. `adapter` says what there is: modules with rank and scale, and so on. With the word variants only these
are made.

steps.json and steps_untied.json are full training by transformers' Trainer: its arguments, the text, which byte by byte
is the tokens, and the losses and norms of gradients step by step; beside each the parameters at the end.

The loss is the mean negative log likelihood of all next tokens of all sequences.
"""
import copy
import json
import sys
import tempfile
from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments
from trl import DPOConfig, DPOTrainer

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


def fill(name, p, offset=0):
    """The weights of a test model: norms in [0.5, 1.5), less one where they are stored so, everything else in [-0.25, 0.25)."""
    v = draw(name, p.numel()).reshape(p.shape)
    v = 1 + v / 2 - np.float32(offset) if name.endswith("norm.weight") else v / 4
    with torch.no_grad():
        p.copy_(torch.from_numpy(v))


def tokens(name, n, vocab):
    return ((draw(name, n).astype(np.float64) + 1) / 2 * vocab).astype(np.int64).tolist()


BASE = dict(
    model_type="llama", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, vocab_size=300, max_position_embeddings=128, rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=True,
    attention_bias=False, mlp_bias=False, rope_theta=10000.0, bos_token_id=1, eos_token_id=2,
)
R, ALPHA = 4, 8


def build(cfg, quantize=False):
    kw = {k: v for k, v in cfg.items() if k not in ("model_type", "rope_theta", "rope_scaling")}
    rope = dict(rope_type="default", rope_theta=cfg["rope_theta"])
    if "rope_scaling" in cfg:
        rope.update(cfg["rope_scaling"])
    model = LlamaForCausalLM(LlamaConfig(**kw, rope_parameters=rope, attn_implementation="eager")).float()
    for name, p in model.named_parameters():
        fill(name, p)
    if quantize:
        for parent in model.modules():
            for child, m in list(parent.named_children()):
                if isinstance(m, torch.nn.Linear) and child != "lm_head":
                    q = bnb.nn.Linear4bit(m.in_features, m.out_features, bias=m.bias is not None, compute_dtype=torch.float32,
                                          compress_statistics=True, quant_type="nf4")
                    q.weight = bnb.nn.Params4bit(m.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
                    q.bias = m.bias
                    setattr(parent, child, q.to("cpu"))
    return model


def build_any(cfg):
    """The model of a config.json, as transformers builds it."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**copy.deepcopy(cfg)), attn_implementation="eager").float()
    for name, p in model.named_parameters():
        fill(name, p, offset=int(cfg["model_type"].startswith("gemma")))
    return model


def lora_config():
    return LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def adapt(model):
    model = get_peft_model(model, lora_config())
    for name, p in model.named_parameters():
        if ".lora_" in name:
            fill(peft_key(name), p)
    return model


def peft_key(name):
    return name.replace(".default.", ".")


def logits_of(model, sequences):
    return torch.cat([model(input_ids=torch.tensor([s])).logits[0] for s in sequences])


def loss_of(logits, sequences):
    total, count, at = 0.0, 0, 0
    for s in sequences:
        logp = logits[at : at + len(s) - 1].log_softmax(-1)
        total = total - logp.gather(1, torch.tensor(s[1:])[:, None]).sum()
        count, at = count + len(s) - 1, at + len(s)
    return total / count


def save(out, name, info, tensors):
    (out / f"{name}.json").write_text(json.dumps(info) + "\n")
    save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, out / f"{name}.safetensors", metadata={"format": "pt"})


def lora(out, name, cfg, quantize=False, build=build):
    sequences = [tokens(f"{name}.{i}", n, cfg["vocab_size"]) for i, n in enumerate((17, 5, 11))]
    model = build(cfg, quantize) if quantize else build(cfg)
    model.train()
    with torch.no_grad():
        base = logits_of(model, sequences)
    model = adapt(model)
    model.train()
    logits = logits_of(model, sequences)
    loss = loss_of(logits, sequences)
    loss.backward()
    tensors = {"logits.base": base, "logits.adapter": logits}
    for n, p in model.named_parameters():
        if p.requires_grad:
            tensors[peft_key(n)] = p.grad
    save(out, name, dict(config=cfg, r=R, alpha=ALPHA, sequences=sequences, loss=loss.item(), quant="nf4" if quantize else ""), tensors)


def saved_key(name):
    """The name under which PEFT saves a parameter."""
    name = peft_key(name).removesuffix(".default").replace(".modules_to_save.", ".").replace(".base_layer.bias", ".bias")
    return name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def variant(out, name, cfg, build=build, **peft):
    """A model with an adapter of which every trained value is drawn, and what it gives."""
    sequences = [tokens(f"{name}.{i}", n, cfg["vocab_size"]) for i, n in enumerate((9, 6))]
    model = build(cfg)
    with torch.no_grad():
        base = logits_of(model, sequences)
    kw = dict(r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM") | peft
    config = LoraConfig(**kw)
    model = get_peft_model(model, config)
    for n, p in model.named_parameters():
        if p.requires_grad:
            key = saved_key(n)
            if config.ensure_weight_tying and ".lm_head." in key:
                continue  # in the memory of the table's
            fill(key + (".norm.weight" if key.endswith("magnitude_vector") else ""), p)
    logits = logits_of(model, sequences)
    loss = loss_of(logits, sequences)
    loss.backward()
    tensors = {"logits.base": base, "logits.adapter": logits}
    for n, p in model.named_parameters():
        if p.requires_grad:
            tensors[saved_key(n)] = p.grad
    modules = [dict(Module=n.removeprefix("base_model.model."), R=m.r["default"], Scale=m.scaling["default"])
               for n, m in model.named_modules() if hasattr(m, "lora_A") and hasattr(m, "scaling")]
    if config.ensure_weight_tying:
        tie(tensors, modules)
    whole = sorted(k.removeprefix("base_model.model.") for k in tensors
                   if ".lora_" not in k and ".token_adapter." not in k and not k.startswith("logits"))
    rows = {n.removeprefix("base_model.model."): config.trainable_token_indices[n.split(".")[-1]] for n, m in model.named_modules()
            if type(m).__name__ == "TrainableTokensWrapper" and n.split(".")[-1] in config.trainable_token_indices}
    adapter = dict(Modules=modules, DoRA=config.use_dora, Bias=config.lora_bias, Whole=whole, Rows=rows, TieWeights=config.ensure_weight_tying)
    save(out, name, dict(config=cfg, adapter=adapter, sequences=sequences, loss=loss.item(),
                         quant="nf4" if build is quantized else ""), tensors)


def tie(tensors, modules):
    """Two names of the same memory: the gradients of the head's pair are those of the table's, transposed."""
    table = "base_model.model.model.embed_tokens"
    head = "base_model.model.lm_head"
    if head + ".lora_A.weight" in tensors:
        tensors[table + ".lora_embedding_B"] += tensors.pop(head + ".lora_A.weight").T
        tensors[table + ".lora_embedding_A"] += tensors.pop(head + ".lora_B.weight").T
    modules[:] = [m for m in modules if m["Module"] != "lm_head"]


def quantized(cfg):
    return build(cfg, quantize=True)


def variants(out):
    out.mkdir(exist_ok=True)
    here = Path(__file__).resolve().parent
    configs = json.loads((here / "../../../internal/testmodel/configs.json").read_text())
    tied = BASE | dict(hidden_size=32, intermediate_size=48, head_dim=8, vocab_size=97, num_hidden_layers=1)
    untied = tied | dict(tie_word_embeddings=False)
    ends = ["q_proj", "down_proj", "embed_tokens", "lm_head"]
    family = lambda name, **kw: configs[name] | dict(vocab_size=41, intermediate_size=16) | kw
    variant(out, "dora", tied | dict(attention_bias=True, mlp_bias=True), use_dora=True)
    variant(out, "dora_nf4", untied | dict(hidden_size=64, head_dim=16, intermediate_size=128), build=quantized, use_dora=True)
    variant(out, "dora_phi3", family("phi3-long", original_max_position_embeddings=8), build=build_any, use_dora=True)
    variant(out, "dora_ends", untied, use_dora=True, target_modules=ends)
    variant(out, "dora_ends_tied", tied, use_dora=True, target_modules=ends)
    variant(out, "dora_ends_gemma2", family("gemma2-softcap"), build=build_any, use_dora=True, target_modules=ends)
    variant(out, "ends", untied, target_modules=ends)
    variant(out, "ends_tied", tied, target_modules=ends)
    variant(out, "ends_gemma2", family("gemma2-softcap"), build=build_any, target_modules=ends)
    variant(out, "ends_granite", family("granite-bias"), build=build_any, target_modules=ends)
    variant(out, "ends_one", tied, target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True)
    variant(out, "whole", untied, modules_to_save=["embed_tokens", "lm_head", "norm"])
    variant(out, "whole_head_tied", tied, modules_to_save=["lm_head"])
    variant(out, "whole_table_tied", tied, modules_to_save=["embed_tokens"])
    variant(out, "whole_one", tied, modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    variant(out, "rows", untied, trainable_token_indices={"embed_tokens": [3, 90, 17, 64, 5]})
    variant(out, "rows_both", untied, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [15, 90, 7], "lm_head": [1, 15, 96, 61]})
    variant(out, "rows_tied", tied, trainable_token_indices={"embed_tokens": [23, 8, 17, 64, 78]})
    variant(out, "rows_head_tied", tied, target_modules=["q_proj", "lm_head"], trainable_token_indices={"embed_tokens": [20, 88, 71, 64, 3]})
    variant(out, "pair_bias", untied, lora_bias=True, target_modules=["q_proj", "up_proj", "lm_head"])
    variant(out, "patterns", tied | dict(attention_bias=True, mlp_bias=True), use_rslora=True, rank_pattern={"q_proj": 3, "down_proj": 7},
            alpha_pattern={"k_proj": 5, "down_proj": 11}, bias="all", modules_to_save=["input_layernorm"])


def full(out, name, cfg, build=build):
    sequences = [tokens(f"{name}.{i}", n, cfg["vocab_size"]) for i, n in enumerate((9, 6))]
    model = build(cfg)
    logits = logits_of(model, sequences)
    loss = loss_of(logits, sequences)
    loss.backward()
    tensors = {"logits.base": logits} | {n: p.grad for n, p in model.named_parameters()}
    save(out, name, dict(config=cfg, sequences=sequences, loss=loss.item()), tensors)


def families(out):
    out.mkdir(exist_ok=True)
    here = Path(__file__).resolve().parent
    configs = json.loads((here / "../../../internal/testmodel/configs.json").read_text())
    for name, cfg in configs.items():
        if cfg["model_type"] != "llama" or "yarn" in name:
            lora(out, name, cfg | dict(vocab_size=53), build=build_any)
    # Gradients of what adapters leave alone: gains less one and of heads, biases, tables that are multiplied.
    for name in ("qwen2", "qwen3", "gemma3-pattern", "gemma2-softcap", "granite-bias", "olmo2-groups", "phi3-long"):
        long = dict(original_max_position_embeddings=8) if name.startswith("phi3") else {}
        full(out.parent, f"full_{name}", configs[name] | dict(vocab_size=41, intermediate_size=16) | long, build=build_any)


class Grab(TrainerCallback):
    def __init__(self):
        self.grads, self.logs = {}, {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kw):
        self.grads = {peft_key(n): p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}

    def on_log(self, args, state, control, logs=None, **kw):
        if "loss" in logs:
            self.logs = dict(logs)


def dpo(out, name, cfg):
    vocab = cfg["vocab_size"]
    tok = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(vocab)}, unk_token="<0>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<2>", pad_token="<2>", unk_token="<0>")
    text = lambda key, n: " ".join(f"<{t}>" for t in tokens(f"{name}.{key}", n, vocab))
    rows = [dict(prompt=text(f"prompt{i}", p), chosen=" " + text(f"chosen{i}", c), rejected=" " + text(f"rejected{i}", r))
            for i, (p, c, r) in enumerate([(5, 7, 4), (3, 4, 8)])]
    grab, seen = Grab(), []
    trainer = DPOTrainer(  # given the bare model, the reference is the model with the adapter off
        model=build(cfg),
        peft_config=lora_config(),
        args=DPOConfig(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=2, max_steps=1, logging_steps=1, report_to=[],
                       save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, learning_rate=1e-3, beta=0.1,
                       max_grad_norm=0.0, optim="adamw_torch", loss_type="sigmoid"),
        train_dataset=Dataset.from_list(rows), processing_class=tok, callbacks=[grab],
    )
    for n, p in trainer.model.named_parameters():
        if ".lora_" in n:
            fill(peft_key(n), p)
    collate = trainer.data_collator

    def watch(batch):
        got = collate(batch)
        seen.append({k: v.clone() for k, v in got.items() if torch.is_tensor(v)})
        return got

    trainer.data_collator = watch
    trainer.train()
    batch = seen[0]
    pairs = []
    for ids, mask, done in zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"]):
        n = int(mask.sum())
        pairs.append(dict(tokens=ids[:n].tolist(), completion=int(n - done.sum())))  # completion: where it begins
    info = dict(config=cfg, r=R, alpha=ALPHA, beta=0.1, rows=pairs, logs=grab.logs)  # rows: all chosen, then all rejected
    save(out, name, info, grab.grads)


TEXT = "The river runs to the sea, and the sea gives back the rain. It falls on hills 1234 times a year; nobody counts the drops. " * 3


class Steps(Trainer):
    """Takes rows in order and keeps every loss, which its log rounds."""

    def _get_train_sampler(self, dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, *args, **kw):
        loss = super().compute_loss(*args, **kw)
        self.losses.append(loss.item())
        return loss


class Norms(TrainerCallback):
    """Keeps the norm of the gradients before clipping."""

    def __init__(self):
        self.norms = []

    def on_log(self, args, state, control, logs=None, **kw):
        if "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


def steps(out, name, cfg):
    ids = list(TEXT.encode())
    how = dict(learning_rate=1e-2, weight_decay=0.5, max_grad_norm=1.0, max_steps=5, warmup_steps=1, adam_epsilon=1e-8,
               adam_beta1=0.9, adam_beta2=0.95)
    rows = [ids[i : i + 24] for i in range(0, len(ids) - 23, 24)]
    norms = Norms()
    trainer = Steps(
        model=build(cfg),
        args=TrainingArguments(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=2, logging_steps=1, report_to=[], save_strategy="no",
                               use_cpu=True, bf16=False, optim="adamw_torch", lr_scheduler_type="linear", **how),
        train_dataset=Dataset.from_list([dict(input_ids=r, labels=r) for r in rows]), callbacks=[norms],
    )
    trainer.losses = []
    trainer.train()
    info = dict(config=cfg, text=TEXT, length=24, batch=2, recipe=how, losses=trainer.losses, norms=norms.norms)
    save(out, name, info, dict(trainer.model.named_parameters()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if sys.argv[2:] != ["variants"]:
        families(folder / "families")
    if sys.argv[2:] == ["families"]:
        sys.exit()
    variants(folder / "variants")
    if sys.argv[2:] == ["variants"]:
        sys.exit()
    lora(folder, "lora", BASE)
    lora(folder, "lora_nf4", BASE, quantize=True)
    llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    lora(folder, "lora_bias", BASE | dict(num_key_value_heads=4, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
                                          rope_scaling=llama3, num_hidden_layers=1, vocab_size=151))
    small = dict(hidden_size=32, intermediate_size=48, head_dim=8, vocab_size=97, num_hidden_layers=1)
    full(folder, "full", BASE | small)
    full(folder, "full_bias", BASE | small | dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True))
    small = small | dict(vocab_size=260)
    steps(folder, "steps", BASE | small | dict(attention_bias=True, mlp_bias=True))
    steps(folder, "steps_untied", BASE | small | dict(tie_word_embeddings=False))
    dpo(folder, "dpo", BASE | dict(vocab_size=151))
