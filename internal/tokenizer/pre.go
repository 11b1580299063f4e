package tokenizer

// This file knows the pre-tokenizers that GGUF files name: what a name stands for, and which
// name the steps of a tokenizer.json have.

import (
	"fmt"
	"slices"
	"strings"
)

// preTokenizer is what a family of GGUF pre-tokenizer names stands for: patterns that split
// the text one after the other.
type preTokenizer struct {
	names        []string
	patterns     []string
	ignoreMerges bool
	addBOS       bool // where the file does not say
}

const (
	digitPattern = `\p{N}`
	letterTail   = `| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	upperWord    = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
	lowerWord    = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
	contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`

	llama3Pattern = llama3Head + llama3Digits + llama3Tail
	qwen2Pattern  = llama3Head + qwen2Digits + llama3Tail
	o200kPattern  = upperWord + contractions + `?|` + lowerWord + contractions + `?|\p{N}{1,3}` + letterTail
	tekkenPattern = upperWord + `|` + lowerWord + `|\p{N}` + letterTail
	qwen35Pattern = contractions + `|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	seedPattern   = llama3Head + `\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+`
	bloomPattern  = ` ?[^(\s|[.,!?…。，、।۔،])]+`
	deepseekWords = `[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_` + "`" +
		`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	deepseekCJK   = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
	deepseekLatin = "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f" +
		"\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-" +
		"\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b" +
		"\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-" +
		"\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183" +
		"\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf" +
		"\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2" +
		"\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+"
	deepseekSigns  = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
	falconSigns    = "[\\p{P}\\$\\+<=>\\^~\\|`]+"
	anyPunctuation = `[\p{P}\$\+<=>\^~\|]+`
	threeDigits    = `[0-9][0-9][0-9]`
)

