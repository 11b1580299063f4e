"""Writes unicode_tables.go: the character classes of Hugging Face tokenizers 0.23.3.

Every class is asked of the library itself, code point by code point, so the
tables hold whatever Unicode version its engines carry (Oniguruma: 16.0, Rust's
std: 17.0) instead of the version of Go's unicode package.

    python gen_unicode_tables.py unicode_tables.go

Needs: tokenizers==0.23.3.
"""

import sys

from tokenizers import Regex, normalizers, pre_tokenizers

GC = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
WORD, NUMERIC = 0x20, 0x80
POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def matches(pattern):
    """The code points that the one-character pattern matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    out = set()
    for i in range(0, len(POINTS), 4096):
        block = POINTS[i : i + 4096]
        kept = set()
        for _, (a, b) in split.pre_tokenize_str("".join(map(chr, block))):
            kept.update(range(a, b))
        out.update(c for k, c in enumerate(block) if k not in kept)
    return out


def numeric():
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {c for c in POINTS if len(digits.pre_tokenize_str(f"a{chr(c)}a")) == 3}


def charsmap(char):
    """A SentencePiece character map that turns one character into X."""
    units = [0] * 4096
    units[0], at = 256 << 10, 256
    key = char.encode()
    for depth, byte in enumerate(key):
        at ^= byte
        step = 512 << depth
        units[at] = byte | step << 10 | (depth == len(key) - 1) << 8
        at ^= step
    units[at] = 1 << 31
    blob = b"".join(u.to_bytes(4, "little") for u in units)
    return len(blob).to_bytes(4, "little") + blob + b"X\0"


def each(function, inputs, sep):
    """function of many strings at once: they are joined by sep, which it must leave alone."""
    for i in range(0, len(inputs), 4096):
        yield from function(sep.join(inputs[i : i + 4096])).split(sep)


def extending():
    """Code points that belong to the grapheme cluster of the character before them."""
    n = normalizers.Precompiled(charsmap("a"))
    points = [c for c in POINTS if c not in (10, 13, 97)]
    return {c for c, out in zip(points, each(n.normalize_str, [f"a{chr(c)}" for c in points], "\n")) if out == "X"}


def pictographic():
    """Code points that a joiner ties to the pictograph behind it: then that is mapped without the mark it carries."""
    n = normalizers.Precompiled(charsmap("\u00a9"))
    points = [c for c in POINTS if c != 10]
    rows = each(n.normalize_str, [f"{chr(c)}\u200d\u00a9\u0301" for c in points], "\n")
    return {c for c, out in zip(points, rows) if out.endswith("X\u0301")}


def stripped():
    n = normalizers.StripAccents()
    points = [c for c in POINTS if c != 10]
    return {c for c, out in zip(points, each(n.normalize_str, [chr(c) for c in points], "\n")) if out == ""}


def punctuation():
    split = pre_tokenizers.Punctuation("removed")
    return {c for c in POINTS if c > 127 and not split.pre_tokenize_str(chr(c))}


def lowered():
    n = normalizers.Lowercase()
    points = [c for c in POINTS if c not in (10, 0x130)]
    found = [(c, ord(out)) for c, out in zip(points, each(n.normalize_str, [chr(c) for c in points], "\n")) if out != chr(c)]
    runs = []  # first, last, step, shift
    for c, small in found:
        if runs:
            first, last, step, shift = runs[-1]
            if small - c == shift and (c - last == step or first == last and c - last <= 2):
                runs[-1] = (first, c, c - last, shift)
                continue
        runs.append((c, c, 1, small - c))
    return runs


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(f, name, comment, kind, rows):
    f.write(f"\n{comment}\nvar {name} = {kind}{{\n")
    line = "\t"
    for row in rows:
        item = "{" + ", ".join(f"{x:#x}" for x in row) + "}, "
        if len(line) + len(item) > 150:
            f.write(line.rstrip() + "\n")
            line = "\t"
        line += item
    f.write((line.rstrip() + "\n" if line.strip() else "") + "}\n")


def main(path):
    value = [0] * 0x110000
    for i, name in enumerate(GC):
        for c in matches(r"\p{%s}" % name):
            value[c] = i
    for c in range(0xD800, 0xE000):
        value[c] = GC.index("Cn")
    for flag, points in ((WORD, matches(r"\w")), (NUMERIC, numeric())):
        for c in points:
            value[c] |= flag
    runs, start = [], 0
    for c in range(1, 0x110001):
        if c == 0x110000 or value[c] != value[start]:
            runs.append(f"{value[start]:02x}{c - start:x}")
            start = c
    lines, line = [], ""
    for run in runs:
        if len(line) + len(run) > 150:
            lines.append(line)
            line = ""
        line += run + " "
    lines.append(line.rstrip())
    with open(path, "w") as f:
        f.write("// Code generated by gen_unicode_tables.py from tokenizers 0.23.3. DO NOT EDIT.\n\npackage tokenizer\n\n")
        f.write("// unicodeRuns lists all code points from 0 on as runs: two hexadecimal digits of\n")
        f.write("// properties, then the run's length in hexadecimal.\n")
        f.write("const unicodeRuns = \"\" +\n")
        f.write(" +\n".join(f'\t"{x}"' for x in lines) + "\n")
        marks = {c for c in POINTS if c > 127 and value[c] & 0x1F in (5, 6, 7)}
        signs = {c for c in POINTS if c > 127 and 11 <= value[c] & 0x1F <= 17}
        table(f, "changedMarks", "// changedMarks are marks to either this version or that of StripAccents.", "[][2]rune", ranges(marks ^ stripped()))
        table(f, "changedPunctuation", "// changedPunctuation is punctuation to either this version or that of the pre-tokenizer.", "[][2]rune", ranges(signs ^ punctuation()))
        table(f, "extending", "// extending are the characters that extend a grapheme cluster.", "[][2]rune", ranges(extending()))
        table(f, "pictographs", "// pictographs are joined to others by U+200D.", "[][2]rune", ranges(pictographic()))
        table(f, "lowerRuns", "// lowerRuns maps capital letters to small ones.", "[]lowerRun", lowered())


main(sys.argv[1])
