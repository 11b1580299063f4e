package hub

// A pull, from the name of a repository to its files.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Pull says what to download, and where to.
type Pull struct {
	Repo     string // OWNER/NAME
	Revision string // a branch, a tag or a commit; "" is main

	// Include and Exclude are patterns of paths, see Selected.
	Include, Exclude []string

	Out   string // a folder for plain files; "" is the cache
	Force bool   // files in Out with other content are replaced

	// Progress, where not nil, is told how many bytes are there, of how many.
	Progress func(done, total int64)
}

// Pulled is what a pull brought.
type Pulled struct {
	Path       string // the folder with the files
	Commit     string // 40 hex digits
	Files      []File // all that were wanted, sorted by path
	Bytes      int64  // of all of them
	Downloaded int64  // bytes that came from the hub
}

// workers is how many files come at once.
const workers = 8

// List tells what a pull brings, without bringing it: Path and Downloaded of the answer are empty.
func (c *Client) List(ctx context.Context, p Pull) (*Pulled, error) {
	listed, _, err := c.plan(ctx, &p)
	return listed, p.wrap(c, err)
}

// Pull downloads what p wants of a repository and is not there yet. Files appear whole: one that
// breaks off stays a part file, which the next pull of it takes over.
func (c *Client) Pull(ctx context.Context, p Pull) (*Pulled, error) {
	pulled, all, err := c.plan(ctx, &p)
	if err == nil {
		err = c.pull(ctx, &p, pulled, all)
	}
	if err != nil {
		return nil, p.wrap(c, err)
	}
	return pulled, nil
}

func (p *Pull) wrap(c *Client, err error) error {
	if err == nil {
		return nil
	}
	from := c.Endpoint
	if c.Offline {
		from = c.Cache
	}
	return fmt.Errorf("hub: pulling %q from %s: %w", p.Repo, from, err)
}

// plan finds out what is wanted, and all that the commit has.
func (c *Client) plan(ctx context.Context, p *Pull) (wanted *Pulled, all []File, err error) {
	if p.Revision == "" {
		p.Revision = "main"
	}
	if err := checkRepo(p.Repo); err != nil {
		return nil, nil, err
	}
	if err := checkPath(p.Revision); err != nil { // it is a path among the cache's references
		return nil, nil, fmt.Errorf("%q is no revision's name: %w", p.Revision, err)
	}
	wanted = &Pulled{}
	if wanted.Commit, all, err = c.files(ctx, p); err != nil {
		return nil, nil, err
	}
	for _, f := range all {
		if !Selected(f.Path, p.Include, p.Exclude) {
			continue
		}
		if err := checkPath(f.Path); err != nil {
			return nil, nil, fmt.Errorf("%w: the repository has a file named %q, which is not put on this disk: %v; --exclude leaves it out", ErrFormat, f.Path, err)
		}
		wanted.Files = append(wanted.Files, f)
		wanted.Bytes += f.Size
	}
	if len(wanted.Files) == 0 {
		return nil, nil, fmt.Errorf("%w: none of its %d files is wanted; see --include and --exclude", ErrNotFound, len(all))
	}
	return wanted, all, nil
}

// pull brings what is wanted to its place.
func (c *Client) pull(ctx context.Context, p *Pull, wanted *Pulled, all []File) (err error) {
	repo := c.repoFolder(p.Repo)
	cache := &cachePlace{c: c, repo: repo, commit: wanted.Commit, revision: p.Revision}
	var to place = cache
	switch {
	case p.Out != "":
		folder := &folderPlace{c: c, dir: filepath.Clean(p.Out), repo: repo, force: p.Force}
		unlock, err := folder.lockFolder()
		if err != nil {
			return err
		}
		defer unlock()
		to = folder
	case c.Offline:
		wanted.Path = cache.path()
		return complete(wanted.Path, wanted.Files)
	default:
		if err := writeTree(repo, wanted.Commit, all); err != nil {
			return err
		}
		tagCache(c.Cache)
	}
	wanted.Path = to.path()
	if wanted.Downloaded, err = c.fill(ctx, p, wanted, to); err != nil {
		return err
	}
	return to.finish()
}

