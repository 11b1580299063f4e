package wholefile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/wholefile"
)

var errInvalid = errors.New("invalid")

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "notes")
	if err := wholefile.WriteFile(path, []byte("old")); err != nil {
		fmt.Println(err)
		return
	}
	f, err := wholefile.Create(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	fmt.Fprint(f, "new")
	before, _ := os.ReadFile(path)
	if err := f.Commit(); err != nil {
		fmt.Println(err)
		return
	}
	after, _ := os.ReadFile(path)
	fmt.Printf("%s, then %s\n", before, after)
	// Output: old, then new
}

// holds checks that dir has exactly the given files, by name and content.
func holds(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if content, ok := want[e.Name()]; !ok || err != nil || string(data) != content {
			t.Errorf("%q is %q, %v; want %q", e.Name(), data, err, content)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d files, want %d", len(entries), len(want))
	}
}

// TestCloseDiscards: without Commit nothing changes, and Close may be called again.
func TestCloseDiscards(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := wholefile.WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	f, err := wholefile.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("new"), 4); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := f.Commit(); err == nil {
		t.Error("Commit after Close succeeds")
	}
	holds(t, dir, map[string]string{"x": "old"})
}

func TestCommitFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	f, err := wholefile.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err == nil {
		t.Error("a file replaces a folder")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
	if err := wholefile.WriteFile(filepath.Join(dir, "missing", "x"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a missing folder: %v", err)
	}
}

// TestPermissions: a new file is as the process makes files; a replaced one keeps its own.
func TestPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has one permission bit")
	}
	dir := t.TempDir()
	plain, path := filepath.Join(dir, "plain"), filepath.Join(dir, "x")
	if err := os.WriteFile(plain, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(plain)
	if err != nil {
		t.Fatal(err)
	}
	mode := want.Mode()
	for range 2 {
		if err := wholefile.WriteFile(path, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Stat(path); err != nil || got.Mode() != mode {
			t.Errorf("mode %v, want %v; %v", got.Mode(), mode, err)
		}
		mode = 0o622 // more than the usual mask leaves
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlanned(t *testing.T) {
	sections := []wholefile.Section{{Name: "a", Offset: 3, Size: 2}, {Name: "b", Offset: 6, Size: 1}}
	type step struct {
		name, data string
		off        int64
	}
	for name, c := range map[string]struct {
		steps       []step
		write, done string // words of the errors
	}{
		"whole":   {steps: []step{{"b", "b", 0}, {"a", "2", 1}, {"a", "1", 0}}},
		"short":   {steps: []step{{"a", "12", 0}}, done: `0 bytes were written to tensor "b" of 1`},
		"twice":   {steps: []step{{"a", "12", 0}, {"a", "1", 0}, {"b", "b", 0}}, done: `3 bytes were written to tensor "a" of 2`},
		"unknown": {steps: []step{{"c", "", 0}}, write: "no such tensor"},
		"outside": {steps: []step{{"a", "123", 0}}, write: "bytes 0 to 3 of a tensor of 2"},
		"before":  {steps: []step{{"a", "1", -1}}, write: "bytes -1 to 0"},
		"behind":  {steps: []step{{"a", "", 3}}, write: "bytes 3 to 3"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x")
			w, err := wholefile.CreatePlanned(path, []byte("head")[:3], 8, sections, errInvalid)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			is := func(err error, words string) bool {
				return (err == nil) == (words == "") && (err == nil || errors.Is(err, errInvalid) && strings.Contains(err.Error(), words))
			}
			for _, s := range c.steps {
				if err := w.WriteAt(s.name, []byte(s.data), s.off); !is(err, c.write) {
					t.Errorf("writing %v: %v, want %q", s, err, c.write)
				}
			}
			if c.write != "" {
				c.done = "0 bytes were written"
			}
			if err := w.Commit(); !is(err, c.done) {
				t.Errorf("Commit: %v, want %q", err, c.done)
			}
			want := map[string]string{}
			if c.done == "" {
				want["x"] = "hea12\x00b\x00"
			}
			holds(t, dir, want)
		})
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x") + string(filepath.Separator)
	for _, content := range []string{"first", "second"} {
		temp, err := wholefile.TempFolder(path)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(temp) != dir {
			t.Errorf("%q is not beside %q", temp, path)
		}
		if err := wholefile.WriteFile(filepath.Join(temp, "file"), []byte(content)); err != nil {
			t.Fatal(err)
		}
		err = wholefile.RenameFolder(temp, path)
		if content == "first" && err != nil || content == "second" && !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", content, err)
		}
		if err := os.RemoveAll(temp); err != nil { // gone already after the first
			t.Fatal(err)
		}
	}
	holds(t, path, map[string]string{"file": "first"})
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside it: %v, %v", entries, err)
	}
	if _, err := wholefile.TempFolder(filepath.Join(dir, "missing", "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a missing folder: %v", err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := wholefile.WriteFile(path, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	if data, err := wholefile.ReadFile(path, 3, errInvalid); err != nil || string(data) != "abc" {
		t.Errorf("ReadFile: %q, %v", data, err)
	}
	if _, err := wholefile.ReadFile(path, 2, errInvalid); !errors.Is(err, errInvalid) || !strings.Contains(err.Error(), "x has more than 2 bytes") {
		t.Errorf("ReadFile past its limit: %v", err)
	}
	if _, _, err := wholefile.Open(dir, errInvalid); !errors.Is(err, errInvalid) || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Open of a folder: %v", err)
	}
	f, size, err := wholefile.Open(path, errInvalid)
	if err != nil || size != 3 {
		t.Fatalf("Open: size %d, %v", size, err)
	}
	defer f.Close()
	p := make([]byte, 2)
	if err := wholefile.ReadAt(f, p, 1, errInvalid); err != nil || !bytes.Equal(p, []byte("bc")) {
		t.Errorf("ReadAt: %q, %v", p, err)
	}
	if err := wholefile.ReadAt(f, p, 2, errInvalid); !errors.Is(err, errInvalid) || !strings.Contains(err.Error(), "ended at byte 3") {
		t.Errorf("ReadAt past the end: %v", err)
	}
}

// TestUnsynced: a file that its caller makes durable is whole all the same.
func TestUnsynced(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x", "sub/y"} {
		f, err := wholefile.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("all"), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.CommitUnsynced(); err != nil {
			t.Fatal(err)
		}
	}
	if err := wholefile.SyncFolder(dir); err != nil {
		t.Error(err)
	}
	holds(t, filepath.Join(dir, "sub"), map[string]string{"y": "all"})
	if err := wholefile.SyncFolder(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}

// TestSyncFolderMeanwhile: files that are written and renamed while a folder is synced are no error.
func TestSyncFolderMeanwhile(t *testing.T) {
	dir := t.TempDir()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
				err = wholefile.WriteFile(filepath.Join(dir, fmt.Sprint("f", i%7)), []byte("x"))
			}
		}
		done <- err
	}()
	for range 200 {
		if err := wholefile.SyncFolder(dir); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := wholefile.SyncFolder(filepath.Join(dir, "absent")); err == nil {
		t.Error("a folder that is not there was synced")
	}
}
