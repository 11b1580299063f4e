"""Golden token ids of Hugging Face tokenizers.

    python make_golden.py golden OUT
        trains small byte-level BPE tokenizers (GPT-2, SmolLM, Llama 3, Qwen2 and
        odd pipelines) on text made here and writes each with the ids, and the
        decoded text, of awkward and of random strings.

    python make_golden.py lines OUT --model DIR --gguf FILE TEXTS...
        writes the ids of every line of the given texts (.txt, .json, .jsonl, .gz)
        for a real model, by tokenizers from DIR/tokenizer.json and by llama.cpp
        from the GGUF file, with the GGUF's vocabulary: what TestPeers reads.

Needs: tokenizers==0.23.3; for "lines" also gguf==0.19.0 and llama-cpp-python==0.3.36.
"""

import base64
import gzip
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

NASTY = [
    "", " ", "  ", "\n", "\r\n", "\n\n\n", " \n ", "\t\tx", "a", " a", "a ", "  a", "   a b", "a  b   c",
    "Hello, world! It's we'll they'RE I'D you'Ve x'M 's ' s '", "'ſ it'ſ IT'S 'ſS", "\u00a0a\u00a0 b \u00a0", "a\u0085b\u2028c\u2029 d \u2028",
    "e\u0301 \u00e9 a\u0316\u0301 \u1e9b\u0323 \uac00 \u1100\u1161\u11a8 \u212b \u2126 \ufb01", "𝟙Ⅷ² ½ ٣४ 1234567 12 3 0x1F 3.14159",
    "中文字符，测试。日本語のテキスト ひらがな 한국어", "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ☃️ ✈", "\U000105c0\U000105c9 \U00010d40\U0001ccf0 \U00011de0 \U00016ff4 \U000323b0",
    " " * 37 + "x" + "\n" * 23 + "\t" * 5, "9" * 41, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "def f(x):\n    return x ** 2  # ok\n\n\nif __name__ == '__main__':\n\tprint(f(3))\n", "http://a.b/c?d=e&f=%20#g", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>",
    "x<|end|>  <|end|><|endof<|end|>text|>", "[W] a[W]b [W] [L]  [L] [R]   x [N]N [LR]  \t[LR] [W]é [W]_ [W]\u200d [W]²", "ÉE\u0301 \u00c9x É",
    "\ufeffBOM \u200b zero\u200dwidth \u00ad", "\x00\x01\x7f\x80\x9f", "ﷺ ａｂｃ Ａ１", "ǅ ʰ ª º ⅷ Ⓐ ⓐ 〇 ㊀", "\U00010ffff\ue000\ufffe"[:3], "__init__ --- === ;;; \r\r\n x\r\n\r\n y",
    "\u0898a\u0316\u0301\u0334 a\u08ca\u0301 \U00011935\U00011930 \U000105d2\u0307 \U00016d63\U00016d67 a\u1dfa\u0301",
]
BYTES = [b"a\xffb", b"\xe4\xb8", b"\xe4\xb8x\xad", b"\xf0\x9f\x98", b"\xc0\xaf\xed\xa0\x80", b"\xf4\x90\x80\x80 ok", b"caf\xc3", b"\x80\x80\x80", b"\xf0\x82\x82\xac\xe0\x9f\xbf"]

POOL = list(
    "  \n\n\r\t aeiostlrdvmSTREVDLM''''0123456789.,;:!?-_/()<>|[]#$²½Ⅷ٣\u00a0\u0085\u2028\u3000\u200d\u0301\u0316\u0334éÉßſKǅʰ中文ひ한\u1100\u1161👍🏽☃\ufe0f\U000105c0\U00010d40\U00011de0\x00"
) + ["'s", "'ll", "'RE", "<|end|>", "<|im_end|>", "[W]", "[L]", "[LR]", " the", "tion", "ing ", "E\u0301"]


