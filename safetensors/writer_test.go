package safetensors

// Planning and writing: what is refused, and that no file is half there.

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		words    string
		specs    []Spec
		metadata map[string]string
	}{
		{"twice", []Spec{{"a", U8, nil}, {"a", U8, nil}}, nil},
		{"twice", []Spec{{"a", U8, nil}, {"a", F32, nil}}, nil},
		{"reserved", []Spec{{"__metadata__", U8, nil}}, nil},
		{"not UTF-8", []Spec{{"\xff", U8, nil}}, nil},
		{"not UTF-8", nil, map[string]string{"a": "\xff"}},
		{"not UTF-8", nil, map[string]string{"\xff": "a"}},
		{"unknown dtype", []Spec{{"a", "NF4", []int{1}}}, nil},
		{"negative", []Spec{{"a", U8, []int{-1}}}, nil},
		{"overflows", []Spec{{"a", U8, []int{1 << 40, 1 << 40}}}, nil},
		{"larger than any", []Spec{{"a", U64, []int{1 << 56}}, {"b", U64, []int{1 << 56}}, {"c", U64, []int{1 << 56}},
			{"d", U64, []int{1 << 56}}, {"e", U64, []int{1 << 56}}, {"f", U64, []int{1 << 56}}, {"g", U64, []int{1 << 56}},
			{"h", U64, []int{1 << 56}}, {"i", U64, []int{1 << 56}}, {"j", U64, []int{1 << 56}}, {"k", U64, []int{1 << 56}},
			{"l", U64, []int{1 << 56}}, {"m", U64, []int{1 << 56}}, {"n", U64, []int{1 << 56}}, {"o", U64, []int{1 << 56}}, {"p", U64, []int{1 << 56}}}, nil},
		{"whole bytes", []Spec{{"a", F4, []int{3}}}, nil},
		{"limit", nil, map[string]string{"a": strings.Repeat("x", maxHeader)}},
	} {
		_, err := Plan(c.specs, c.metadata)
		if !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("error %v, want %q", err, c.words)
		}
	}
	if _, err := PlanShards(nil, 0, "model", nil); !errors.Is(err, ErrLayout) {
		t.Errorf("no room: %v", err)
	}
}

// TestWriterAllOrNothing checks that no path but a whole Commit leaves a file.
func TestWriterAllOrNothing(t *testing.T) {
	l, err := Plan([]Spec{{"a", U8, []int{4}}, {"b", U8, []int{2}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	type step struct {
		name, data string
		off        int64
		ok         bool
	}
	for name, c := range map[string]struct {
		steps  []step
		commit string // words of its error
	}{
		"whole":     {[]step{{"b", "yz", 0, true}, {"a", "cd", 2, true}, {"a", "ab", 0, true}}, ""},
		"nothing":   {nil, `0 bytes were written to tensor "a" of 4`},
		"one short": {[]step{{"a", "abcd", 0, true}, {"b", "y", 0, true}}, `1 bytes were written to tensor "b" of 2`},
		"twice":     {[]step{{"a", "abcd", 0, true}, {"b", "yz", 0, true}, {"b", "z", 1, true}}, `3 bytes were written to tensor "b" of 2`},
		"outside": {[]step{{"a", "abcde", 0, false}, {"a", "a", 4, false}, {"a", "a", -1, false}, {"c", "", 0, false},
			{"a", "", 5, false}, {"a", "abcd", 0, true}, {"b", "yz", 0, true}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "out.safetensors")
			if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			w, err := Create(path, l)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range c.steps {
				if err := w.WriteAt(s.name, []byte(s.data), s.off); (err == nil) != s.ok || err != nil && !errors.Is(err, ErrLayout) {
					t.Errorf("writing %v: %v", s, err)
				}
			}
			if now, _ := os.ReadFile(path); string(now) != "before" {
				t.Errorf("before Commit the file is %q", now)
			}
			err = w.Commit()
			if closeErr := w.Close(); closeErr != nil {
				t.Errorf("Close after Commit: %v", closeErr)
			}
			want := "before"
			if c.commit == "" {
				want = string(l.Header) + "abcdyz"
			}
			if (err == nil) != (c.commit == "") || err != nil && !strings.Contains(err.Error(), c.commit) {
				t.Errorf("Commit: %v, want %q", err, c.commit)
			}
			if now, _ := os.ReadFile(path); string(now) != want {
				t.Errorf("the file is %q, want %q", now, want)
			}
			onlyFile(t, dir, "out.safetensors")
		})
	}
	if err := Write(filepath.Join(t.TempDir(), "missing", "x"), nil, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writing into a missing folder: %v", err)
	}
}

// onlyFile checks that dir holds name and nothing else.
func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{name}, names); diff != "" {
		t.Errorf("the folder (-want +got):\n%s", diff)
	}
}

// TestWriterConcurrent fills a file from many goroutines, a byte at a time.
func TestWriterConcurrent(t *testing.T) {
	l, err := Plan([]Spec{{"a", U8, []int{50}}, {"b", U8, []int{50}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "out.safetensors")
	w, err := Create(path, l)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var group sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		for off := range int64(50) {
			group.Go(func() {
				if err := w.WriteAt(name, []byte(name), off); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if want := append(bytes.Clone(l.Header), strings.Repeat("a", 50)+strings.Repeat("b", 50)...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is %q, want %q; %v", got, want, err)
	}
}
