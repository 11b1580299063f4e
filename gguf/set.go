package gguf

// A model in one file or in several parts, as llama.cpp's gguf-split makes them.

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The keys of a part. Their types are those that llama.cpp insists on.
const (
	splitNo      = "split.no"            // uint16, from 0
	splitCount   = "split.count"         // uint16
	splitTensors = "split.tensors.count" // int32, of all parts together
)

// PartName returns the name of part i of n, from 0, of a model: llama.cpp finds the
// other parts by it. A stem "m" gives "m-00001-of-00003.gguf".
func PartName(stem string, i, n int) string {
	return fmt.Sprintf("%s-%05d-of-%05d.gguf", stem, i+1, n)
}

var partName = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// parsePartName cuts the name of a part; part counts from 0.
func parsePartName(name string) (stem string, part, parts int, ok bool) {
	m := partName.FindStringSubmatch(name)
	if m == nil {
		return "", 0, 0, false
	}
	part, _ = strconv.Atoi(m[2])
	parts, _ = strconv.Atoi(m[3])
	return m[1], part - 1, parts, true
}

// FirstPart returns the path of the first part where path has the name of a part,
// and else path itself. Whether there are such files is not looked at.
func FirstPart(path string) string {
	dir, name := filepath.Split(path)
	if stem, part, parts, ok := parsePartName(name); ok && 0 <= part && part < parts {
		return dir + PartName(stem, 0, parts)
	}
	return path
}

// Set is a model's metadata and tensors, in one file or in several parts. Its
// methods may be called from several goroutines at once, except Close.
type Set struct {
	paths   []string
	files   []*File // parallel to paths
	kvs     []KV    // the first part's, without split.*
	tensors []Tensor
	owner   map[string]int
}

// OpenSet opens the model that the GGUF file at path is, or is one part of: any part
// will do, and the others must lie beside it under the names that [PartName] gives.
// Every header is read and checked, and that the parts are those of one model. The
// error wraps [ErrFormat] when a file is at fault, and [fs.ErrNotExist] when a part
// is missing.
func OpenSet(path string) (*Set, error) {
	first, err := Open(path)
	if err != nil {
		return nil, err
	}
	s := &Set{paths: []string{path}, files: []*File{first}, owner: map[string]int{}}
	n, err := first.split()
	if err == nil && n.count > 1 {
		err = s.openParts(path, n)
	}
	if err == nil {
		err = s.index()
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("gguf: opening %q: %w", path, err)
	}
	return s, nil
}

// split is what a file says about being a part. A whole file is {0, 1, −1}.
type split struct{ no, count, tensors int }

// split reads and checks the file's split keys.
func (f *File) split() (split, error) {
	count, ok, err := Value[uint16](f, splitCount)
	if err != nil || !ok {
		return split{0, 1, -1}, asFormat(err)
	}
	no, _, err := Value[uint16](f, splitNo)
	if err != nil {
		return split{}, asFormat(err)
	}
	tensors, ok, err := Value[int32](f, splitTensors)
	if err != nil {
		return split{}, asFormat(err)
	}
	if !ok {
		tensors = -1
	}
	if count == 0 || no >= count || ok && tensors < 0 {
		return split{}, fmt.Errorf("%w: %s: it is part %d of %d with %d tensors in all", ErrFormat, f, int(no)+1, count, tensors)
	}
	return split{int(no), int(count), int(tensors)}, nil
}

// asFormat lets a metadata entry of a wrong type count as a malformed file.
func asFormat(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}

// openParts opens the parts beside the one at path, which s holds alone and which
// says n of itself.
func (s *Set) openParts(path string, n split) error {
	dir, name := filepath.Split(path)
	stem, part, parts, ok := parsePartName(name)
	if !ok || part != n.no || parts != n.count {
		return fmt.Errorf("%w: it is part %d of %d of a model and must be called %s for the others to be found", ErrFormat, n.no+1, n.count, PartName("NAME", n.no, n.count))
	}
	given := s.files[0]
	s.paths, s.files = make([]string, n.count), make([]*File, n.count)
	s.files[n.no] = given
	for i := range n.count {
		s.paths[i] = dir + PartName(stem, i, n.count)
		if i != n.no {
			f, err := Open(s.paths[i])
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("part %d of %d is missing: %w", i+1, n.count, err)
			}
			if err != nil {
				return err
			}
			s.files[i] = f
		}
		own, err := s.files[i].split()
		if err != nil {
			return err
		}
		if own != (split{i, n.count, n.tensors}) {
			return fmt.Errorf("%w: %q says that it is part %d of %d with %d tensors in all, and %q is part %d of %d with %d: they are not of one model",
				ErrFormat, filepath.Base(s.paths[i]), own.no+1, own.count, own.tensors, name, n.no+1, n.count, n.tensors)
		}
	}
	return nil
}

