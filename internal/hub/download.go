package hub

// The bytes of one content, from wherever they come into a part file, and on.

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// content is a file's bytes, which may be wanted under several paths.
type content struct {
	files []File // all with one size and hash
}

func (c *content) first() *File { return &c.files[0] }

// newHash starts the hash that a file is known by.
func newHash(f *File) hash.Hash {
	if f.LFS() {
		return sha256.New()
	}
	h := sha1.New() // git's, which names content and guards nothing against forgers that the hub lets in
	fmt.Fprintf(h, "blob %d\x00", f.Size)
	return h
}

// download fills one part file.
type download struct {
	c      *Client
	repo   string
	commit string
	file   *File
	part   string
	moved  func(bytes int64) // progress, less than 0 when bytes are thrown away
	loaded int64             // bytes that came from the hub

	out  *os.File
	hash hash.Hash
	at   int64 // bytes in the part file, all of them in hash
}

// run fills the part file until it holds the whole content, proven by its hash. source is a file that
// may have the content already, or "".
func (d *download) run(ctx context.Context, source string) (err error) {
	if d.out, err = os.OpenFile(d.part, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return err
	}
	defer func() {
		// What the file holds, not d.at: a run that ends while it reads an earlier run's part has counted less.
		info, statErr := d.out.Stat()
		if closeErr := d.out.Close(); err == nil {
			err = closeErr
		}
		switch {
		case err == nil || statErr != nil:
		case info.Size() == 0:
			os.Remove(d.part)
		default:
			err = fmt.Errorf("%w; %d of %d bytes stay in %s, and the same command goes on from there", err, info.Size(), d.file.Size, d.part)
		}
	}()
	resumed, err := d.resume(ctx)
	if err != nil {
		return err
	}
	if !resumed && source != "" {
		if err := d.copyFrom(ctx, source); err != nil {
			return err
		}
		resumed = d.at > 0
	}
	for {
		if err := d.fetch(ctx); err != nil {
			return err
		}
		sum := hex.EncodeToString(d.hash.Sum(nil))
		if sum == d.file.Hash {
			return d.out.Sync()
		}
		if err := d.restart(); err != nil {
			return err
		}
		if !resumed {
			return fmt.Errorf("%w: its hash is %s, and %s in the hub's listing; what came was thrown away", ErrFormat, sum, d.file.Hash)
		}
		resumed = false
		d.c.notice("%s: the part that was there does not belong to it; it is downloaded whole", d.file.Path)
	}
}

// resume takes over what an earlier run left in the part file.
func (d *download) resume(ctx context.Context) (bool, error) {
	d.hash = newHash(d.file)
	info, err := d.out.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a regular file", d.part)
	}
	if info.Size() == 0 || info.Size() > d.file.Size {
		return false, d.out.Truncate(0)
	}
	err = d.read(ctx, d.out, d.hash)
	return true, err
}

