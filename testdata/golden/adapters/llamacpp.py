"""What llama.cpp's converter makes of folders that PEFT saved.

usage: llamacpp.py LLAMA_CPP

LLAMA_CPP is the source of llama.cpp as llama-cpp-python 0.3.36 vendors it. Made with peft 0.21.2 and the folders of make.py, on their base.

  llamacpp.json   for each folder the keys of the file (type, value), its tensors (dims in ggml's order, type, SHA-256 of the bytes), and by
                  tensor "effective", what llama.cpp then multiplies B·A by, beside "peft", what PEFT does. Where these differ the converter has
                  dropped the scale without a word: it knows neither use_rslora nor alpha_pattern.
"""
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
source = Path(sys.argv[1])
sys.path.insert(0, str(source / "gguf-py"))
import gguf  # noqa: E402

FOLDERS = ["peft/plain", "peft/bf16", "peft/f16", "peft/regex", "peft/patterns", "variants/embedding"]
out = {}
with tempfile.TemporaryDirectory() as tmp:
    base = Path(tmp) / "base"
    LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                                 head_dim=8, vocab_size=20, tie_word_embeddings=False)).save_pretrained(base)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for folder in FOLDERS:
        file = Path(tmp) / "out.gguf"
        subprocess.run([sys.executable, source / "convert_lora_to_gguf.py", "--base", base, "--outfile", file, HERE / folder],
                       check=True, capture_output=True)
        r = gguf.GGUFReader(file)
        keys = {k: [f.types[0].name, f.contents()] for k, f in r.fields.items() if not k.startswith("GGUF.")}
        tensors = {t.name: {"dims": t.shape.tolist(), "type": t.tensor_type.name, "sha256": hashlib.sha256(t.data.tobytes()).hexdigest()} for t in r.tensors}
        peft = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32), HERE / folder)
        scales = {}
        for name, module in peft.base_model.model.named_modules():
            if isinstance(getattr(module, "scaling", None), dict):
                tensor = names.get_name(name + ".weight", [".weight"])
                effective = keys["adapter.lora.alpha"][1] / tensors[tensor + ".lora_b"]["dims"][0]
                scales[tensor] = {"effective": effective, "peft": module.scaling["default"]}
        out[folder] = {"keys": keys, "tensors": tensors, "scales": scales}
        wrong = [s for s in scales.values() if abs(s["effective"] - s["peft"]) > 1e-6]
        print(f"{folder}: {len(tensors)} tensors, {len(wrong)} of {len(scales)} modules of another scale than PEFT's")
(HERE / "llamacpp.json").write_text(json.dumps(out, indent=1) + "\n")
