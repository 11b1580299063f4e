"""Scores the start of a text with transformers, as score_hf.py does, and times the forward pass with its loss.

    peer_score.py MODEL TEXT float32|bfloat16 [TOKENS]

Prints RESULT nll and tok/s: the same tokens seven times, the median without the first two.
"""
import statistics
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(2)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[3])).eval()
text = open(sys.argv[2], "rb").read()[:20000].decode("utf-8", "ignore")
ids = AutoTokenizer.from_pretrained(sys.argv[1])(text, return_tensors="pt", add_special_tokens=False).input_ids[:, : int(sys.argv[4]) if len(sys.argv) > 4 else 512]
times = []
with torch.inference_mode():
    for _ in range(7):
        start = time.time()
        nll = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1].float(), ids[0, 1:]).item()
        times.append(time.time() - start)
print(f"RESULT nll {nll:.6f} tok/s", ids.shape[1] / statistics.median(times[2:]))
