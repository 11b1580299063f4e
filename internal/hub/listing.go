package hub

// The list of a commit's files that the cache keeps, so that it is known without the hub what a
// snapshot is to have. The form is huggingface_hub's: trees/COMMIT.json.

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/internal/wholefile"
)

// maxListing bounds a list in the cache, in bytes.
const maxListing = 64 << 20

type treeFile struct {
	Version int                  `json:"format_version"`
	Files   map[string]treeEntry `json:"files"`
}

type treeEntry struct {
	Size    int64  `json:"size"`
	Blob    string `json:"blob_id"`
	LFS     string `json:"lfs_sha256,omitempty"`
	LFSSize *int64 `json:"lfs_size,omitempty"`
	Xet     string `json:"xet_hash,omitempty"`
}

func treePath(repo, commit string) string { return filepath.Join(repo, "trees", commit+".json") }

// readTree returns the files of a commit as the cache has them listed, nil where it has not.
func readTree(repo, commit string) []File {
	data, err := wholefile.ReadFile(treePath(repo, commit), maxListing, ErrFormat)
	if err != nil {
		return nil
	}
	files, err := parseTree(data)
	if err != nil {
		return nil // another version's, or damaged: the hub is asked
	}
	return files
}

func parseTree(data []byte) ([]File, error) {
	var tree treeFile
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFormat, err)
	}
	if tree.Version != 1 || len(tree.Files) > maxFiles {
		return nil, fmt.Errorf("%w: a list of version %d with %d files", ErrFormat, tree.Version, len(tree.Files))
	}
	files := make([]File, 0, len(tree.Files))
	for name, e := range tree.Files {
		f := File{Path: name, Size: e.Size, Hash: e.Blob, blob: e.Blob, listed: e.Size, xet: e.Xet}
		if e.LFS != "" && e.LFSSize != nil {
			f.Size, f.Hash = *e.LFSSize, e.LFS
		}
		if !hexHash.MatchString(f.Hash) || f.LFS() != (e.LFS != "") || f.Size < 0 || f.Size > maxSize {
			return nil, fmt.Errorf("%w: the entry of %q", ErrFormat, name)
		}
		files = append(files, f)
	}
	return sortFiles(files)
}

// writeTree lists the files of a commit in the cache.
func writeTree(repo, commit string, files []File) error {
	data, err := formatTree(files)
	if err != nil {
		return err
	}
	path := treePath(repo, commit)
	if err := makeFolder(path); err != nil {
		return err
	}
	return wholefile.WriteFile(path, data)
}

func formatTree(files []File) ([]byte, error) {
	tree := treeFile{Version: 1, Files: map[string]treeEntry{}}
	for _, f := range files {
		e := treeEntry{Size: f.listed, Blob: f.blob, Xet: f.xet}
		if f.LFS() {
			e.LFS, e.LFSSize = f.Hash, &f.Size
		}
		tree.Files[f.Path] = e
	}
	return json.Marshal(tree, jsontext.WithIndent(" "), json.Deterministic(true))
}

// snapshotFiles lists the files that a snapshot has, by the names of the blobs its links lead to: for
// a cache whose writer kept no lists.
func snapshotFiles(dir string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		to, err := os.Readlink(path)
		hash := filepath.Base(to)
		if err != nil || !hexHash.MatchString(hash) || !info.Mode().IsRegular() {
			return fmt.Errorf("%w: %q is no link to a blob", ErrOffline, path)
		}
		files = append(files, File{Path: filepath.ToSlash(name), Size: info.Size(), Hash: hash, blob: hash, listed: info.Size()})
		return nil
	})
	return files, err
}
