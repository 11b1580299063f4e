package gguf

// Planning and writing: what is refused, and that no file is half there.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlanRefuses(t *testing.T) {
	one := []int64{1}
	for _, c := range []struct {
		words   string
		kvs     []KV
		tensors []Spec
	}{
		{"empty key", []KV{Entry("", "v")}, nil},
		{"twice", []KV{Entry("k", "v"), Entry("k", uint32(1))}, nil},
		{"is of type uint32, but its value is a int", []KV{{"k", Uint32, 1}}, nil},
		{"is of type uint32, but its value is a int32", []KV{{"k", Uint32, int32(1)}}, nil},
		{"is of type string, but its value is a []string", []KV{{"k", String, []string{}}}, nil},
		{"is of type uint8, but its value is a <nil>", []KV{{Key: "k"}}, nil},
		{"want uint32", []KV{Entry(alignmentKey, uint64(32))}, nil},
		{"want a power of two", []KV{Entry(alignmentKey, uint32(24))}, nil},
		{"header", []KV{Entry(alignmentKey, uint32(1<<31))}, nil},
		{"64 bytes", nil, []Spec{{strings.Repeat("n", 64), one, F32}}},
		{"twice", nil, []Spec{{"a", one, F32}, {"a", one, F16}}},
		{"unknown tensor type 5", nil, []Spec{{"a", one, 5}}},
		{"whole blocks of 256", nil, []Spec{{"a", []int64{128, 2}, Q4_K}}},
		{"whole blocks of 32", nil, []Spec{{"a", nil, Q8_0}}},
		{"5 dimensions", nil, []Spec{{"a", []int64{1, 1, 1, 1, 1}, F32}}},
		{"negative", nil, []Spec{{"a", []int64{-1}, F32}}},
		{"overflow", nil, []Spec{{"a", []int64{1 << 40, 1 << 40}, F32}}},
		{"larger than any", nil, []Spec{{"a", []int64{1 << 61}, F16}, {"b", []int64{1 << 61}, F16}}},
	} {
		_, err := Plan(c.kvs, c.tensors)
		if !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("error %v, want %q", err, c.words)
		}
	}
}

// TestWriterAllOrNothing checks that no path but a whole Commit leaves a file.
func TestWriterAllOrNothing(t *testing.T) {
	l, err := Plan(nil, []Spec{{"a", []int64{4}, I8}, {"b", []int64{2}, I8}})
	if err != nil {
		t.Fatal(err)
	}
	pad := strings.Repeat("\x00", 32)
	for name, c := range map[string]struct {
		a, b string
		want string // of the file afterwards
	}{
		"whole":     {"abcd", "yz", string(l.Header) + "abcd" + pad[4:] + "yz" + pad[2:]},
		"one short": {"abcd", "y", "before"},
		"too long":  {"abcd", "xyz", "before"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "out.gguf")
			if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			w, err := Create(path, l)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.WriteAt("b", []byte(c.b), 0); (err == nil) != (len(c.b) <= 2) {
				t.Errorf("writing %q: %v", c.b, err)
			}
			if err := w.WriteAt("a", []byte(c.a), 0); err != nil {
				t.Error(err)
			}
			if err := w.WriteAt("c", nil, 0); !errors.Is(err, ErrLayout) {
				t.Errorf("writing what was not planned: %v", err)
			}
			if now, _ := os.ReadFile(path); string(now) != "before" {
				t.Errorf("before Commit the file is %q", now)
			}
			if err := w.Commit(); (err == nil) != (c.want != "before") || err != nil && !errors.Is(err, ErrLayout) {
				t.Errorf("Commit: %v", err)
			}
			if now, _ := os.ReadFile(path); string(now) != c.want {
				t.Errorf("the file is %q, want %q", now, c.want)
			}
			if entries, err := os.ReadDir(dir); len(entries) != 1 {
				t.Errorf("the folder holds %v, %v", entries, err)
			}
		})
	}
}