// preTokenizers lists them; where two would do, the first is written.
var preTokenizers = []preTokenizer{
	{
		names: []string{"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "jina-es", "jina-de", "gigachat",
			"jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "modern-bert", "jina-v1-en", "jina-v2-code", "roberta-bpe"},
		patterns: []string{gpt2Pattern},
	}, {
		names:    []string{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
		patterns: []string{digitPattern, gpt2Pattern},
	}, {
		names:        []string{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "lfm2", "pixtral", "midm-2.0", "jina-v5-nano"},
		patterns:     []string{llama3Pattern},
		ignoreMerges: true,
		addBOS:       true,
	}, {
		names:    []string{"smaug-bpe", "dbrx", "chatglm-bpe"},
		patterns: []string{llama3Pattern},
	}, {
		names:        []string{"glm4", "glm5"},
		patterns:     []string{llama3Pattern},
		ignoreMerges: true,
	}, {
		names: []string{"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "kormo", "f2llmv2", "grok-2", "solar-open",
			"bailingmoe", "bailingmoe2", "llada-moe"},
		patterns: []string{qwen2Pattern},
	}, {
		names:    []string{"qwen35"},
		patterns: []string{qwen35Pattern},
	}, {
		names:    []string{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
		patterns: []string{o200kPattern},
	}, {
		names:        []string{"tekken"},
		patterns:     []string{tekkenPattern},
		ignoreMerges: true,
		addBOS:       true,
	}, {
		names:    []string{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
		patterns: []string{`\p{N}{1,3}`, "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", deepseekWords},
	}, {
		names:    []string{"deepseek-llm"},
		patterns: []string{`[\r\n]`, deepseekLatin, deepseekSigns, `\s+$`, deepseekCJK, `\p{N}+`},
	}, {
		names:    []string{"deepseek-coder"},
		patterns: []string{`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, deepseekCJK, digitPattern},
	}, {
		names:    []string{"falcon"},
		patterns: []string{falconSigns, gpt2Pattern, threeDigits},
	}, {
		names:    []string{"seed-coder"},
		patterns: []string{seedPattern},
	}, {
		names:    []string{"bloom", "poro-chat", "gpt3-finnish"},
		patterns: []string{bloomPattern},
	}, {
		names:    []string{"viking"},
		patterns: []string{bloomPattern, digitPattern},
	}, {
		names:    []string{"default", ""},
		patterns: []string{anyPunctuation, gpt2Pattern, `\p{N}+`, threeDigits},
	},
}

func findPreTokenizer(name string) *preTokenizer {
	for i, p := range preTokenizers {
		if slices.Contains(p.names, name) {
			return &preTokenizers[i]
		}
	}
	return nil
}

// preNames lists the names that stand for something different each.
func preNames() string {
	var names []string
	for _, p := range preTokenizers {
		names = append(names, p.names[0])
	}
	return strings.Join(names, ", ")
}

// component describes the pre-tokenizer for tokenizer.json.
func (p *preTokenizer) component() *component {
	byteLevel := component{Type: "ByteLevel", AddPrefixSpace: new(bool), UseRegex: new(bool)}
	var steps []component
	for i, pattern := range p.patterns {
		switch {
		case pattern == digitPattern:
			steps = append(steps, component{Type: "Digits", IndividualDigits: true})
		case pattern == gpt2Pattern && i == len(p.patterns)-1:
			*byteLevel.UseRegex = true
		default:
			steps = append(steps, splitComponent(pattern))
		}
	}
	if len(steps) == 0 {
		return &byteLevel
	}
	return &component{Type: "Sequence", Pretokenizers: append(steps, byteLevel)}
}

func splitComponent(regex string) component {
	c := component{Type: "Split", Behavior: isolated}
	c.Pattern.Regex = &regex
	return c
}

// nameOf returns GGUF's name for a pre-tokenizer of a byte-level vocabulary.
func nameOf(c *component, ignoreMerges bool) (string, error) {
	steps, err := c.flatten()
	if err != nil {
		return "", err
	}
	patterns := structure(steps)
	for _, p := range preTokenizers {
		if slices.Equal(p.patterns, patterns) && p.ignoreMerges == ignoreMerges {
			return p.names[0], nil
		}
	}
	var what []string
	for _, pattern := range patterns {
		what = append(what, fmt.Sprintf("%q", pattern))
	}
	with := "out"
	if ignoreMerges {
		with = ""
	}
	return "", fmt.Errorf("%w: GGUF has no name for the pre_tokenizer that splits by %s with%s ignore_merges; say which name it is to have (one of %s)",
		ErrUnsupported, strings.Join(what, ", then "), with, preNames())
}

// falconSteps is how Falcon's tokenizer.json says what GGUF calls falcon.
var falconSteps = []string{"Punctuation", gpt2Pattern, `\p{N}+`, threeDigits}

// structure spells the steps as patterns, other kinds of step by their type's name.
func structure(steps []component) []string {
	var out []string
	for _, c := range steps {
		switch {
		case c.Type == "ByteLevel":
			if c.UseRegex == nil || *c.UseRegex {
				out = append(out, gpt2Pattern)
			}
		case c.Type == "Digits" && c.IndividualDigits:
			out = append(out, digitPattern)
		case c.Type == "Digits":
			out = append(out, `\p{N}+`)
		case c.Type == "Split" && c.Pattern.Regex != nil && (c.Behavior == isolated || c.Behavior == removed && c.Invert):
			out = append(out, plainSpelling(*c.Pattern.Regex))
		default:
			out = append(out, c.Type)
		}
	}
	if slices.Equal(out, falconSteps) {
		return findPreTokenizer("falcon").patterns
	}
	return out
}

// plainSpelling undoes differences of spelling between patterns that match the same text.
func plainSpelling(pattern string) string {
	for _, r := range [][2]string{
		{`\"`, `"`},
		{"\r", `\r`},
		{"\n", `\n`},
		{`'(?i:[sdmt]|ll|ve|re)`, contractions},
		{`]?+\p{L}+`, `]?\p{L}+`}, // nothing that a possessive quantifier keeps could match what follows
		{`]++[\r\n]*`, `]+[\r\n]*`},
		{`|\s*[\r\n]|`, `|\s*[\r\n]+|`}, // the spaces are greedy and hold newlines too
	} {
		pattern = strings.ReplaceAll(pattern, r[0], r[1])
	}
	return pattern
}
