package tokenizer

// This file describes, in tokenizer.json's terms, the steps of tokenizers in
// SentencePiece's style, where an underline stands for a space.

func sequenceOf(steps ...component) []component { return steps }

func replaceComponent(from, to string) *component {
	return &component{Type: "Replace", Pattern: pattern{String: &from}, Content: to}
}

// underlineNormalizer turns spaces into underlines, with prefix behind one more.
func underlineNormalizer(prefix bool) *component {
	replace := replaceComponent(" ", underline)
	if !prefix {
		return replace
	}
	return &component{Type: "Sequence", Normalizers: sequenceOf(component{Type: "Prepend", Prepend: underline}, *replace)}
}

// underlineDecoder undoes that, and puts the bytes of byte tokens together.
func underlineDecoder(prefix bool) *component {
	steps := sequenceOf(*replaceComponent(underline, " "), component{Type: "ByteFallback"}, component{Type: "Fuse"})
	if prefix {
		steps = append(steps, component{Type: "Strip", Content: " ", Start: 1})
	}
	return &component{Type: "Sequence", Decoders: steps}
}

func metaspaceComponent(prefix, split bool) *component {
	c := &component{Type: "Metaspace", Replacement: underline, PrependScheme: "never", Split: &split}
	if prefix {
		c.PrependScheme = "always"
	}
	return c
}

// unigramSteps are the normalizer and pre-tokenizer of a SentencePiece model, as transformers
// converts them: characters by the map, no spaces at the end, runs of spaces as one.
func unigramSteps(charsmap []byte, prefix, merge, split bool) (normalizer, preTokenizer *component) {
	var steps []component
	if len(charsmap) > 0 {
		steps = append(steps, component{Type: "Precompiled", Charsmap: charsmap})
	}
	if merge {
		runs := component{Type: "Replace", Content: underline}
		regex := " {2,}"
		runs.Pattern.Regex = &regex
		steps = append(steps, component{Type: "Strip", StripRight: true}, runs)
	}
	if steps != nil {
		normalizer = &component{Type: "Sequence", Normalizers: steps}
	}
	return normalizer, metaspaceComponent(prefix, split)
}
