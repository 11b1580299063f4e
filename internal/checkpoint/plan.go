package checkpoint

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// TensorType gives the matrices whose names a pattern is found in a type of their own.
type TensorType struct {
	// Pattern is searched for in the Hugging Face name and in the GGUF name, as llama-quantize does.
	Pattern *regexp.Regexp
	Type    string // as [Options.Type]
}

// ParseTensorType reads "PATTERN=TYPE".
func ParseTensorType(s string) (TensorType, error) {
	i := strings.LastIndexByte(s, '=')
	if i <= 0 || i == len(s)-1 {
		return TensorType{}, fmt.Errorf("checkpoint: tensor type %q: want PATTERN=TYPE, such as attn_v=q8_0", s)
	}
	pattern, err := regexp.Compile(s[:i])
	if err != nil {
		return TensorType{}, fmt.Errorf("checkpoint: tensor type %q: %w", s, err)
	}
	return TensorType{pattern, s[i+1:]}, nil
}

// wanted returns the type that a tensor is to have, in upper case, "" for its own.
func (w *writing) wanted(name string) string {
	if i := w.rule(name); i >= 0 {
		return strings.ToUpper(w.o.TensorTypes[i].Type)
	}
	return strings.ToUpper(w.o.Type)
}

// rule returns which of the exceptions is that of a tensor, −1 where none is.
func (w *writing) rule(name string) int {
	if len(w.o.TensorTypes) == 0 {
		return -1
	}
	other, _ := w.c.Config().GGUFName(name)
	return slices.IndexFunc(w.o.TensorTypes, func(r TensorType) bool {
		return r.Pattern.MatchString(name) || r.Pattern.MatchString(other)
	})
}

// checkRules refuses an exception that changes nothing: a pattern with a slip in it.
func (w *writing) checkRules() error {
	found, taken := make([]bool, len(w.o.TensorTypes)), make([]bool, len(w.o.TensorTypes))
	for _, t := range w.tensors {
		if i := w.rule(t.Name); i >= 0 {
			found[i] = true
			taken[i] = taken[i] || t.Codec == w.wanted(t.Name)
		}
	}
	for i, r := range w.o.TensorTypes {
		if !found[i] {
			return fmt.Errorf("the pattern %q is in no tensor's name, or an earlier one has them all; graft inspect --tensors lists the names", r.Pattern)
		}
		if !taken[i] {
			return fmt.Errorf("no tensor with %q in its name can have type %s here", r.Pattern, strings.ToUpper(r.Type))
		}
	}
	return nil
}

// Planned is what [Write] would do.
type Planned struct {
	Files   []PlannedFile // that hold tensors
	Tensors []Written     // without errors
	// Blocks tells that a folder will have a [BlocksFile], too. Its size shows only when it is written.
	Blocks bool
}

// PlannedFile is a file of a planned output.
type PlannedFile struct {
	Name    string // without a folder
	Tensors int    // entries in its header: a 4-bit tensor has several
	Bytes   int64  // the size of the file
}

// Plan says what Write would write to out with these options, to the byte, and writes nothing. Only
// double quantization of 4-bit tensors makes it read them: the length of a file depends on the
// digits of a mean.
func Plan(ctx context.Context, c *Checkpoint, out string, o Options) (*Planned, error) {
	o.Errors = false
	w, err := newWriting(ctx, c, o)
	p := &Planned{}
	if err == nil {
		p.Files, err = w.plannedFiles(out)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: planning %q: %w", out, err)
	}
	p.Tensors = w.report()
	p.Blocks = slices.ContainsFunc(w.tensors, func(t *target) bool { return t.blocks != nil })
	return p, nil
}

func (w *writing) plannedFiles(out string) ([]PlannedFile, error) {
	var files []PlannedFile
	if w.o.Form == GGUF {
		parts, err := w.ggufParts(out)
		for _, p := range parts {
			files = append(files, PlannedFile{p.Name, len(p.Layout.Tensors), p.Layout.Size})
		}
		return files, err
	}
	staged := &stage{saved: map[string][]stagedTensor{}}
	if err := w.quantizeAll(staged); err != nil {
		return nil, err
	}
	shards, err := w.planShards(staged)
	if err != nil {
		return nil, err
	}
	for _, s := range shards.Files {
		files = append(files, PlannedFile{s.Name, len(s.Layout.Tensors), s.Layout.Size})
	}
	return files, nil
}
