package safetensors

// Dividing a model over several files.

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Shard is one planned file of several.
type Shard struct {
	Name   string // of the file, without a folder
	Layout *Layout
}

// Shards is a model planned over one file or more.
type Shards struct {
	Files []Shard
	// TotalSize is the number of bytes of all tensors; TotalParameters the number
	// of their elements. A caller whose tensors are packed, two weights a byte, may
	// set TotalParameters to the true count before it asks for the index.
	TotalSize, TotalParameters int64
}

// PlanShards divides tensors over files whose tensors take at most maxBytes, as
// Hugging Face's libraries do: it walks the specs in their order and begins a new
// file where the next tensor would not fit; a tensor larger than maxBytes gets a
// file of its own. One file is named STEM.safetensors; more are named
// STEM-00001-of-0000N.safetensors and need an index ([Shards.Index]). Each file
// carries the metadata. The error wraps [ErrLayout].
func PlanShards(specs []Spec, maxBytes int64, stem string, metadata map[string]string) (*Shards, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("safetensors: planning shards: %w: at most %d bytes a file", ErrLayout, maxBytes)
	}
	// One plan of all finds duplicates and sizes that overflow.
	whole, err := Plan(specs, metadata)
	if err != nil {
		return nil, err
	}
	s := &Shards{TotalSize: whole.Size - int64(len(whole.Header))}
	for _, t := range whole.Tensors {
		s.TotalParameters += t.Elements()
	}
	groups := splitSpecs(specs, maxBytes, whole)
	for i, group := range groups {
		name := stem + ".safetensors"
		if len(groups) > 1 {
			name = fmt.Sprintf("%s-%05d-of-%05d.safetensors", stem, i+1, len(groups))
		}
		l, err := Plan(group, metadata)
		if err != nil {
			return nil, err
		}
		s.Files = append(s.Files, Shard{name, l})
	}
	return s, nil
}

// splitSpecs groups specs by the rule of PlanShards. An oversized tensor's group
// comes before the group that was being filled when it was met, as upstream.
func splitSpecs(specs []Spec, maxBytes int64, whole *Layout) [][]Spec {
	var groups [][]Spec
	var current []Spec
	filled := int64(0)
	for _, spec := range specs {
		t, _ := whole.Tensor(spec.Name)
		if t.Size() > maxBytes {
			groups = append(groups, []Spec{spec})
			continue
		}
		if t.Size() > maxBytes-filled {
			groups = append(groups, current)
			current, filled = nil, 0
		}
		current = append(current, spec)
		filled += t.Size()
	}
	if len(current) > 0 || len(groups) == 0 {
		groups = append(groups, current)
	}
	return groups
}

// Index returns the text of STEM.safetensors.index.json as transformers 5 writes
// it, or nil when there is one file and so no index.
func (s *Shards) Index() []byte {
	if len(s.Files) < 2 {
		return nil
	}
	files := map[string]string{}
	for _, f := range s.Files {
		for _, t := range f.Layout.Tensors {
			files[t.Name] = f.Name
		}
	}
	b := fmt.Appendf(nil, "{\n  \"metadata\": {\n    \"total_parameters\": %d,\n    \"total_size\": %d\n  },\n  \"weight_map\": {", s.TotalParameters, s.TotalSize)
	for i, name := range slices.Sorted(maps.Keys(files)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    "...)
		b = appendASCII(b, name)
		b = append(b, ": "...)
		b = appendASCII(b, files[name])
	}
	return append(b, "\n  }\n}\n"...)
}

// appendASCII appends s as a JSON string in Python's default form, where all that
// is not printable ASCII is escaped, runes above U+FFFF as two surrogates.
func appendASCII(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case ' ' <= r && r <= '~':
			b = append(b, byte(r))
		case r > 0xffff:
			b = appendEscape(b, 0xd800+(r-0x10000)>>10)
			b = appendEscape(b, 0xdc00+(r-0x10000)&0x3ff)
		default:
			b = appendEscape(b, r)
		}
	}
	return append(b, '"')
}

// appendEscape appends the four-digit escape of r.
func appendEscape(b []byte, r rune) []byte {
	hex := strconv.FormatInt(int64(r)|0x10000, 16) // five digits, the first to drop
	return append(append(b, `\u`...), hex[1:]...)
}
