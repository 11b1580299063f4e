"""llama.cpp, through llama-cpp-python, at the work of `graft train --method full`, `graft eval perplexity`, `graft generate` and `graft quantize`.

    peer_llamacpp.py full MODEL.gguf TEXT [--steps 6] [--length 256] [--threads 2]
    peer_llamacpp.py score MODEL.gguf TEXT [--tokens 512] [--repeats 5] [--threads 2]
    peer_llamacpp.py generate MODEL.gguf PROMPT [--tokens 200] [--threads 2]
    peer_llamacpp.py quantize MODEL.gguf OUT.gguf [--file-type 15] [--threads 2]

full: every step is one row of LENGTH tokens, forward, backward and AdamW, all parameters but the embedding as an input,
whose gradient llama.cpp does not compute. It trains on one row a step: gradients reach the projections of keys and values
only where a micro-batch is the whole context. MODEL must be all float32. Prints a line a step, then RESULT tok/s, the
median without the first step. score: the same tokens each time, of which only the evaluation is timed, not the logarithms.
generate: the most likely token each time, chosen here from the logits that the library leaves, after a prompt whose evaluation
is not timed. quantize: the file type is llama.cpp's number, 15 for Q4_K_M; RESULT has the seconds. Where the library lacks the training functions, the script says so and exits with 3.
"""
import argparse
import ctypes
import statistics
import sys
import time

import numpy as np

try:
    import llama_cpp
except ImportError as e:
    sys.exit(f"peer_llamacpp: llama-cpp-python is not installed in {sys.executable}: {e}")

p = argparse.ArgumentParser()
p.add_argument("work", choices=["full", "score", "generate", "quantize"])
p.add_argument("model")
p.add_argument("text", help="what is read; of generate, the prompt itself; of quantize, the file written")
p.add_argument("--file-type", type=int, default=15)
p.add_argument("--steps", type=int, default=6)
p.add_argument("--length", type=int, default=256)
p.add_argument("--tokens", type=int, default=512)
p.add_argument("--repeats", type=int, default=5)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--lr", type=float, default=2e-4)
a = p.parse_args()

F32, I32 = 0, 26  # ggml_type
P, I64 = ctypes.c_void_p, ctypes.c_int64


class Rates(ctypes.Structure):
    """ggml_opt_optimizer_params: AdamW's rate, two decays, epsilon and weight decay; then those of SGD."""
    _fields_ = [(n, ctypes.c_float) for n in ("alpha", "beta1", "beta2", "eps", "wd", "sgd_alpha", "sgd_wd")]


class Training(ctypes.Structure):
    """llama_opt_params, whose last field the binding leaves out."""
    _fields_ = [("n_ctx_train", ctypes.c_uint32), ("filter", P), ("filter_data", P), ("rates", P), ("rates_data", P), ("optimizer", ctypes.c_int)]


AFTER = ctypes.CFUNCTYPE(None, ctypes.c_bool, P, P, P, I64, I64, I64)


def bound(name, result, *arguments):
    """A function of the library, called with types of our own: those of the binding are of another age."""
    try:
        address = ctypes.cast(getattr(llama_cpp.llama_cpp._lib, name), P).value
    except AttributeError:
        print(f"peer_llamacpp: llama-cpp-python {llama_cpp.__version__} has no {name}: this build cannot train", file=sys.stderr)
        sys.exit(3)
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def address(name):
    return ctypes.cast(bound(name, None), P)


def opened(length):
    # Gradients want keys and values in float32, weights that may be written, and no flash attention.
    return llama_cpp.Llama(model_path=a.model, n_ctx=length, n_batch=length, n_ubatch=length, n_threads=a.threads, n_threads_batch=a.threads,
                           use_mmap=False, type_k=F32, type_v=F32, flash_attn=False, logits_all=True, verbose=False)


