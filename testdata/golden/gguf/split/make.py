"""A model in three parts as gguf-py 0.19.0 writes it; llama-cpp-python's loader takes the same names and keys.

usage: make.py OUT_FOLDER

  parts-0000I-of-00003.gguf   metadata in the first; tensors "a" to "e", F32, the i-th (from 0) with 8·(i+1)
                              elements that are all i + 0.5
"""
import sys
from pathlib import Path

import gguf
import numpy as np

path = Path(sys.argv[1], "parts.gguf")
w = gguf.GGUFWriter(path, "llama", split_max_size=200)
w.add_name("In parts")
w.add_array("names", ["x", "y"])
for i, name in enumerate("abcde"):
    w.add_tensor(name, np.full(8 * (i + 1), i + 0.5, np.float32))
w.write_header_to_file(path)
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
