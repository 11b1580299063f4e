package wholefile

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"sync"
)

// digest is the hash of a file that is being written in any order: a goroutine follows the end of what is
// there from the first byte on. Pages just written are in memory still, and the hash is done when the file is.
type digest struct {
	file io.ReaderAt
	size int64
	sum  string
	err  error
	done chan struct{}

	mu    sync.Mutex
	grown sync.Cond
	runs  [][2]int64 // stretches [begin, end) that are written, apart and ascending
	gone  bool       // nobody writes any more
}

// newDigest begins to follow a file of which the stretches between sections are there.
func newDigest(file io.ReaderAt, size int64, sections []Section) *digest {
	d := &digest{file: file, size: size, done: make(chan struct{})}
	d.grown.L = &d.mu
	sorted := slices.Clone(sections)
	slices.SortFunc(sorted, func(a, b Section) int { return int(min(1, max(-1, a.Offset-b.Offset))) })
	at := int64(0)
	for _, s := range sorted {
		d.add(at, s.Offset)
		at = max(at, s.Offset+s.Size)
	}
	d.add(at, size)
	go d.run()
	return d
}

// add notes that bytes [begin, end) are written.
func (d *digest) add(begin, end int64) {
	if begin >= end {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i, _ := slices.BinarySearchFunc(d.runs, begin, func(r [2]int64, at int64) int { return int(min(1, max(-1, r[1]-at))) })
	j := i
	for j < len(d.runs) && d.runs[j][0] <= end { // it touches these
		begin, end = min(begin, d.runs[j][0]), max(end, d.runs[j][1])
		j++
	}
	d.runs = slices.Replace(d.runs, i, j, [2]int64{begin, end})
	d.grown.Signal()
}

// next waits for bytes behind at and returns their end, at itself where none will come.
func (d *digest) next(at int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if len(d.runs) > 0 && d.runs[0][0] == 0 && d.runs[0][1] > at {
			return d.runs[0][1]
		}
		if d.gone {
			return at
		}
		d.grown.Wait()
	}
}

func (d *digest) run() {
	defer close(d.done)
	h, buf := sha256.New(), make([]byte, 1<<18)
	for at := int64(0); at < d.size; {
		end := d.next(at)
		if end == at {
			return
		}
		for at < end {
			p := buf[:min(int64(len(buf)), end-at)]
			if _, d.err = d.file.ReadAt(p, at); d.err != nil {
				return
			}
			h.Write(p)
			at += int64(len(p))
		}
	}
	d.sum = hex.EncodeToString(h.Sum(nil))
}

// wait returns once no more is read. Where it is called before all is written, there is no hash.
func (d *digest) wait() error {
	d.mu.Lock()
	d.gone = true
	d.grown.Signal()
	d.mu.Unlock()
	<-d.done
	return d.err
}