def corpus(rng):
    """Text with the habits of real text: a made-up vocabulary, Zipf's law, numbers, code, several scripts."""
    syllables = "ba be bi con de dis ex fa ing in is ka la le ment ness no on per pre re ry sa ser sta te ter the tion to un ver wa".split()
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(400)] + "the of and to it's we'll They're I'D don't".split()
    words += ["中文", "日本語", "한국어", "русский", "ελληνικά", "café", "naïve", "cafe\u0301", "👍", "123", "2024", "3.14", "x_1", "()", "==", "->"]
    for _ in range(1500):
        line = " ".join(words[min(int(rng.paretovariate(0.8)) - 1, len(words) - 1)] for _ in range(rng.randint(1, 14)))
        yield rng.choice(["", "", "    ", "\t"]) + line + rng.choice([".", "!", ";", "\n", "\n\n", " \n"])


def train(pre, size=520, normalizer=None, ignore_merges=False, added=(), post=None, **model):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges, **model))
    t.normalizer, t.pre_tokenizer, t.decoder = normalizer, pre, decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(
        corpus(random.Random(7)), trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    for a in added:
        (t.add_special_tokens if a.special else t.add_tokens)([a])
    if post:
        t.post_processor = post(t)
    return t


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern) if isinstance(pattern, str) else pattern[0], behavior, invert)


def byte_level(regex, space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=regex)


def sequence(*steps):
    return pre_tokenizers.Sequence(list(steps))


def tokenizers():
    special = [AddedToken(x, special=True, normalized=False) for x in ("<|begin|>", "<|end|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    flags = [
        AddedToken("[W]", single_word=True, normalized=False), AddedToken("[L]", lstrip=True, normalized=False),
        AddedToken("[R]", rstrip=True, normalized=False), AddedToken("[LR]", lstrip=True, rstrip=True, normalized=False),
        AddedToken("[N]", normalized=True), AddedToken("[N]N", normalized=True), AddedToken("E\u0301", normalized=True), AddedToken("É", normalized=False),
    ]  # fmt: skip

    def bos(t):
        b = ("<|begin|>", t.token_to_id("<|begin|>"))
        return processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B:1", special_tokens=[b]),
        ])  # fmt: skip

    def both(t):
        ids = [(x, t.token_to_id(x)) for x in ("<|begin|>", "<|end|>")]
        return processors.TemplateProcessing(single="<|begin|> $A <|end|>", pair=None, special_tokens=ids)

    yield "gpt2", train(byte_level(True), added=special[2:3])
    yield "smollm", train(sequence(pre_tokenizers.Digits(individual_digits=True), byte_level(True)), added=special)
    yield "llama3", train(sequence(split(LLAMA3), byte_level(False)), ignore_merges=True, added=special, post=bos)
    yield "qwen2", train(sequence(split(QWEN2), byte_level(False)), normalizer=normalizers.NFC(), added=special + flags)
    yield "o200k", train(sequence(split(O200K), byte_level(False)), size=300, added=special)
    yield "prefix", train(sequence(pre_tokenizers.Digits(individual_digits=False), byte_level(True, space=True)), size=300, added=special + flags, post=both)
    yield "deepseek", train(sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level(False)), size=300, added=special)  # fmt: skip
    yield "bloom", train(sequence(split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), byte_level(False)), size=300)
    for i, (b, inv) in enumerate([("removed", False), ("merged_with_previous", True), ("merged_with_next", False), ("contiguous", False), ("removed", True)]):
        pattern = [r"\w\d|[a-l&&[^e]]$|\h{2,}?|x*", [" "], r"\s+(?!\S)|[\d\s]{2}|é", r"(?i:[st]|ſx)|\P{L}", r"[^\W\d_]+|\p{^Z}"][i]
        yield f"split-{i}", train(sequence(split(pattern, b, inv), byte_level(False)), size=270)

    partial = Tokenizer(models.BPE(
        vocab={p: i for i, p in enumerate(["<unk>", "a", "b", "Ġ", "ab", "<0xC3>", "<0x84>", "<0x8A>", "<0x7A>", "ba"])},
        merges=[("a", "b"), ("b", "a"), ("a", "b")], unk_token="<unk>", byte_fallback=True, fuse_unk=True,
    ))  # fmt: skip
    partial.pre_tokenizer, partial.decoder = byte_level(True), decoders.ByteLevel()
    yield "partial", partial


