"""transformers reads a GGUF file and saves it as a folder in float32; prints RESULT and the seconds.

usage: peer_convert.py MODEL.gguf OUT_FOLDER
"""
import os
import sys
import time

start = time.time()
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

src, out = sys.argv[1:3]
folder, name = os.path.split(os.path.abspath(src))
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
# It refuses to save a model that it read from GGUF as it is: the weights go into a plain one.
config = model.config
config.__dict__.pop("quantization_config", None)
plain = type(model)(config).float()
plain.load_state_dict(model.state_dict())
plain.tie_weights()
plain.save_pretrained(out)
tokenizer.save_pretrained(out)
print(f"RESULT seconds {time.time() - start:.2f}")
