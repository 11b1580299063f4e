package ort

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// ErrLibrary is wrapped by errors about ONNX Runtime itself: not found, not loadable, too old.
var ErrLibrary = errors.New("ONNX Runtime is not available")

// LibraryVariable is the environment variable that names the library or its folder.
const LibraryVariable = "GRAFT_ORT_LIB"

// howTo is what to do where there is none.
const howTo = "get it with `pip download --no-deps onnxruntime==1.32.0 && unzip -j onnxruntime-1.32.0-*.whl 'onnxruntime/capi/libonnxruntime.so*' -d quickstart/lib`, or name it with --ort-lib or " + LibraryVariable

// FindLibrary returns the path of libonnxruntime. The first of these that is given counts: explicit,
// a file or a folder that has it; the variable GRAFT_ORT_LIB, the same; the quickstart's folder
// quickstart/lib; the folders of LD_LIBRARY_PATH; the system's. The error wraps [ErrLibrary] and
// says how to get it.
func FindLibrary(explicit string) (string, error) {
	for _, given := range []struct{ path, by string }{{explicit, "--ort-lib"}, {os.Getenv(LibraryVariable), LibraryVariable}} {
		if given.path == "" {
			continue
		}
		path, err := libraryAt(given.path)
		if err != nil {
			return "", fmt.Errorf("ort: looking for the library that %s names: %w: %w; %s", given.by, ErrLibrary, err, howTo)
		}
		return path, nil
	}
	folders := append([]string{filepath.Join("quickstart", "lib")}, searchFolders()...)
	for _, dir := range folders {
		if path, err := libraryAt(dir); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("ort: looking for libonnxruntime: %w: it is in none of %s; %s", ErrLibrary, strings.Join(folders, ", "), howTo)
}

// searchFolders are the folders of the loader's path and those where systems keep libraries.
func searchFolders() []string {
	variable := "LD_LIBRARY_PATH"
	if runtime.GOOS == "darwin" {
		variable = "DYLD_LIBRARY_PATH"
	}
	var dirs []string
	for _, d := range filepath.SplitList(os.Getenv(variable)) {
		if d != "" {
			dirs = append(dirs, d)
		}
	}
	dirs = append(dirs, "/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64", "/opt/onnxruntime/lib", "/opt/homebrew/lib")
	if triple := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]; triple != "" && runtime.GOOS == "linux" {
		dirs = append(dirs, "/usr/lib/"+triple)
	}
	return dirs
}

// libraryAt returns the library at a path: the file itself, or the one in a folder that the
// loader would take, the unversioned name first and then the highest version.
func libraryAt(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return filepath.Abs(path)
	}
	var found []string
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if n := e.Name(); n == "libonnxruntime.so" || strings.HasPrefix(n, "libonnxruntime.so.") ||
			strings.HasPrefix(n, "libonnxruntime.") && strings.HasSuffix(n, ".dylib") || n == "onnxruntime.dll" {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%q holds no libonnxruntime: %w", path, fs.ErrNotExist)
	}
	slices.SortFunc(found, func(a, b string) int {
		if len(a) != len(b) && min(len(a), len(b)) == len("libonnxruntime.so") {
			return len(a) - len(b)
		}
		return strings.Compare(b, a)
	})
	return filepath.Abs(filepath.Join(path, found[0]))
}
