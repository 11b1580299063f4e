"""Golden token ids of Hugging Face tokenizers and of SentencePiece.

    python make_golden.py OUT [NAME...]
        trains small tokenizers (byte-level BPE as of GPT-2, SmolLM, Llama 3, Qwen2,
        SentencePiece's BPE as of Llama 2, Gemma, Phi-3, unigram as of T5 and ALBERT,
        and odd pipelines) on text made here and writes each with the ids, and the
        decoded text, of awkward and of random strings.

Needs: tokenizers==0.23.3, sentencepiece==0.2.3.
"""

import base64
import gzip
import io
import json
import pathlib
import random
import sys
import tempfile

import sentencepiece
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
    "a" + "\u0301\u0316" * 30 + "e" + "\u0334\u0301" * 25 + "\u1100" + "\u1161" * 40, "\u0898a\u0316\u0301\u0334 a\u08ca\u0301 \U00011935\U00011930 \U000105d2\u0307 \U00016d63\U00016d67 a\u1dfa\u0301",
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

    invert = pre_tokenizers.Split(Regex(O200K), "removed", True)
    yield "phi4-mini", train(sequence(invert, byte_level(False)), added=special)
    yield "tekken", train(sequence(split(TEKKEN), byte_level(False)), ignore_merges=True, added=special, post=bos)
    yield "cl100k", train(sequence(pre_tokenizers.Split(Regex(CL100K), "removed", True), byte_level(False)), added=special)
    yield "qwen35", train(sequence(split(QWEN35), byte_level(False)), normalizer=normalizers.NFC(), size=300)
    yield "neox", train(byte_level(True), normalizer=normalizers.NFC(), added=special[2:3], size=300)
    yield "falcon", train(sequence(pre_tokenizers.Punctuation("contiguous"), byte_level(True), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")), size=300)
    yield "deepseek-coder", train(sequence(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), pre_tokenizers.Digits(True), byte_level(False)), size=300)  # fmt: skip
    yield from underline_tokenizers(rules(pathlib.Path(tempfile.mkdtemp(), "rules.tsv")))

    partial = Tokenizer(models.BPE(
        vocab={p: i for i, p in enumerate(["<unk>", "a", "b", "Ġ", "ab", "<0xC3>", "<0x84>", "<0x8A>", "<0x7A>", "ba"])},
        merges=[("a", "b"), ("b", "a"), ("a", "b")], unk_token="<unk>", byte_fallback=True, fuse_unk=True,
    ))  # fmt: skip
    partial.pre_tokenizer, partial.decoder = byte_level(True), decoders.ByteLevel()
    yield "partial", partial


UNDERLINE = "\u2581"
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")
CL100K = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
QWEN35 = QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r" ?[^\s\p{L}\p{N}]", r" ?[^\s\p{L}\p{M}\p{N}]")
# characters, sequences and what they become: a map as SentencePiece compiles it
RULES = {"\u00a0": " ", "\t": " ", "\n": " ", "\r": " ", "\u3000": " ", "\u0001": "", "\u00ad": "", "\ufb01": "fi", "A\u030a": "\u00c5", "e\u0301": "\u00e9", "E\u0301": "\u00c9",
         "\uff21": "A", "\uff11": "1", "\u00b2": "2", "\u00bd": "1/2", "\u1100\u1161": "\uac00", "\u212b": "\u00c5", "\ufdfa": "x y", "\u017f": "s", "\u2019": "'", "\u200d": "", "\u212a": "K"}  # fmt: skip


def sp_train(**options):
    rng, out = random.Random(7), io.BytesIO()
    lines = [line.replace("\n", " ") for line in corpus(rng)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, minloglevel=2, num_threads=1, character_coverage=0.999, **options
    )
    return out.getvalue()


def rules(path):
    rows = ["%s\t%s" % (" ".join("%X" % ord(c) for c in k), " ".join("%X" % ord(c) for c in v)) for k, v in RULES.items()]
    pathlib.Path(path).write_text("\n".join(rows) + "\n")
    return path


