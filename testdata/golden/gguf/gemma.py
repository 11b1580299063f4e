"""Tiny random Gemma checkpoints as transformers initialises them, through GGUF (F32): llama.cpp's logits against transformers'.

usage: gemma.py GRAFT

Made with torch 2.15.0, transformers 5.23.0, llama-cpp-python 0.3.36. ggml looks GELU up in a table over 16 bits; here nothing makes up for
that (architectures.py, whose weights are larger, does). Exit 1 where a logit differs by 1e-3 or more. Printed:

  gemma2: 2.1e-04 2.2e-04 2.0e-04 of 0.5
  gemma3: 2.3e-04 2.6e-04 2.5e-04 of 0.7
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

VOCAB = 256
SHAPE = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=VOCAB,
             query_pre_attn_scalar=16, sliding_window=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=512)
work, worst = Path(tempfile.mkdtemp()), 0.0


def tokenizer(folder):
    words = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())[: VOCAB - 4], "ab"]
    t = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[("a", "b")]))
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)


for name, config, kind in (("gemma2", Gemma2Config, Gemma2ForCausalLM), ("gemma3", Gemma3TextConfig, Gemma3ForCausalLM)):
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        model, folder = kind(config(**SHAPE)).eval(), work / f"{name}-{seed}"
        model.save_pretrained(folder)
        tokenizer(folder)
        subprocess.run([sys.argv[1], "convert", folder, "-o", f"{folder}.gguf", "--type", "f32"], check=True, capture_output=True)
        ids = torch.randint(3, VOCAB, (48,)).tolist()
        with torch.no_grad():
            want = model(torch.tensor([ids])).logits[0].numpy()
        llama = llama_cpp.Llama(f"{folder}.gguf", n_ctx=128, logits_all=True, verbose=False, type_k=0, type_v=0)
        llama.eval(ids)
        found.append(float(np.abs(np.array(llama.scores[: len(ids)]) - want).max()))
        llama.close()
    print(f"  {name}:", *(f"{d:.1e}" for d in found), f"of {np.abs(want).max():.1f}")
    worst = max(worst, *found)
sys.exit(worst >= 1e-3)
