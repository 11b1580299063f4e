package wholefile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A file's hash is that of its bytes, in whatever order and from however many goroutines they come.
func TestPlannedHash(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		header, at := make([]byte, rng.IntN(50)), int64(0)
		at = int64(len(header)) + rng.Int64N(40)
		var sections []Section
		for i := range 1 + rng.IntN(6) {
			s := Section{Name: fmt.Sprint(i), Offset: at, Size: rng.Int64N(700_000)}
			sections = append(sections, s)
			at = s.Offset + s.Size + rng.Int64N(100)
		}
		rng.Shuffle(len(sections), func(i, j int) { sections[i], sections[j] = sections[j], sections[i] })
		path := filepath.Join(t.TempDir(), "file")
		w, err := CreatePlanned(path, header, at, sections, errors.New("invalid"))
		if err != nil {
			t.Fatal(err)
		}
		w.Hash()
		var writers sync.WaitGroup
		for _, s := range sections {
			data := make([]byte, s.Size)
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			writers.Go(func() {
				for lo := len(data) / 50_000 * 50_000; lo >= 0; lo -= 50_000 { // from its end
					if err := w.WriteAt(s.Name, data[lo:min(lo+50_000, len(data))], int64(lo)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != w.SHA256() {
			t.Fatalf("seed %d: SHA256 = %s, the file's is %x", seed, w.SHA256(), sum)
		}
	}
}

// Giving up a file ends the hashing of it.
func TestPlannedHashDiscarded(t *testing.T) {
	dir := t.TempDir()
	w, err := CreatePlanned(filepath.Join(dir, "file"), []byte("head"), 100, []Section{{"a", 10, 90}}, errors.New("invalid"))
	if err != nil {
		t.Fatal(err)
	}
	w.Hash()
	if err := w.WriteAt("a", make([]byte, 10), 50); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err == nil {
		t.Error("a file that is not full is committed")
	}
	w.Close()
	if w.SHA256() != "" {
		t.Error("a discarded file has a hash")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