def pieces(model):
    """The pieces of a SentencePiece model: text, score, type."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    kinds = ((sp.is_unknown, 2), (sp.is_control, 3), (sp.is_unused, 5), (sp.is_byte, 6))
    for i in range(sp.get_piece_size()):
        yield sp.id_to_piece(i), sp.get_score(i), next((n for is_kind, n in kinds if is_kind(i)), 1)


def merges_of(vocab):
    """The merges that a SentencePiece vocabulary stands for, best first, as transformers derives them."""
    out = []
    for piece, rank in vocab.items():
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        pairs = [p for p in splits if p[0] in vocab and p[1] in vocab]
        out += [(rank, p) for p in sorted(pairs, key=lambda p: (vocab[p[0]], vocab[p[1]]))]
    return [p for _, p in sorted(out, key=lambda x: x[0])]


def charsmap_of(model):
    """The compiled character map inside a SentencePiece model: field 2 of field 3."""

    def fields(data):
        at = 0

        def varint():
            nonlocal at
            x = shift = 0
            while True:
                b = data[at]
                at += 1
                x |= (b & 127) << shift
                shift += 7
                if b < 128:
                    return x

        while at < len(data):
            key = varint()
            size = {0: None, 1: 8, 5: 4}.get(key & 7, -1)
            if size is None:
                varint()
                continue
            size = varint() if size < 0 else size
            yield key >> 3, data[at : at + size]
            at += size

    for num, v in fields(model):
        if num == 3:
            for n, w in fields(v):
                if n == 2:
                    return bytes(w)


def underlined(model, normalizer, pre=None, prefix=True, added=(), post=None, fuse=True, fallback=True):
    """BPE over the pieces of a SentencePiece model."""
    vocab = {p: i for i, (p, _, _) in enumerate(pieces(model))}
    t = Tokenizer(models.BPE(vocab, merges_of(vocab), unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback))
    t.normalizer, t.pre_tokenizer = normalizer, pre
    steps = [decoders.Replace(UNDERLINE, " "), decoders.ByteFallback(), decoders.Fuse()]
    t.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefix)
    t.add_special_tokens([AddedToken(p, normalized=False, special=True) for p, _, kind in pieces(model) if kind in (2, 3)])
    for a in added:
        (t.add_special_tokens if a.special else t.add_tokens)([a])
    if post:
        t.post_processor = processors.TemplateProcessing(single=post, pair=None, special_tokens=[(x, t.token_to_id(x)) for x in ("<s>", "</s>")])
    return t


def unigram(model, normalizer, pre, decoder=None, fallback=False, added=(), post=None):
    vocab = [(p, s) for p, s, _ in pieces(model)]
    t = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=fallback))
    t.normalizer, t.pre_tokenizer = normalizer, pre
    t.decoder = decoder or decoders.Metaspace(UNDERLINE, "always")
    t.add_special_tokens([AddedToken(p, normalized=False, special=True) for p, _, kind in pieces(model) if kind in (2, 3)])
    t.add_special_tokens([AddedToken(f"<extra_id_{i}>", normalized=False, special=True) for i in range(3)])
    for a in added:
        (t.add_special_tokens if a.special else t.add_tokens)([a])
    if post:
        t.post_processor = processors.TemplateProcessing(single=post, pair=None, special_tokens=[("</s>", t.token_to_id("</s>"))])
    return t


LLAMA2 = dict(model_type="bpe", vocab_size=700, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
              allow_whitespace_only_pieces=True)  # fmt: skip
GEMMA = dict(LLAMA2, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, user_defined_symbols=["<start_of_turn>", "\n\n", UNDERLINE * 2, "<h1>"])


def underline_tokenizers(rules_file):
    replace, prepend = normalizers.Replace(" ", UNDERLINE), normalizers.Prepend(UNDERLINE)
    llama, gemma = sp_train(**LLAMA2), sp_train(**GEMMA)
    legacy = normalizers.Sequence([prepend, replace])
    turns = [AddedToken(x, normalized=False, rstrip=True, special=True) for x in ("<|im_start|>", "<|im_end|>", "<|end|>")]
    words = [AddedToken("[W]", single_word=True, normalized=False), AddedToken("[L]", lstrip=True, normalized=False), AddedToken("[N]", normalized=True)]
    yield "llama2", underlined(llama, legacy, post="<s> $A")
    yield "llama2-modern", underlined(llama, None, pre_tokenizers.Metaspace(UNDERLINE, "first", False), added=words, post="<s> $A </s>")
    yield "llama2-always", underlined(llama, None, pre_tokenizers.Metaspace(UNDERLINE, "always", True), fuse=False, fallback=False)
    yield "phi3", underlined(llama, legacy, added=turns + words)
    yield "gemma", underlined(gemma, replace, pre_tokenizers.Split(" ", "merged_with_previous"), prefix=False, added=[AddedToken(x, normalized=False) for x in ("<start_of_turn>", "\n\n", "<h1>")])  # fmt: skip
    bare = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, UNDERLINE: 3, "e": 4, " ": 5, "\u0301": 6, "aba": 7}, [("a", "b"), ("ab", "a")], ignore_merges=True))
    bare.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.Strip()])
    bare.pre_tokenizer = sequence(pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("merged_with_previous"))
    yield "bare", bare

    uni = dict(model_type="unigram", vocab_size=400, hard_vocab_limit=False, normalization_rule_tsv=rules_file)
    t5 = sp_train(**uni)
    clean = [normalizers.Precompiled(charsmap_of(t5)), normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), UNDERLINE)]
    meta = pre_tokenizers.Metaspace(UNDERLINE, "always")
    yield "t5", unigram(t5, normalizers.Sequence(clean), meta, post="$A </s>", added=words)
    yield "t5-old", unigram(t5, normalizers.Precompiled(charsmap_of(t5)), sequence(pre_tokenizers.WhitespaceSplit(), meta), post="$A </s>")
    albert = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()] + clean
    yield "albert", unigram(t5, normalizers.Sequence(albert), meta)
    fall = sp_train(**dict(uni, vocab_size=640, byte_fallback=True, split_by_whitespace=False, remove_extra_whitespaces=False))
    yield "unigram-bytes", unigram(fall, normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), prepend, replace]), None, fallback=True, decoder=decoders.Sequence([decoders.Replace(UNDERLINE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]))  # fmt: skip


def models_only():
    yield "model-llama2", sp_train(**LLAMA2), {"tokenizer_class": "LlamaTokenizer"}
    yield "model-gemma", sp_train(**GEMMA), {"tokenizer_class": "GemmaTokenizer"}
    yield "model-bpe", sp_train(**dict(LLAMA2, byte_fallback=False, vocab_size=300)), None


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


def sp_case(sp, text):
    return {"text": text, "plain": sp.encode(text)}


def golden(out, names):
    for name, t in tokenizers():
        if names and name not in names:
            continue
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
        write(out, name, doc)
    for name, model, config in models_only():
        if names and name not in names:
            continue
        sp, rng = sentencepiece.SentencePieceProcessor(model_proto=model), random.Random(name)
        texts = NASTY + ["".join(rng.choices(POOL, k=rng.randint(1, 24))) for _ in range(60)]
        doc = {"model": base64.b64encode(model).decode(), "config": config, "cases": [sp_case(sp, x) for x in texts]}
        write(out, name, doc)


MARKS = [0x300, 0x301, 0x316, 0x323, 0x334, 0x345, 0x5B0, 0x64B, 0x93C, 0x94D, 0xE38, 0x200D, 0xFE0F, 0x1F3FB, 0x20E3, 0x3099, 0xE0061, 0x1E8D0, 0x1DFA, 0x903, 0x9BE, 0x1161, 0x11A8]  # fmt: skip
BASES = [ord(c) for c in "aAeEo1 \r\n\t\u00b2\u00bd\ufb01\u00c5\u212a\u017f\u2122\u2139\u00a9\u00ae\u260e\u2460\u24d0\u3297\u3299\u03a9\u03a3\u03c2\u00df\u0130\u01c4\u4e2d\u3131\uff71\uff9e\u30f7\uff21\u037e"]
BASES += [0xAC00, 0xAC01, 0x915, 0x937, 0x600, 0x6DD, 0x8E2, 0x110BD, 0xAD, 0x200B, 0, 1, 0x85, 0x2028, 0x1E9E, 0xFDFA, 0x3300, 0x1F18E, 0x1F201, 0x1F170, 0x1F469, 0x1F1E9, 0x9CB, 0xB48, 0xBCA, 0xCC0, 0xF77, 0xF79, 0x1F600, 0x32FF, 0x1C89, 0xA7CB, 0x10D50, 0x1DF7, 0x8CA]  # fmt: skip


def steps(out):
    """What each normalizer, and Punctuation, does to rows of characters and marks."""
    m = sp_train(model_type="unigram", vocab_size=400, hard_vocab_limit=False, normalization_rule_tsv=rules(pathlib.Path(tempfile.mkdtemp(), "rules.tsv")))
    kinds = {k: getattr(normalizers, k)() for k in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents")}
    kinds["Precompiled"] = normalizers.Precompiled(charsmap_of(m))
    split, rng, rows = pre_tokenizers.Punctuation("isolated"), random.Random("steps"), []
    texts = ["".join(chr(rng.choice(MARKS if rng.random() < 0.45 else BASES)) for _ in range(rng.randint(1, 10))) for _ in range(900)]
    texts += ["".join(map(chr, range(a, a + 48))) for a in range(0xA0, 0x3400, 48)] + ["a" + "\u0301\u0316" * 40]
    for text in texts:
        out_of = {k: n.normalize_str(text) for k, n in kinds.items()}
        row = {"text": text, "out": {k: v for k, v in out_of.items() if v != text}, "pieces": [a for _, (a, _) in split.pre_tokenize_str(text)]}
        rows.append(row)
    write(out, "steps/steps", {"charsmap": base64.b64encode(charsmap_of(m)).decode(), "rows": rows})


def write(out, name, doc):
    with gzip.GzipFile(pathlib.Path(out, name + ".json.gz"), "wb", mtime=0) as f:
        f.write(json.dumps(doc, separators=(",", ":")).encode())


if __name__ == "__main__":
    golden(sys.argv[1], sys.argv[2:])
    if not sys.argv[2:]:
        steps(sys.argv[1])