// files finds the commit of a revision and all its files.
func (c *Client) files(ctx context.Context, p *Pull) (commit string, files []File, err error) {
	repo := c.repoFolder(p.Repo)
	if c.Offline {
		return c.cachedFiles(repo, p.Revision)
	}
	if commit, err = c.commit(ctx, p.Repo, p.Revision); err != nil {
		return "", nil, err
	}
	if files = readTree(repo, commit); files != nil {
		return commit, files, nil
	}
	files, err = c.list(ctx, p.Repo, commit)
	return commit, files, err
}

// cachedFiles is files without the hub.
func (c *Client) cachedFiles(repo, revision string) (commit string, files []File, err error) {
	commit = revision
	if !commitHash.MatchString(revision) {
		data, err := os.ReadFile(filepath.Join(repo, "refs", filepath.FromSlash(revision)))
		if err != nil || !commitHash.Match(data) {
			return "", nil, fmt.Errorf("%w: revision %q was never pulled into %s; unset HF_HUB_OFFLINE to ask the hub", ErrOffline, revision, c.Cache)
		}
		commit = string(data)
	}
	if files = readTree(repo, commit); files != nil {
		return commit, files, nil
	}
	if files, err = snapshotFiles(filepath.Join(repo, "snapshots", commit)); errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: commit %s was never pulled into %s; unset HF_HUB_OFFLINE to ask the hub", ErrOffline, commit, c.Cache)
	}
	return commit, files, err
}

// complete reports which files a snapshot lacks.
func complete(dir string, files []File) error {
	var lacking []string
	for _, f := range files {
		if info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(f.Path))); err != nil || info.Size() != f.Size {
			lacking = append(lacking, f.Path)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of %d files were never pulled (%s); unset HF_HUB_OFFLINE to ask the hub, or leave them out with --include",
		ErrOffline, len(lacking), len(files), strings.Join(lacking[:min(3, len(lacking))], ", "))
}

// fill brings all files of a pull to their place. The first failure ends it: what is under way stays
// in part files.
func (c *Client) fill(ctx context.Context, p *Pull, wanted *Pulled, to place) (loaded int64, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var done, fromHub atomic.Int64
	moved := func(n int64) {
		now := done.Add(n)
		if p.Progress != nil {
			p.Progress(now, wanted.Bytes)
		}
	}
	jobs := make(chan content)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for job := range jobs {
				n, err := c.bring(ctx, p.Repo, wanted.Commit, job, to, moved)
				fromHub.Add(n)
				if err != nil && ctx.Err() == nil {
					stop(fmt.Errorf("%q: %w", job.first().Path, err))
				}
			}
		})
	}
	for _, job := range contents(wanted.Files) {
		if ctx.Err() != nil {
			break
		}
		jobs <- job
	}
	close(jobs)
	wait.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%w: %d of %d bytes are there, and the same command goes on from there", err, done.Load(), wanted.Bytes)
		}
	}
	return fromHub.Load(), err
}

// contents groups files by content, the largest first, for they take longest.
func contents(files []File) []content {
	var out []content
	at := map[string]int{}
	for _, f := range files {
		i, known := at[f.Hash]
		if !known {
			i = len(out)
			at[f.Hash] = i
			out = append(out, content{})
		}
		out[i].files = append(out[i].files, f)
	}
	slices.SortStableFunc(out, func(a, b content) int { return int(min(1, max(-1, b.first().Size-a.first().Size))) })
	return out
}

// bring puts one content where it is wanted, and returns how many bytes the hub sent.
func (c *Client) bring(ctx context.Context, repo, commit string, job content, to place, moved func(int64)) (loaded int64, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	unlock, err := to.lock(ctx, job.first())
	if err != nil {
		return 0, err
	}
	defer unlock()
	all := job.files
	missing, err := to.missing(ctx, all)
	if err != nil {
		return 0, err
	}
	moved(int64(len(all)-max(1, len(missing))) * job.first().Size) // all but the one that is downloaded
	if len(missing) == 0 {
		moved(job.first().Size)
		return 0, nil
	}
	part, err := to.part(&missing[0])
	if err != nil {
		return 0, err
	}
	d := &download{c: c, repo: repo, commit: commit, file: &missing[0], part: part, moved: moved}
	if err := d.run(ctx, to.source(&missing[0])); err != nil {
		return d.loaded, err
	}
	if err := to.put(ctx, part, missing); err != nil {
		return d.loaded, err
	}
	moved(int64(len(missing)-1) * job.first().Size)
	return d.loaded, nil
}
