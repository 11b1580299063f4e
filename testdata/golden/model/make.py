"""Goldens of package model: what transformers makes of published configurations.

usage: make.py OUT_FOLDER

Made with torch 2.15.0, transformers 5.23.0.

configs.json has, by name, for config.json as models are published with it (by various versions of transformers) and for those
of internal/testmodel/configs.json:

  given    the config.json
  saved    the one that transformers 5 writes after reading it
  window   of each layer, the keys that it sees, 0 for all
  scale    what multiplies scores, and what embeddings and logits are multiplied by
  rope     of each layer, pairs that rotate, the first, middle and last frequency, the factor of sines and cosines, and the last
           frequency of long sequences; null where the layer has no positions
  params   shapes by name, of layer 0 and outside of layers; tied says whether the head is the embedding table
"""
import copy
import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

FACTORS = [round(1 + i / 8, 4) for i in range(48)]
GEMMA3 = ["sliding_attention"] * 5 + ["full_attention"]
PUBLISHED = {
    "TinyLlama-1.1B": dict(
        architectures=["LlamaForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=2048, initializer_range=0.02,
        intermediate_size=5632, max_position_embeddings=2048, model_type="llama", num_attention_heads=32, num_hidden_layers=22,
        num_key_value_heads=4, pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=None, tie_word_embeddings=False, torch_dtype="float32",
        use_cache=True, vocab_size=32000),
    "Llama-3.2-1B": dict(
        architectures=["LlamaForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=128000, eos_token_id=[128001, 128008, 128009],
        head_dim=64, hidden_act="silu", hidden_size=2048, intermediate_size=8192, max_position_embeddings=131072, mlp_bias=False, model_type="llama",
        num_attention_heads=32, num_hidden_layers=16, num_key_value_heads=8, rms_norm_eps=1e-05, rope_theta=500000.0, tie_word_embeddings=True,
        rope_scaling=dict(factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=8192, rope_type="llama3"),
        torch_dtype="bfloat16", vocab_size=128256),
    "Mistral-7B-v0.1": dict(
        architectures=["MistralForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=4096, intermediate_size=14336,
        max_position_embeddings=32768, model_type="mistral", num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=8,
        rms_norm_eps=1e-05, rope_theta=10000.0, sliding_window=4096, tie_word_embeddings=False, torch_dtype="bfloat16", vocab_size=32000),
    "Mistral-Nemo": dict(
        architectures=["MistralForCausalLM"], bos_token_id=1, eos_token_id=2, head_dim=128, hidden_act="silu", hidden_size=5120,
        intermediate_size=14336, max_position_embeddings=131072, model_type="mistral", num_attention_heads=32, num_hidden_layers=40,
        num_key_value_heads=8, rms_norm_eps=1e-05, rope_theta=1000000.0, sliding_window=None, tie_word_embeddings=False, torch_dtype="bfloat16",
        vocab_size=131072),
    "Qwen2.5-0.5B": dict(
        architectures=["Qwen2ForCausalLM"], bos_token_id=151643, eos_token_id=151643, hidden_act="silu", hidden_size=896, intermediate_size=4864,
        max_position_embeddings=32768, max_window_layers=24, model_type="qwen2", num_attention_heads=14, num_hidden_layers=24,
        num_key_value_heads=2, rms_norm_eps=1e-06, rope_theta=1000000.0, sliding_window=32768, tie_word_embeddings=True, torch_dtype="bfloat16",
        use_mrope=False, use_sliding_window=False, vocab_size=151936),
    "Qwen2.5-7B with yarn": dict(
        architectures=["Qwen2ForCausalLM"], hidden_act="silu", hidden_size=3584, intermediate_size=18944, max_position_embeddings=131072,
        max_window_layers=20, model_type="qwen2", num_attention_heads=28, num_hidden_layers=28, num_key_value_heads=4, rms_norm_eps=1e-06,
        rope_theta=1000000.0, rope_scaling=dict(factor=4.0, original_max_position_embeddings=32768, type="yarn"), sliding_window=65536,
        tie_word_embeddings=False, torch_dtype="bfloat16", use_sliding_window=True, vocab_size=152064),
    "Qwen3-0.6B": dict(
        architectures=["Qwen3ForCausalLM"], attention_bias=False, bos_token_id=151643, eos_token_id=151645, head_dim=128, hidden_act="silu",
        hidden_size=1024, intermediate_size=3072, max_position_embeddings=40960, max_window_layers=28, model_type="qwen3", num_attention_heads=16,
        num_hidden_layers=28, num_key_value_heads=8, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=1000000, sliding_window=None,
        tie_word_embeddings=True, torch_dtype="bfloat16", use_sliding_window=False, vocab_size=151936),
    "gemma-2-2b": dict(
        architectures=["Gemma2ForCausalLM"], attention_bias=False, attn_logit_softcapping=50.0, bos_token_id=2, cache_implementation="hybrid",
        eos_token_id=1, final_logit_softcapping=30.0, head_dim=256, hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh",
        hidden_size=2304, intermediate_size=9216, max_position_embeddings=8192, model_type="gemma2", num_attention_heads=8, num_hidden_layers=26,
        num_key_value_heads=4, pad_token_id=0, query_pre_attn_scalar=256, rms_norm_eps=1e-06, rope_theta=10000.0, sliding_window=4096,
        torch_dtype="float32", vocab_size=256000),
    "gemma-2-27b": dict(
        architectures=["Gemma2ForCausalLM"], attn_logit_softcapping=50.0, final_logit_softcapping=30.0, head_dim=128, hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh", hidden_size=4608, intermediate_size=36864, max_position_embeddings=8192, model_type="gemma2",
        num_attention_heads=32, num_hidden_layers=46, num_key_value_heads=16, query_pre_attn_scalar=144, rms_norm_eps=1e-06, rope_theta=10000.0,
        sliding_window=4096, sliding_window_size=4096, torch_dtype="float32", vocab_size=256000),
    "gemma-3-270m": dict(
        architectures=["Gemma3ForCausalLM"], _sliding_window_pattern=6, attention_bias=False, attn_logit_softcapping=None, bos_token_id=2, eos_token_id=1,
        final_logit_softcapping=None, head_dim=256, hidden_activation="gelu_pytorch_tanh", hidden_size=640, intermediate_size=2048,
        layer_types=GEMMA3 * 3, max_position_embeddings=32768, model_type="gemma3_text", num_attention_heads=4, num_hidden_layers=18,
        num_key_value_heads=1, pad_token_id=0, query_pre_attn_scalar=256, rms_norm_eps=1e-06, rope_local_base_freq=10000.0, rope_scaling=None,
        rope_theta=1000000.0, sliding_window=512, torch_dtype="bfloat16", use_bidirectional_attention=False, vocab_size=262144),
    "gemma-3-1b": dict(
        architectures=["Gemma3ForCausalLM"], attention_bias=False, bos_token_id=2, eos_token_id=[1, 106], head_dim=256,
        hidden_activation="gelu_pytorch_tanh", hidden_size=1152, intermediate_size=6912, max_position_embeddings=32768, model_type="gemma3_text",
        num_attention_heads=4, num_hidden_layers=26, num_key_value_heads=1, pad_token_id=0, query_pre_attn_scalar=256, rms_norm_eps=1e-06,
        rope_local_base_freq=10000, rope_scaling=None, rope_theta=1000000, sliding_window=512, sliding_window_pattern=6, torch_dtype="bfloat16",
        vocab_size=262144),
    "gemma-3-4b": dict(
        architectures=["Gemma3ForConditionalGeneration"], boi_token_index=255999, eoi_token_index=256000, eos_token_id=[1, 106],
        image_token_index=262144, mm_tokens_per_image=256, model_type="gemma3", torch_dtype="bfloat16",
        text_config=dict(hidden_size=2560, intermediate_size=10240, model_type="gemma3_text", num_hidden_layers=34,
                         rope_scaling=dict(factor=8.0, rope_type="linear"), sliding_window=1024),
        vision_config=dict(hidden_size=1152, image_size=896, intermediate_size=4304, model_type="siglip_vision_model", num_attention_heads=16,
                           num_hidden_layers=27, patch_size=14, vision_use_head=False)),
    "SmolLM3-3B": dict(
        architectures=["SmolLM3ForCausalLM"], attention_bias=False, bos_token_id=None, eos_token_id=128012, hidden_act="silu", hidden_size=2048,
        intermediate_size=11008, layer_types=["full_attention"] * 36, max_position_embeddings=65536, max_window_layers=28, mlp_bias=False,
        model_type="smollm3", no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0] * 9, num_attention_heads=16, num_hidden_layers=36,
        num_key_value_heads=4, pad_token_id=128004, pretraining_tp=2, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=5000000.0,
        sliding_window=None, torch_dtype="bfloat16", use_sliding_window=False, vocab_size=128256),
    "granite-3.3-2b": dict(
        architectures=["GraniteForCausalLM"], attention_bias=False, attention_multiplier=0.015625, bos_token_id=0, embedding_multiplier=12.0,
        eos_token_id=0, hidden_act="silu", hidden_size=2048, intermediate_size=8192, logits_scaling=8.0, max_position_embeddings=131072,
        mlp_bias=False, model_type="granite", num_attention_heads=32, num_hidden_layers=40, num_key_value_heads=8, pad_token_id=0,
        residual_multiplier=0.22, rms_norm_eps=1e-05, rope_scaling=None, rope_theta=10000000.0, tie_word_embeddings=True, torch_dtype="bfloat16",
        vocab_size=49159),
    "OLMo-2-7B": dict(
        architectures=["Olmo2ForCausalLM"], attention_bias=False, eos_token_id=100257, hidden_act="silu", hidden_size=4096, intermediate_size=11008,
        max_position_embeddings=4096, model_type="olmo2", num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32,
        pad_token_id=100277, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=500000, tie_word_embeddings=False, torch_dtype="float32",
        vocab_size=100352),
    "Phi-3-mini-4k": dict(
        architectures=["Phi3ForCausalLM"], attention_bias=False, bos_token_id=1, embd_pdrop=0.0, eos_token_id=32000, hidden_act="silu",
        hidden_size=3072, intermediate_size=8192, max_position_embeddings=4096, model_type="phi3", num_attention_heads=32, num_hidden_layers=32,
        num_key_value_heads=32, original_max_position_embeddings=4096, pad_token_id=32000, rms_norm_eps=1e-05, rope_scaling=None,
        rope_theta=10000.0, sliding_window=2047, tie_word_embeddings=False, torch_dtype="bfloat16", vocab_size=32064),
    "Phi-3-mini-128k": dict(
        architectures=["Phi3ForCausalLM"], bos_token_id=1, eos_token_id=32000, hidden_act="silu", hidden_size=3072, intermediate_size=8192,
        max_position_embeddings=131072, model_type="phi3", num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32,
        original_max_position_embeddings=4096, rms_norm_eps=1e-05, rope_theta=10000.0, sliding_window=262144, torch_dtype="bfloat16",
        rope_scaling=dict(type="longrope", short_factor=[1.0] * 24 + [1.05] * 24, long_factor=FACTORS), vocab_size=32064),
    "Phi-4-mini": dict(
        architectures=["Phi3ForCausalLM"], bos_token_id=199999, eos_token_id=199999, full_attn_mod=1, hidden_act="silu", hidden_size=3072,
        intermediate_size=8192, interpolate_factor=1, lm_head_bias=False, max_position_embeddings=131072, mlp_bias=False, model_type="phi3",
        num_attention_heads=24, num_hidden_layers=32, num_key_value_heads=8, original_max_position_embeddings=4096, pad_token_id=199999,
        partial_rotary_factor=0.75, rms_norm_eps=1e-05, rope_theta=10000.0, sliding_window=262144, tie_word_embeddings=True,
        rope_scaling=dict(type="longrope", short_factor=[1.0] * 48, long_factor=FACTORS), torch_dtype="bfloat16", vocab_size=200064),
}


def rope_of(rotary, layer_type, config, long):
    """pairs, three frequencies, factor, and the last frequency of long sequences, as the module computes them"""
    p = config.rope_parameters
    p = p.get(layer_type, p) if isinstance(p.get(layer_type), dict) else p
    kw = dict(layer_type=layer_type) if layer_type in config.rope_parameters else {}
    if p["rope_type"] == "default":
        freq, factor = rotary.compute_default_rope_parameters(config, **kw)
    else:
        init = ROPE_INIT_FUNCTIONS[p["rope_type"]]
        freq, factor = init(config, **kw)
        if p["rope_type"] == "longrope":
            long = init(config, seq_len=p["original_max_position_embeddings"] + 1, **kw)[0][-1].item()
    return [len(freq), freq[0].item(), freq[len(freq) // 2].item(), freq[-1].item(), factor, long]


def facts(given):
    config = AutoConfig.for_model(**copy.deepcopy(given))  # it writes into dictionaries
    with tempfile.TemporaryDirectory() as dir:
        config.save_pretrained(dir)
        saved = json.loads((Path(dir) / "config.json").read_text())
    text = config.get_text_config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(text)
    window, rope, scale = [], [], set()
    rotary = type(model.model.rotary_emb)
    for i, layer in enumerate(model.model.layers):
        kind = text.layer_types[i] if getattr(text, "layer_types", None) else "full_attention"
        sliding = getattr(layer.self_attn, "sliding_window", None)
        if model.config.model_type in ("mistral", "phi3"):
            sliding = text.sliding_window
        window.append(sliding or 0)
        scale.add(layer.self_attn.scaling)
        has = not hasattr(layer.self_attn, "use_rope") or layer.self_attn.use_rope
        rope.append(rope_of(rotary, kind, text, 0) if has else None)
    embed = getattr(model.model.embed_tokens, "scalar_embed_scale", getattr(text, "embedding_multiplier", 1))
    params = {n: list(p.shape) for n, p in model.named_parameters() if ".layers." not in n or ".layers.0." in n}
    return dict(given=given, saved=saved, window=window, scale=[*scale, embed, 1 / getattr(text, "logits_scaling", 1)], rope=rope, params=params,
                tied="lm_head.weight" not in params)


def shorten(values):
    """runs of equal values, as [times, value]"""
    out = []
    for v in values:
        if out and out[-1][1] == v:
            out[-1][0] += 1
        else:
            out.append([1, v])
    return out


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    tiny = json.loads((here / "../../../internal/testmodel/configs.json").read_text())
    out = {}
    for name, given in (PUBLISHED | tiny).items():
        f = facts(given)
        f["window"], f["rope"] = shorten(f["window"]), shorten(f["rope"])
        out[name] = f
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in out.items()]
    (folder / "configs.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
