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
	seedPattern   = llama3Head + `\p{N}{1}| ?[^\s\p{L}\p{N}` + "\r\n" + `]+|\s*[` + "\r\n" + `]+|\s+(?!\S)|\s+`
	bailingWords  = llama3Head + qwen2Digits + `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	bloomPattern  = ` ?[^(\s|[.,!?…。，、।۔،])]+`
	deepseekWords = `[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_` + "`" + `{|}~][A-Za-z]+|[^` + "\r\n" + `\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[` +
		"\r\n" + `]*|\s*[` + "\r\n" + `]+|\s+(?!\S)|\s+`
	deepseekCJK    = "[一-龥ࠀ-一가-퟿]+"
	deepseekLatin  = `\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+`
	deepseekSigns  = `\s?[!-/:-~！-／：-～‘-‟　-。]+`
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
		names:    []string{"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "kormo", "f2llmv2", "grok-2", "solar-open"},
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
		patterns: []string{`\p{N}{1,3}`, "[一-龥぀-ゟ゠-ヿ]+", deepseekWords},
	}, {
		names:    []string{"deepseek-llm"},
		patterns: []string{"[\r\n]", deepseekLatin, deepseekSigns, `\s+$`, deepseekCJK, `\p{N}+`},
	}, {
		names:    []string{"deepseek-coder"},
		patterns: []string{"[\r\n]", `\s?\p{L}+`, `\s?\p{P}+`, deepseekCJK, digitPattern},
	}, {
		names:    []string{"falcon"},
		patterns: []string{falconSigns, gpt2Pattern, threeDigits},
	}, {
		names:    []string{"bailingmoe", "bailingmoe2", "llada-moe"},
		patterns: []string{bailingWords},
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
		{`'(?i:[sdmt]|ll|ve|re)`, contractions},
		{`]?+\p{L}+`, `]?\p{L}+`}, // nothing that a possessive quantifier keeps could match what follows
		{`]++[\r\n]*`, `]+[\r\n]*`},
		{`\s++$`, `\s+$`},
	} {
		pattern = strings.ReplaceAll(pattern, r[0], r[1])
	}
	return pattern
}