def case(t, text):
    t.encode_special_tokens = False
    ids = t.encode(text).ids
    c = {"text": text, "ids": t.encode(text, add_special_tokens=False).ids}
    if ids != c["ids"]:
        c["with_special"] = ids
    t.encode_special_tokens = True
    plain = t.encode(text, add_special_tokens=False).ids
    if plain != c["ids"]:
        c["plain"] = plain
    t.encode_special_tokens = False
    for key, skip in (("decoded", False), ("skipped", True)):
        d = t.decode(c["ids"], skip_special_tokens=skip)
        if d != (text if key == "decoded" else c.get("decoded", text)):
            c[key] = d
    return c


def golden(out):
    for name, t in tokenizers():
        rng = random.Random(name)
        texts = NASTY + ["".join(rng.choices(POOL, k=rng.randint(1, 24))) for _ in range(60)]
        doc = {
            "tokenizer": json.loads(t.to_str()),
            "cases": [case(t, x) for x in texts],
            "bytes": [
                {"raw": base64.b64encode(b).decode(), "ids": t.encode(b.decode("utf-8", "replace"), add_special_tokens=False).ids} for b in BYTES
            ],
            "random_decode": [],
        }
        for _ in range(40):
            ids = [rng.randrange(t.get_vocab_size()) for _ in range(rng.randint(1, 12))]
            doc["random_decode"].append({"ids": ids, "text": t.decode(ids, skip_special_tokens=False)})
        with gzip.GzipFile(pathlib.Path(out, name + ".json.gz"), "wb", mtime=0) as f:
            f.write(json.dumps(doc, separators=(",", ":")).encode())


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for v in value.values() if isinstance(value, dict) else value:
            yield from strings(v)


def texts(path):
    raw = (gzip.open(path) if path.endswith(".gz") else open(path, "rb")).read().decode()
    name = path.removesuffix(".gz")
    if name.endswith(".json"):
        found = list(strings(json.loads(raw)))
    elif name.endswith(".jsonl"):
        found = [s for line in raw.splitlines() if line for s in strings(json.loads(line))]
    else:
        found = [raw]
    for text in found:
        yield text
        if "\n" in text:
            yield from text.split("\n")


def lines(out, model, gguf_file, paths):
    import gguf
    import llama_cpp

    fields = gguf.GGUFReader(gguf_file).fields
    get = lambda key: fields["tokenizer.ggml." + key].contents() if "tokenizer.ggml." + key in fields else None  # noqa: E731
    keys = "model pre tokens token_type merges bos_token_id eos_token_id unknown_token_id padding_token_id add_bos_token add_eos_token".split()
    out = pathlib.Path(out)
    (out / "vocab.json").write_text(json.dumps({k: get(k) for k in keys}))
    (out / "tokenizer.json").write_bytes(pathlib.Path(model, "tokenizer.json").read_bytes())
    t = Tokenizer.from_file(str(out / "tokenizer.json"))
    cpp = llama_cpp.Llama(model_path=gguf_file, vocab_only=True, verbose=False)
    seen = set()
    chat = ["<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n"]
    with open(out / "lines.jsonl", "w") as f:
        for path in paths:
            for text in texts(path):
                if text in seen:
                    continue
                seen.add(text)
                for s in (text, chat[0] + text + chat[1] + chat[2]):
                    raw = s.encode()
                    row = {"text": s}
                    for key, parse in (("ids", True), ("plain", False)):
                        t.encode_special_tokens = not parse
                        row[key] = t.encode(s, add_special_tokens=False).ids
                        if cpp.tokenize(raw, add_bos=False, special=parse) != row[key]:
                            row[key + "_cpp"] = cpp.tokenize(raw, add_bos=False, special=parse)
                    f.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "golden":
        golden(sys.argv[2])
    else:
        lines(sys.argv[2], sys.argv[4], sys.argv[6], sys.argv[7:])
