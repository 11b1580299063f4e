"""Writes adversarial.json.gz: texts that trip tokenizers up.

    python make_texts.py adversarial.json.gz
"""

import gzip
import json
import random
import sys

SPECIAL = "<s> </s> <unk> <pad> <bos> <eos> <mask> <0x0A> <0xE4> <|endoftext|> <|im_start|> <|im_end|> <|begin_of_text|> <|eot_id|> <start_of_turn> <end_of_turn> [INST] [/INST] [PAD3] <unused7> <|user|> <|end|> <extra_id_0> <|fim_prefix|>".split()  # fmt: skip
SPACES = [" ", "\t", "\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u00a0", "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff", "\u2581", "\u2060", "\u180e"]  # fmt: skip
WORDS = "a I we'll it's THEY'RE don't Hello world naïve café e\u0301 Ångström ﬁn straße ΣΊΣΥΦΟΣ ſ İi 中文 ひらがな 한국어 русский עברית عربي हिन्दी ไทย 👩‍👩‍👧 🇩🇪 ½ ² Ⅷ １２ ٣ 12345 3.14159 0x1F snake_case camelCase HTTPServer <div> $x == != -> ... --- ### //".split()


def texts(rng):
    yield from ["", *SPACES, *WORDS, *SPECIAL]
    for s in SPACES:
        yield from (s * 2, s * 3, s * 7, f"a{s}b", f"{s}a", f"a{s}", f"{s}{s}a", f"a{s}{s}{s}b", f" {s} {s}x", f"{s}1{s}2", f"{s}!{s}?")
    for n in (1, 2, 3, 4, 15, 16, 17, 31, 32, 33, 64, 100, 257):
        for c in (" ", "\n", "\t", "a", "A", "9", ".", "=", "é", "中", "👍", "\u0301", "\u200d", "▁", "\r\n", "-", "_", "\x00", "ab", "\n "):
            yield c * n
            yield f"x{c * n}y"
    for t in SPECIAL:
        yield from (f"a{t}b", f"a {t} b", f" {t}", f"{t} ", f"  {t}  x", f"{t}{t}", f"{t}\n{t}", t[:-1], t[1:], t.upper(), f"é{t}é", f"_{t}1")
    yield from ("".join(map(chr, range(a, a + 32))) for a in range(0, 0x500, 32))
    # a letter, digit and mark of every corner of every block
    for start in (0x530, 0x1e00, 0x2000, 0x2150, 0x2460, 0x3100, 0x3300, 0xa640, 0xab30, 0xf900, 0xfb00, 0xfe00, 0xff00, 0x10280, 0x10400, 0x16fe0, 0x1d400, 0x1d7c0, 0x1e900, 0x1f100, 0x1f600, 0x1fb00, 0x2f800, 0xe0000):  # fmt: skip
        for at in range(start, start + 256, 64):
            yield " ".join("".join(chr(c) for c in range(a, a + 4)) for a in range(at, at + 64, 4))
    for _ in range(150):
        yield "".join(chr(rng.choice([rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0x20000)])) for _ in range(rng.randint(1, 40))).encode(errors="ignore").decode()
    for _ in range(700):
        parts = []
        for _ in range(rng.randint(1, 10)):
            parts.append(rng.choice([rng.choice(WORDS), rng.choice(WORDS), rng.choice(SPACES), " ", rng.choice(SPECIAL), rng.choice("'’.,;:!?()[]{}<>@#%&*\"\\/|~`^+=-_$"), str(rng.randrange(10**rng.randint(1, 9)))]))
        yield "".join(parts)


with gzip.GzipFile(sys.argv[1], "wb", mtime=0) as f:
    f.write(json.dumps(list(dict.fromkeys(texts(random.Random(11))))).encode())
