"""Golden values of internal/kernel's row kernels, attention, loss and optimizer.

    python make.py OUT

writes OUT/kernel.json: an object from a name to base64 of little-endian float32
values. Inputs are not stored: they come from the generator `values`, which the
test repeats. Written with Python 3.11, torch 2.15.
"""

import base64
import json
import sys

import numpy as np
import torch
import torch.nn.functional as F


def values(seed, *shape):
    """Uniform in [-1, 1), exact in float32."""
    n, x, out = int(np.prod(shape)), seed, []
    for _ in range(n):
        x = (1664525 * x + 1013904223) & 0xFFFFFFFF
        out.append((x >> 8) / 2.0**23 - 1)
    return torch.tensor(out, dtype=torch.float32).reshape(shape)


golden = {}


def put(name, t):
    golden[name] = base64.b64encode(t.detach().to(torch.float32).contiguous().numpy().tobytes()).decode()


def attention(name, lengths, heads, kv_heads, d, window):
    t = sum(lengths)
    q, k, v, dout = (values(s, t, h * d).double() for s, h in ((1, heads), (2, kv_heads), (3, kv_heads), (4, heads)))
    for x in (q, k, v):
        x.mul_(3)
        x.requires_grad_()
    start = torch.arange(t)
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    distance = start[:, None] - start[None, :]
    mask = (sequence[:, None] == sequence[None, :]) & (distance >= 0)
    if window:
        mask &= distance < window
    split = lambda x, h: x.reshape(t, h, d).transpose(0, 1)[None]
    out = F.scaled_dot_product_attention(
        split(q, heads), split(k, kv_heads), split(v, kv_heads), attn_mask=mask, scale=0.3, enable_gqa=True)
    out = out[0].transpose(0, 1).reshape(t, heads * d)
    out.backward(dout)
    for part, x in (("out", out), ("dq", q.grad), ("dk", k.grad), ("dv", v.grad)):
        put(f"attention/{name}/{part}", x)


def norm():
    x, w, dy = values(5, 7, 24).requires_grad_(), values(6, 24).requires_grad_(), values(7, 7, 24)
    y = F.rms_norm(x, (24,), w, 1e-5)
    y.backward(dy)
    put("norm/y", y), put("norm/dx", x.grad), put("norm/dw", w.grad)


def glu():
    for name, act in (("silu", F.silu), ("gelu", lambda x: F.gelu(x, approximate="tanh"))):
        gate, up, dy = values(8, 300).mul_(8).requires_grad_(), values(9, 300).requires_grad_(), values(10, 300)
        y = act(gate) * up
        y.backward(dy)
        put(f"glu/{name}/y", y), put(f"glu/{name}/dgate", gate.grad), put(f"glu/{name}/dup", up.grad)


def loss():
    h, head = values(11, 9, 16).double().requires_grad_(), values(12, 310, 16).double().mul(4).requires_grad_()
    head.retain_grad()
    targets = (torch.arange(9) * 167) % 310
    weight = values(13, 9).double()
    nll = F.cross_entropy(h @ head.T, targets, reduction="none")
    (nll * weight * 0.125).sum().backward()
    put("loss/nll", nll), put("loss/dh", h.grad), put("loss/dhead", head.grad)


def adamw():
    p = torch.nn.Parameter(values(14, 100))
    optimizer = torch.optim.AdamW([p], lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    for step in range(5):
        p.grad = values(100 + step, 100) * 10.0 ** (step - 3)
        optimizer.step()
        put(f"adamw/{step + 1}", p)
    state = optimizer.state[p]
    put("adamw/m", state["exp_avg"]), put("adamw/v", state["exp_avg_sq"])


attention("packed", [5, 61, 1, 13], 4, 2, 8, 0)
attention("window", [70], 3, 1, 5, 9)
norm()
glu()
loss()
adamw()
with open(f"{sys.argv[1]}/kernel.json", "w") as f:
    json.dump(golden, f, indent=0)
    f.write("\n")