// index collects the metadata and the tensors of the parts.
func (s *Set) index() error {
	for _, kv := range s.files[0].kvs {
		if kv.Key != splitNo && kv.Key != splitCount && kv.Key != splitTensors {
			s.kvs = append(s.kvs, kv)
		}
	}
	for i, f := range s.files {
		for _, t := range f.tensors {
			if j, ok := s.owner[t.Name]; ok {
				return fmt.Errorf("%w: tensor %q is in both %q and %q", ErrFormat, t.Name, filepath.Base(s.paths[j]), filepath.Base(s.paths[i]))
			}
			s.owner[t.Name] = i
		}
		s.tensors = append(s.tensors, f.tensors...)
	}
	if n, _ := s.files[0].split(); len(s.files) > 1 && n.tensors >= 0 && n.tensors != len(s.tensors) {
		return fmt.Errorf("%w: the %d parts hold %d tensors, and each says that there are %d", ErrFormat, len(s.files), len(s.tensors), n.tensors)
	}
	return nil
}

// KVs returns the model's metadata, without what says that a file is a part. The
// caller must not change it.
func (s *Set) KVs() []KV { return s.kvs }

// Get returns the metadata entry of the given key and whether there is one.
func (s *Set) Get(key string) (KV, bool) {
	if strings.HasPrefix(key, "split.") {
		return KV{}, false
	}
	return s.files[0].Get(key)
}

// Tensors returns all tensors, part after part; an Offset is in the tensor's own
// part. The caller must not change them.
func (s *Set) Tensors() []Tensor { return s.tensors }

// Tensor returns the tensor of the given name and whether there is one.
func (s *Set) Tensor(name string) (Tensor, bool) {
	i, ok := s.owner[name]
	if !ok {
		return Tensor{}, false
	}
	return s.files[i].Tensor(name)
}

// Place returns the path of the file that holds a tensor and where in it the tensor's bytes begin.
func (s *Set) Place(t Tensor) (path string, offset int64) {
	i := s.owner[t.Name]
	return s.paths[i], s.files[i].DataOffset() + t.Offset
}

// ReadAt fills p with the bytes of t that begin off bytes into it; see [File.ReadAt].
func (s *Set) ReadAt(t Tensor, p []byte, off int64) error {
	return s.files[s.owner[t.Name]].ReadAt(t, p, off) // of no part: the first says so
}

// Paths returns the paths of the parts in order.
func (s *Set) Paths() []string { return slices.Clone(s.paths) }

// String names the model in messages, by its first part.
func (s *Set) String() string { return s.files[0].String() }

// Close closes the files.
func (s *Set) Close() error {
	var errs []error
	for _, f := range s.files {
		if f != nil { // a part that was not reached
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Part is one planned file of a model.
type Part struct {
	Name   string // of the file, without a folder
	Layout *Layout
}

// PlanParts divides tensors over files whose tensors take at most maxBytes each,
// in their order, as llama.cpp's gguf-split does by size: a part is closed before the tensor that
// would not fit. The metadata are the first part's; every part says which it is.
// Where one file holds all it is STEM.gguf, without a word about parts. The error
// wraps [ErrLayout].
func PlanParts(kvs []KV, tensors []Spec, maxBytes int64, stem string) ([]Part, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("gguf: planning parts: %w: at most %d bytes a file", ErrLayout, maxBytes)
	}
	whole, err := Plan(kvs, tensors) // of all together, for names there twice and sizes that overflow
	if err != nil {
		return nil, err
	}
	groups := splitSpecs(tensors, whole, maxBytes)
	if len(groups) == 1 {
		return []Part{{stem + ".gguf", whole}}, nil
	}
	if len(groups) > math.MaxUint16 || len(tensors) > math.MaxInt32 {
		return nil, fmt.Errorf("gguf: planning parts: %w: %d parts, more than %d; allow larger ones", ErrLayout, len(groups), math.MaxUint16)
	}
	var parts []Part
	for i, group := range groups {
		own := []KV{}
		if i == 0 {
			own = slices.Clone(kvs)
		} else if kv, ok := find(kvs, alignmentKey); ok {
			own = append(own, kv)
		}
		own = append(own, Entry(splitNo, uint16(i)), Entry(splitCount, uint16(len(groups))), Entry(splitTensors, int32(len(tensors))))
		l, err := Plan(own, group)
		if err != nil {
			return nil, err
		}
		parts = append(parts, Part{PartName(stem, i, len(groups)), l})
	}
	return parts, nil
}

func find(kvs []KV, key string) (KV, bool) {
	i := slices.IndexFunc(kvs, func(kv KV) bool { return kv.Key == key })
	if i < 0 {
		return KV{}, false
	}
	return kvs[i], true
}

// splitSpecs groups specs by the rule of PlanParts. A tensor larger than maxBytes
// gets a group of its own.
func splitSpecs(specs []Spec, whole *Layout, maxBytes int64) [][]Spec {
	groups := [][]Spec{nil}
	filled := int64(0)
	for i, spec := range specs {
		size := whole.Tensors[i].Size
		last := len(groups) - 1
		if len(groups[last]) > 0 && size > maxBytes-filled {
			groups, filled = append(groups, nil), 0
			last++
		}
		groups[last] = append(groups[last], spec)
		filled += size
	}
	return groups
}
