package wholefile

import (
	"hash"
	"io"
	"slices"
	"sync"
)

// follower reads a planned file in order while it is being written, as far as every section before is
// complete, so that a hash costs no second pass when the file is done.
type follower struct {
	order   []int // sections by their place in the file
	grown   *sync.Cond
	ends    int64 // everything before is there
	next    int   // the first of order that is not complete
	stopped bool
	done    chan error
}

// Hash has h written the file's bytes while they come, from the first to the last. It is to be called
// before anything is written; h is complete once Commit has returned.
func (w *Planned) Hash(h hash.Hash) {
	f := &follower{grown: sync.NewCond(new(sync.Mutex)), done: make(chan error, 1)}
	for i := range w.sections {
		f.order = append(f.order, i)
	}
	slices.SortStableFunc(f.order, func(a, b int) int { return int(min(1, max(-1, w.sections[a].Offset-w.sections[b].Offset))) })
	w.follow = f
	f.advance(w)
	go func() { f.done <- f.run(w, h) }()
}

// advance moves the end past sections that have become complete.
func (f *follower) advance(w *Planned) {
	f.grown.L.Lock()
	defer f.grown.L.Unlock()
	for f.next < len(f.order) && w.written[f.order[f.next]].Load() == w.sections[f.order[f.next]].Size {
		f.next++
	}
	if f.next == len(f.order) {
		f.ends = w.size
	} else {
		f.ends = w.sections[f.order[f.next]].Offset
	}
	f.grown.Broadcast()
}

func (f *follower) run(w *Planned, h hash.Hash) error {
	buf := make([]byte, 1<<20)
	for at := int64(0); at < w.size; {
		f.grown.L.Lock()
		for f.ends <= at && !f.stopped {
			f.grown.Wait()
		}
		end, stopped := f.ends, f.stopped
		f.grown.L.Unlock()
		if end <= at && stopped {
			return io.ErrUnexpectedEOF
		}
		n := min(int64(len(buf)), end-at)
		if _, err := w.file.temp.ReadAt(buf[:n], at); err != nil {
			return err
		}
		h.Write(buf[:n])
		at += n
	}
	return nil
}

// finish waits until all that is complete has been read.
func (f *follower) finish() error {
	f.grown.L.Lock()
	f.stopped = true
	f.grown.Broadcast()
	f.grown.L.Unlock()
	err := <-f.done
	f.done <- err // for a second caller
	return err
}
