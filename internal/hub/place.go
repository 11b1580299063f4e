package hub

// Where files go: the cache that Hugging Face's tools share, or a plain folder.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/graftml/graft/internal/wholefile"
)

// place is where a commit's files go.
type place interface {
	// part is the part file of a content. Its folder exists.
	part(f *File) (string, error)
	// source is a file that may have the content already, or "".
	source(f *File) string
	// missing are those of a content's files that are not there yet. Files in their way are an error.
	missing(ctx context.Context, all []File) ([]File, error)
	// put gives a finished part file the names of files.
	put(ctx context.Context, part string, files []File) error
	// lock keeps other pulls off a content.
	lock(ctx context.Context, f *File) (unlock func(), err error)
	// finish is called when everything is there.
	finish() error
	// path is what readers are to open.
	path() string
}

// repoFolder is a repository's folder in the cache.
func (c *Client) repoFolder(repo string) string {
	return filepath.Join(c.Cache, "models--"+strings.ReplaceAll(repo, "/", "--"))
}

// cachePlace is a snapshot in the cache: blobs/HASH has a content, snapshots/COMMIT/PATH is a link to
// it, and refs/REVISION says which commit a branch had when it was pulled.
type cachePlace struct {
	c        *Client
	repo     string // its folder
	commit   string
	revision string
}

func (p *cachePlace) blob(f *File) string { return filepath.Join(p.repo, "blobs", f.Hash) }

func (p *cachePlace) path() string { return filepath.Join(p.repo, "snapshots", p.commit) }

func (p *cachePlace) link(f *File) string { return filepath.Join(p.path(), filepath.FromSlash(f.Path)) }

func (p *cachePlace) part(f *File) (string, error) {
	path := p.blob(f) + ".incomplete"
	return path, makeFolder(path)
}

func (p *cachePlace) source(*File) string { return "" }

func (p *cachePlace) missing(_ context.Context, all []File) ([]File, error) {
	var out []File
	for _, f := range all {
		if info, err := os.Stat(p.link(&f)); err != nil || info.Size() != f.Size {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	if info, err := os.Stat(p.blob(&out[0])); err == nil && info.Size() == out[0].Size {
		for _, f := range out { // another commit has it
			if err := p.point(&f); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
	return out, nil
}

func (p *cachePlace) put(_ context.Context, part string, files []File) error {
	if err := os.Rename(part, p.blob(&files[0])); err != nil {
		return err
	}
	for _, f := range files {
		if err := p.point(&f); err != nil {
			return err
		}
	}
	return nil
}

// point makes the snapshot's link to a blob, or a copy where the system has no links.
func (p *cachePlace) point(f *File) error {
	link := p.link(f)
	if err := makeFolder(link); err != nil {
		return err
	}
	to, err := filepath.Rel(filepath.Dir(link), p.blob(f))
	if err != nil {
		return err
	}
	temp := filepath.Join(p.repo, "snapshots", fmt.Sprintf(".%s.%s.tmp", p.commit[:8], f.blobName()))
	os.Remove(temp) // a killed run's
	if os.Symlink(to, temp) == nil {
		return os.Rename(temp, link)
	}
	return copyFile(p.blob(f), link)
}

// blobName tells apart the files of a snapshot that are linked at once.
func (f *File) blobName() string { return f.Hash[:16] }

func (p *cachePlace) lock(ctx context.Context, f *File) (func(), error) {
	path := filepath.Join(p.c.Cache, ".locks", filepath.Base(p.repo), f.Hash+".lock")
	if err := makeFolder(path); err != nil {
		return nil, err
	}
	l := flock.New(path)
	_, err := l.TryLockContext(ctx, 200*time.Millisecond)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// Where the file system has no locks two pulls at once may spoil each other's part file; the hash tells.
	return func() { _ = l.Unlock() }, nil
}

// finish says which commit the revision was. Readers without the hub then find the snapshot.
func (p *cachePlace) finish() error {
	if p.revision == p.commit {
		return nil
	}
	path := filepath.Join(p.repo, "refs", filepath.FromSlash(p.revision))
	if old, err := os.ReadFile(path); err == nil && string(old) == p.commit {
		return nil
	}
	if err := makeFolder(path); err != nil {
		return err
	}
	return wholefile.WriteFile(path, []byte(p.commit))
}

// tagCache marks the cache for backup tools, as the Cache Directory Tagging Standard has it.
func tagCache(cache string) {
	path := filepath.Join(cache, "CACHEDIR.TAG")
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		_ = os.WriteFile(path, []byte("Signature: 8a477f597d28d172789f06886806bc55\n# This file marks a folder of caches.\n"), 0o666) // best effort
	}
}

// folderPlace is a plain folder.
type folderPlace struct {
	c     *Client
	dir   string
	repo  string // its folder in the cache
	force bool
}

func (p *folderPlace) path() string { return p.dir }

func (p *folderPlace) target(f *File) string { return filepath.Join(p.dir, filepath.FromSlash(f.Path)) }

func (p *folderPlace) part(f *File) (string, error) {
	path := filepath.Join(p.dir, filepath.FromSlash(partFolder), "download", f.Hash+".incomplete")
	return path, makeFolder(path)
}

func (p *folderPlace) source(f *File) string {
	if p.c.Cache == "" {
		return ""
	}
	return filepath.Join(p.repo, "blobs", f.Hash)
}

func (p *folderPlace) missing(ctx context.Context, all []File) ([]File, error) {
	var out []File
	for _, f := range all {
		same, err := sameContent(ctx, p.target(&f), &f)
		if err != nil {
			return nil, err
		}
		if same {
			continue
		}
		if _, err := os.Lstat(p.target(&f)); err == nil && !p.force {
			return nil, fmt.Errorf("%q is there with other content; give another folder, or --force to replace it", p.target(&f))
		}
		out = append(out, f)
	}
	return out, nil
}

func (p *folderPlace) put(ctx context.Context, part string, files []File) error {
	for i, f := range files {
		if err := makeFolder(p.target(&f)); err != nil {
			return err
		}
		var err error
		if i < len(files)-1 {
			err = copyFile(part, p.target(&f))
		} else {
			err = os.Rename(part, p.target(&f))
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// lock needs no lock for each content: lockFolder holds one for all.
func (p *folderPlace) lock(context.Context, *File) (func(), error) { return func() {}, nil }

// lockFolder keeps other pulls out of the folder.
func (p *folderPlace) lockFolder() (unlock func(), err error) {
	path := filepath.Join(p.dir, filepath.FromSlash(partFolder), "graft.lock")
	if err := makeFolder(path); err != nil {
		return nil, err
	}
	l := flock.New(path)
	got, err := l.TryLock()
	if err == nil && !got {
		return nil, fmt.Errorf("another pull writes into %q; wait for it, or give another folder", p.dir)
	}
	return func() { _ = l.Unlock() }, nil
}

// finish removes what a pull needed, but not what others put there.
func (p *folderPlace) finish() error {
	hidden := filepath.Join(p.dir, filepath.FromSlash(partFolder))
	os.Remove(filepath.Join(hidden, "graft.lock"))
	for _, dir := range []string{filepath.Join(hidden, "download"), hidden, filepath.Dir(hidden)} {
		os.Remove(dir) // fails where something is in it
	}
	return nil
}

// copyFile makes to a copy of from, whole or not at all.
func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := wholefile.Create(to)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Commit()
}