// read takes all of r, and counts it.
func (d *download) read(ctx context.Context, r io.Reader, to io.Writer) error {
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		d.at += int64(n)
		d.moved(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyFrom begins the part file with what source has.
func (d *download) copyFrom(ctx context.Context, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return nil // then it comes from the hub
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() != d.file.Size {
		return nil
	}
	return d.read(ctx, io.LimitReader(f, d.file.Size), io.MultiWriter(d.out, d.hash))
}

// restart empties the part file.
func (d *download) restart() error {
	d.moved(-d.at)
	d.at, d.hash = 0, newHash(d.file)
	if _, err := d.out.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return d.out.Truncate(0)
}

// fetch asks the hub for the bytes that are still missing.
func (d *download) fetch(ctx context.Context) error {
	if d.at == d.file.Size {
		return nil
	}
	if d.c.Offline {
		return fmt.Errorf("%w; unset HF_HUB_OFFLINE to download it", ErrOffline)
	}
	return d.c.retry(ctx, d.file.Path, func() (further bool, err error) {
		before := d.at
		err = d.try(ctx)
		return d.at > before, err
	})
}

// try makes one request for the missing bytes.
func (d *download) try(ctx context.Context) error {
	byteRange := ""
	if d.at > 0 {
		byteRange = fmt.Sprintf("bytes=%d-", d.at)
	}
	resp, cancel, err := d.c.get(ctx, d.c.fileURL(d.repo, d.commit, d.file.Path), byteRange, false)
	if errors.Is(err, errRange) {
		if err := d.restart(); err != nil {
			return err
		}
		return &passing{err: fmt.Errorf("%w: it does not know the range that is missing; beginning anew", ErrFormat)}
	}
	if err != nil {
		return err
	}
	defer cancel()
	if err := d.describes(resp.Header); err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK && d.at > 0 {
		d.c.notice("%s: the server sends no ranges; it is downloaded whole", d.file.Path)
		if err := d.restart(); err != nil {
			return err
		}
	}
	if resp.StatusCode == http.StatusPartialContent {
		first, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || first != d.at || size >= 0 && size != d.file.Size {
			return fmt.Errorf("%w: asked for the bytes from %d on of %d, it sends %q", ErrFormat, d.at, d.file.Size, resp.Header.Get("Content-Range"))
		}
	}
	missing := d.file.Size - d.at
	if resp.ContentLength >= 0 && resp.ContentLength != missing {
		return fmt.Errorf("%w: it sends %d bytes where its listing leaves %d", ErrFormat, resp.ContentLength, missing)
	}
	before := d.at
	failed := d.write(ctx, io.LimitReader(resp.Body, missing))
	d.loaded += d.at - before
	switch {
	case failed != nil:
		return failed
	case d.at < d.file.Size:
		return &passing{err: fmt.Errorf("%w: it ended after %d of %d bytes", ErrFormat, d.at, d.file.Size)}
	}
	if n, _ := resp.Body.Read(make([]byte, 1)); n > 0 {
		return fmt.Errorf("%w: it sends more than the %d bytes of its listing", ErrFormat, d.file.Size)
	}
	return nil
}

// write appends what a connection brings. A failure to read is a passing one.
func (d *download) write(ctx context.Context, body io.Reader) error {
	var broke error
	err := d.read(ctx, readerFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		if err != nil && err != io.EOF {
			broke = broken(err)
			err = broke
		}
		return n, err
	}), io.MultiWriter(d.out, d.hash))
	if broke != nil {
		return broke
	}
	return err
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// describes compares what comes with an answer to what the listing said.
func (d *download) describes(h http.Header) error {
	if v := h.Get("X-Repo-Commit"); v != "" && v != d.commit {
		return fmt.Errorf("%w: it is of commit %q, not %s", ErrFormat, clip(v), d.commit)
	}
	// Of an ETag that is not a hash nothing follows. Another server's describes what that server stores.
	etag := strings.Trim(strings.TrimPrefix(h.Get("X-Linked-Etag"), "W/"), `"`)
	if hexHash.MatchString(etag) && etag != d.file.Hash {
		return fmt.Errorf("%w: its hash is to be %s, and %s in the hub's listing", ErrFormat, etag, d.file.Hash)
	}
	if v := h.Get("X-Linked-Size"); v != "" && v != strconv.FormatInt(d.file.Size, 10) {
		return fmt.Errorf("%w: it is to have %q bytes, and %d in the hub's listing", ErrFormat, clip(v), d.file.Size)
	}
	if v := h.Get("Content-Encoding"); v != "" && v != "identity" {
		return fmt.Errorf("%w: it comes as %q, which was not asked for", ErrFormat, clip(v))
	}
	return nil
}

// contentRange reads "bytes 5-9/10"; size is -1 for a *.
func contentRange(value string) (first, size int64, ok bool) {
	value, ok = strings.CutPrefix(value, "bytes ")
	span, total, ok2 := strings.Cut(value, "/")
	from, _, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, false
	}
	first, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	if total == "*" {
		return first, -1, true
	}
	size, err = strconv.ParseInt(total, 10, 64)
	return first, size, err == nil
}

// sameContent reports whether the file at path has f's size and hash. A file that is not there has not.
func sameContent(ctx context.Context, path string, f *File) (bool, error) {
	r, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() || info.Size() != f.Size {
		return false, nil
	}
	d := download{hash: newHash(f), moved: func(int64) {}}
	if err := d.read(ctx, r, d.hash); err != nil {
		return false, err
	}
	return hex.EncodeToString(d.hash.Sum(nil)) == f.Hash, nil
}

// makeFolder makes the folder of a file.
func makeFolder(path string) error { return os.MkdirAll(filepath.Dir(path), 0o777) }
