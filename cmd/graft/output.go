package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/wholefile"
	"github.com/graftml/graft/onnx"
)

// output is a model on its way to its place. It grows in a hidden folder beside it, is proved there,
// and moves when it is whole: a failure leaves what was there before, and nothing else.
type output struct {
	name  string   // its place as the user wrote it
	place string   // the same, absolute; of a model in parts that of the first
	parts []string // names of the further parts beside it
	temp  string   // the hidden folder
	made  []string // parents of place that were missing, innermost first
}

// newOutput checks the place that --out names and makes room beside it. An output must not replace
// what it is made from, so all inputs are to be named; those that do not exist are no concern of it.
func newOutput(c *cli.Command, inputs ...string) (*output, error) {
	return newOutputParts(c, nil, inputs)
}

// newOutputParts is newOutput for a model in several files, by their names.
func newOutputParts(c *cli.Command, parts, inputs []string) (*output, error) {
	if c.String("out") == "" {
		return nil, usagef("--out is empty")
	}
	o := &output{name: filepath.Clean(c.String("out"))}
	if len(parts) > 0 {
		o.name, o.parts = filepath.Join(filepath.Dir(o.name), parts[0]), parts[1:]
	}
	err := o.check(c.Bool("force"), inputs)
	if err == nil {
		err = o.prepare()
	}
	if err != nil {
		o.discard()
		return nil, fmt.Errorf("writing %q: %w", o.name, err)
	}
	return o, nil
}

// check decides whether the places may be taken.
func (o *output) check(force bool, inputs []string) (err error) {
	if o.place, err = filepath.Abs(o.name); err != nil {
		return err
	}
	for _, place := range o.places() {
		if err := checkPlace(place, force, inputs); err != nil {
			return err
		}
	}
	return nil
}

// places are the paths that the output takes.
func (o *output) places() []string {
	places := []string{o.place}
	for _, part := range o.parts {
		places = append(places, filepath.Join(filepath.Dir(o.place), part))
	}
	return places
}

func checkPlace(place string, force bool, inputs []string) error {
	there, err := os.Stat(place)
	for _, in := range inputs {
		if err == nil && inside(there, in) {
			return fmt.Errorf("the input %q lies there; give another name", in)
		}
	}
	if _, err := os.Lstat(place); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if !force {
		return errors.New("it already exists; give another name, or --force to replace it")
	}
	if !replaceable(place) {
		return errors.New("what is there is no model or adapter, and --force replaces nothing else; remove it or give another name")
	}
	return nil
}

// inside reports whether a path is or lies in the file or folder there.
func inside(there os.FileInfo, path string) bool {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	if path, err = filepath.Abs(path); err != nil {
		return false
	}
	for {
		if info, err := os.Stat(path); err == nil && os.SameFile(info, there) {
			return true
		}
		parent := filepath.Dir(path)
		if parent == path {
			return false
		}
		path = parent
	}
}

// replaceable reports whether a path is what a command of ours writes: a mistyped --out must not
// cost anybody a folder of something else.
func replaceable(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return true // a link that leads nowhere
	}
	if !info.IsDir() {
		f, err := os.Open(path)
		if err != nil {
			return false
		}
		defer f.Close()
		var magic [4]byte
		_, err = io.ReadFull(f, magic[:])
		return err == io.EOF || string(magic[:]) == "GGUF" // empty, or a model
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if name := e.Name(); name == "config.json" || name == manifestName {
			return true
		}
	}
	return onlyAdapter(entries) || onnx.IsBundle(path)
}

// onlyAdapter reports whether a folder holds the files of an adapter and no others, such as those of the
// run that trained it.
func onlyAdapter(entries []os.DirEntry) bool {
	files := []string{"adapter_config.json", "adapter_model.safetensors", "adapters.safetensors", "README.md"}
	return !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.IsDir() || !slices.Contains(files, e.Name()) })
}

// prepare makes the hidden folder, and the parents of the output where they are missing.
func (o *output) prepare() (err error) {
	parent := filepath.Dir(o.place)
	for dir := parent; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		o.made = append(o.made, dir)
	}
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return err
	}
	o.temp, err = os.MkdirTemp(parent, "."+filepath.Base(o.place)+".tmp-")
	return err
}

// path is where the model, or its first part, is to be until it is finished.
func (o *output) path() string { return filepath.Join(o.temp, filepath.Base(o.place)) }

// sync begins to make what is written so far durable and tells when it is.
func (o *output) sync() <-chan error {
	done := make(chan error, 1)
	go func() { done <- wholefile.SyncFolder(o.temp) }()
	return done
}

// finish moves the model, and the manifest beside it where there is one, to their places. What is
// there is put away first, and put back where that fails.
func (o *output) finish() error {
	manifest := o.place + "." + manifestName
	var away, moves [][2]string
	for _, place := range o.places() {
		path := filepath.Join(o.temp, filepath.Base(place))
		away = append(away, [2]string{place, path + ".old"})
		moves = append(moves, [2]string{path, place})
	}
	away = append(away, [2]string{manifest, o.path() + ".old." + manifestName})
	moves = append(moves, [2]string{o.path() + "." + manifestName, manifest})
	var done [][2]string
	for i, move := range slices.Concat(away, moves) {
		err := os.Rename(move[0], move[1])
		if errors.Is(err, os.ErrNotExist) && (i < len(away) || i == len(away)+len(moves)-1) {
			continue
		}
		if err != nil {
			for i := len(done) - 1; i >= 0; i-- {
				err = errors.Join(err, os.Rename(done[i][1], done[i][0]))
			}
			return fmt.Errorf("writing %q: %w", o.name, err)
		}
		done = append(done, move)
	}
	o.made = nil
	return nil
}

// discard removes what is not finished.
func (o *output) discard() {
	if o.temp != "" {
		os.RemoveAll(o.temp)
	}
	for _, dir := range o.made {
		os.Remove(dir) // somebody else may have put something there: then it stays
	}
}

// explain lets an error speak of the output by its name and not of files in the hidden folder.
func (o *output) explain(err error) error {
	if err == nil {
		return nil
	}
	hidden := regexp.MustCompile(regexp.QuoteMeta(o.temp) + `[^":]*`)
	return placed{err, hidden.ReplaceAllLiteralString(err.Error(), o.name)}
}

// placed is an error in other words.
type placed struct {
	error
	text string
}

func (p placed) Error() string { return p.text }
func (p placed) Unwrap() error { return p.error }