def full():
    make, data_of, labels_of = bound("ggml_opt_dataset_init", P, ctypes.c_int, ctypes.c_int, I64, I64, I64, I64), bound("ggml_opt_dataset_data", P, P), bound("ggml_opt_dataset_labels", P, P)
    memory_of, new_result, loss_of = bound("ggml_get_data", P, P), bound("ggml_opt_result_init", P), bound("ggml_opt_result_loss", None, P, P, P)
    begin, epoch = bound("llama_opt_init", None, P, P, Training), bound("llama_opt_epoch", None, P, P, P, P, I64, AFTER, P)
    llm = opened(a.length)
    ids = np.array(llm.tokenize(open(a.text, "rb").read(), add_bos=False, special=False), dtype=np.int32)
    if len(ids) <= a.steps * a.length:
        sys.exit(f"peer_llamacpp: {len(ids)} tokens of text are too few for {a.steps} steps of {a.length}")
    rows = make(I32, I32, a.length, a.length, a.steps, 1)
    for tensor, shift in ((data_of(rows), 0), (labels_of(rows), 1)):
        part = np.ascontiguousarray(ids[shift : shift + a.steps * a.length])
        ctypes.memmove(memory_of(tensor), part.ctypes.data, part.nbytes)
    rates = Rates(a.lr, 0.9, 0.999, 1e-8, 0.0, a.lr, 0.0)
    begin(llm._ctx.ctx, llm._model.model, Training(0, address("llama_opt_param_filter_all"), None, address("ggml_opt_get_constant_optimizer_params"),
                                                   ctypes.cast(ctypes.pointer(rates), P), 0))
    times, total = [time.time()], [0.0]

    def after(train, optimizer, dataset, result, done, of, started):
        mean = ctypes.c_double()
        loss_of(result, ctypes.addressof(mean), None)
        times.append(time.time())
        total.append(mean.value * done)
        print(done - 1, f"{total[-1] - total[-2]:.6f}", f"{times[-1] - times[-2]:.3f}", flush=True)

    call = AFTER(after)
    epoch(llm._ctx.ctx, rows, new_result(), new_result(), a.steps, call, None)
    steps = [b - c for b, c in zip(times[2:], times[1:])]
    print("RESULT full tok/s", a.length / statistics.median(steps))


def score():
    llm = opened(a.tokens)
    ids = llm.tokenize(open(a.text, "rb").read()[:20000], add_bos=False, special=False)[: a.tokens]
    batch, times = llama_cpp.llama_batch_init(len(ids), 0, 1), []
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    for _ in range(1 + a.repeats):  # the first warms up
        llm._ctx.kv_cache_clear()
        start = time.time()
        if llama_cpp.llama_decode(llm._ctx.ctx, batch) != 0:
            sys.exit("peer_llamacpp: the evaluation failed")
        logits = llama_cpp.llama_get_logits(llm._ctx.ctx)  # waits for the result
        times.append(time.time() - start)
    z = np.ctypeslib.as_array(logits, (len(ids), llm.n_vocab()))[:-1].astype(np.float64)
    top = z.max(axis=1, keepdims=True)
    nll = np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - z[np.arange(len(z)), ids[1:]]
    print(f"RESULT nll {nll.mean():.6f} tok/s", len(ids) / statistics.median(times[1:]))


def generate():
    llm = llama_cpp.Llama(model_path=a.model, n_ctx=1024, n_threads=a.threads, n_threads_batch=a.threads, verbose=False)
    ids = llm.tokenize(a.text.encode(), add_bos=True, special=False)

    def evaluate(tokens):
        one = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(llm._ctx.ctx, llama_cpp.llama_batch_get_one(one, len(tokens))) != 0:
            sys.exit("peer_llamacpp: the evaluation failed")
        return int(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llm._ctx.ctx, -1), (llm.n_vocab(),)).argmax())

    token = evaluate(ids)
    start = time.time()
    for _ in range(a.tokens):
        token = evaluate([token])
    print("RESULT generate tok/s", a.tokens / (time.time() - start))


def quantize():
    o = llama_cpp.llama_model_quantize_default_params()
    o.ftype, o.nthread = a.file_type, a.threads
    start = time.time()
    if llama_cpp.llama_model_quantize(a.model.encode(), a.text.encode(), ctypes.byref(o)) != 0:
        sys.exit("peer_llamacpp: quantizing failed")
    print(f"RESULT quantize {time.time() - start:.3f} s")


{"full": full, "score": score, "generate": generate, "quantize": quantize}[a.work]()
