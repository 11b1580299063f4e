package safetensors

// A folder's tensors as one: a single file, or shards and their index.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxIndex limits an index file, as maxHeader limits a header.
const maxIndex = maxHeader

// Set is the tensors of a model folder, in one file or in several shards. Its
// methods may be called from several goroutines at once, except Close.
type Set struct {
	dir     string
	names   []string // plain file names, ascending
	files   []*File  // parallel to names
	tensors []Tensor // file after file, each in the order of its data
	owner   map[string]int
}

// OpenFolder opens the model in folder dir: model.safetensors, or else the shards
// that model.safetensors.index.json lists.
func OpenFolder(dir string) (*Set, error) { return OpenSet(dir, "model") }

// OpenSet opens STEM.safetensors in folder dir, or else the shards that
// STEM.safetensors.index.json lists ("model", "adapter_model"). Every header is
// read and checked; the names in the index must be those in the shards, each in
// the shard that the index gives. Shards are named by plain file names; such a file
// may be a symbolic link, as in Hugging Face's cache. The error wraps [ErrFormat] when a file is at
// fault, and [fs.ErrNotExist] when one is missing.
func OpenSet(dir, stem string) (*Set, error) {
	s := &Set{dir: dir, owner: map[string]int{}}
	single := stem + ".safetensors"
	_, err := os.Stat(filepath.Join(dir, single))
	switch {
	case err == nil:
		err = s.open(single)
	case errors.Is(err, fs.ErrNotExist):
		err = s.openShards(single + ".index.json")
	}
	if err != nil {
		s.Close()
		if errors.Is(err, fs.ErrNotExist) && len(s.names) == 0 {
			return nil, fmt.Errorf("safetensors: opening folder %q: neither %s nor an index of shards is there: %w", dir, single, err)
		}
		return nil, fmt.Errorf("safetensors: opening folder %q: %w", dir, err)
	}
	return s, nil
}

// openShards opens what the index file lists and compares the two.
func (s *Set) openShards(index string) error {
	weightMap, err := readIndex(filepath.Join(s.dir, index))
	if err != nil {
		return err
	}
	shards := slices.Sorted(maps.Values(weightMap))
	for _, shard := range slices.Compact(shards) {
		if err := checkPlainName(shard); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrFormat, index, err)
		}
		if err := s.open(shard); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(weightMap)) {
		shard := weightMap[name]
		i, ok := s.owner[name]
		if !ok {
			return fmt.Errorf("%w: %s lists tensor %q in %s, which does not hold it", ErrFormat, index, name, shard)
		}
		if s.names[i] != shard {
			return fmt.Errorf("%w: %s lists tensor %q in %s, but it is in %s", ErrFormat, index, name, shard, s.names[i])
		}
	}
	for _, t := range s.tensors {
		if _, ok := weightMap[t.Name]; !ok {
			return fmt.Errorf("%w: %s holds tensor %q, which %s does not list", ErrFormat, s.names[s.owner[t.Name]], t.Name, index)
		}
	}
	return nil
}

// open adds one file of the folder to the set.
func (s *Set) open(name string) error {
	f, err := Open(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	i := len(s.files)
	s.files, s.names = append(s.files, f), append(s.names, name)
	for _, t := range f.Tensors() {
		if j, ok := s.owner[t.Name]; ok {
			return fmt.Errorf("%w: tensor %q is in both %s and %s", ErrFormat, t.Name, s.names[j], name)
		}
		s.owner[t.Name] = i
	}
	s.tensors = append(s.tensors, f.Tensors()...)
	return nil
}

// checkPlainName refuses a shard name that is anything but the name of a file in
// the index's own folder, on any operating system.
func checkPlainName(name string) error {
	if name == "" || name == "." || strings.ContainsAny(name, "/\\:\x00") || !filepath.IsLocal(name) {
		return fmt.Errorf("shard %q is not a plain file name; shards must lie next to their index", name)
	}
	return nil
}

// readIndex returns the weight_map of an index file: tensor name → shard name.
// The other members, counts that a reader does not need, are skipped.
func readIndex(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxIndex {
		return nil, fmt.Errorf("%w: index %s has %d bytes, more than the limit of %d", ErrFormat, filepath.Base(path), info.Size(), maxIndex)
	}
	weightMap, err := parseIndex(io.LimitReader(file, maxIndex))
	if err != nil {
		return nil, fmt.Errorf("%w: index %s: %w", ErrFormat, filepath.Base(path), err)
	}
	return weightMap, nil
}

// parseIndex does the work of readIndex.
func parseIndex(r io.Reader) (map[string]string, error) {
	d := jsontext.NewDecoder(r)
	var weightMap map[string]string
	err := eachMember(d, func(name string) error {
		if name != "weight_map" {
			return d.SkipValue()
		}
		weightMap = map[string]string{}
		return eachMember(d, func(tensor string) error {
			shard, err := readString(d)
			if err != nil {
				return fmt.Errorf("tensor %q: %w", tensor, err)
			}
			weightMap[tensor] = shard
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if len(weightMap) == 0 {
		return nil, fmt.Errorf("its weight_map is missing or empty")
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, fmt.Errorf("something follows its object")
	}
	return weightMap, nil
}

// Tensors returns all tensors, shard after shard by file name, each in the order
// of its data; Begin and End are places in the tensor's own shard. The caller must
// not change them.
func (s *Set) Tensors() []Tensor { return s.tensors }

// Tensor returns the tensor of the given name and whether there is one.
func (s *Set) Tensor(name string) (Tensor, bool) {
	i, ok := s.owner[name]
	if !ok {
		return Tensor{}, false
	}
	return s.files[i].Tensor(name)
}

// Place returns the name of the file that holds the named tensor, and where in that
// file its bytes begin; ok is false where there is no such tensor.
func (s *Set) Place(name string) (file string, offset int64, ok bool) {
	i, ok := s.owner[name]
	if !ok {
		return "", 0, false
	}
	t, ok := s.files[i].Tensor(name)
	return s.names[i], s.files[i].data + t.Begin, ok
}

// Files returns the names of the set's files in the folder, ascending.
func (s *Set) Files() []string { return slices.Clone(s.names) }

// Metadata returns the __metadata__ of the files together; where two give the same
// key, the first file's value stands. It is nil when no file has any.
func (s *Set) Metadata() map[string]string {
	var all map[string]string
	for _, f := range slices.Backward(s.files) {
		if all == nil {
			all = f.Metadata()
			continue
		}
		maps.Copy(all, f.metadata)
	}
	return all
}

// ReadAt fills p with the bytes of the named tensor that begin off bytes into it.
// It reads all of p or fails.
func (s *Set) ReadAt(name string, p []byte, off int64) error {
	t, ok := s.Tensor(name)
	if !ok {
		return fmt.Errorf("safetensors: reading %q: %w: no such tensor in folder %q", name, ErrLayout, s.dir)
	}
	return s.files[s.owner[name]].ReadAt(t, p, off)
}

// Close closes the files.
func (s *Set) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
