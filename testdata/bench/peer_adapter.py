"""What others do with adapters, in seconds without the start of Python and the loading of the model.

usage: peer_adapter.py merge|extract MODEL ADAPTER OUT
"""
import sys
import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

what, model, adapter, out = sys.argv[1:]
base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
start = time.time()
tuned = PeftModel.from_pretrained(base, adapter).merge_and_unload()
if what == "merge":
    tuned.save_pretrained(out)
    print(f"RESULT merge {time.time() - start:.3f} s")
else:
    own = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    changed, start = dict(tuned.named_parameters()), time.time()
    with torch.no_grad():
        for name, w in own.named_parameters():
            if name.endswith("_proj.weight"):
                torch.svd_lowrank(changed[name] - w, q=16, niter=2)
    print(f"RESULT extract {time.time() - start:.3f} s")
