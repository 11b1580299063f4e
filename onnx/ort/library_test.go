package ort

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindLibrary(t *testing.T) {
	touch := func(dir, name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Chdir(t.TempDir())
	work, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	versions := filepath.Join(work, "versions")
	touch(versions, "libonnxruntime_providers_shared.so")
	touch(versions, "libonnxruntime.so.1.24.1")
	newest := touch(versions, "libonnxruntime.so.1.32.0")
	both := filepath.Join(work, "both")
	touch(both, "libonnxruntime.so.1.32.0")
	plain := touch(both, "libonnxruntime.so")
	quick := touch(filepath.Join(work, "quickstart", "lib"), "libonnxruntime.so.1")
	none := filepath.Join(work, "none")
	touch(none, "README")

	for _, c := range []struct{ explicit, variable, path, want string }{
		{newest, none, none, newest},
		{versions, "", "", newest},
		{both, "", "", plain},
		{"", versions, both, newest},
		{"", "", both, quick},
	} {
		t.Setenv(LibraryVariable, c.variable)
		t.Setenv("LD_LIBRARY_PATH", c.path)
		if got, err := FindLibrary(c.explicit); got != c.want || err != nil {
			t.Errorf("%+v: %q, error %v", c, got, err)
		}
	}
	for _, c := range []struct{ explicit, variable, want string }{
		{filepath.Join(work, "absent.so"), both, "--ort-lib"},
		{"", none, LibraryVariable},
	} {
		t.Setenv(LibraryVariable, c.variable)
		if _, err := FindLibrary(c.explicit); !errors.Is(err, ErrLibrary) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "pip download") {
			t.Errorf("%+v: error %v", c, err)
		}
	}
	if err := os.RemoveAll("quickstart"); err != nil {
		t.Fatal(err)
	}
	t.Setenv(LibraryVariable, "")
	t.Setenv("LD_LIBRARY_PATH", both)
	if got, err := FindLibrary(""); got != plain || err != nil {
		t.Errorf("from the loader's path: %q, error %v", got, err)
	}
}

// TestNotALibrary must not stop the process from loading a good one later.
func TestNotALibrary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libonnxruntime.so")
	if err := os.WriteFile(path, []byte("not a library"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Version(path); !errors.Is(err, ErrLibrary) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
}
