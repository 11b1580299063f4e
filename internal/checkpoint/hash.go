package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/model"
)

// hashedRows is how many rows of a matrix a hash takes.
const hashedRows = 16

// Hash identifies a model by what it computes with: the SHA-256 of names, shapes and evenly spaced rows
// of its matrices as float32, the first and the last among them. A model that was converted without loss
// has the same hash, with any tokenizer or template; one that was quantized or trained has another. All
// of a model is not read, so a change to a few rows can go unseen: this is a warning's matter and no
// seal. Of a model of 7B it reads some 100 MB. What [Rounded] returns has the hash of what it rounds.
func Hash(src Source) (string, error) {
	if c, ok := src.(*Checkpoint); ok {
		src = c.Source
	}
	if r, ok := src.(*rounded); ok {
		src = r.Source
	}
	params, err := model.Inventory(src.Config())
	if err != nil {
		return "", fmt.Errorf("checkpoint: identifying the model: %w", err)
	}
	h := sha256.New()
	var row []float32
	var raw []byte
	for _, p := range params {
		if len(p.Shape) != 2 {
			continue // gains differ in the last bit between forms, where one of them adds 1
		}
		fmt.Fprintf(h, "%s %v\n", p.Name, p.Shape)
		if cap(row) < p.Shape[1] {
			row, raw = make([]float32, p.Shape[1]), make([]byte, 4*p.Shape[1])
		}
		n := min(hashedRows, p.Shape[0])
		for i := range n {
			at := 0
			if n > 1 {
				at = i * (p.Shape[0] - 1) / (n - 1)
			}
			if err := src.Rows(p.Name, at, at+1, row[:p.Shape[1]]); err != nil {
				return "", fmt.Errorf("checkpoint: identifying the model: %w", err)
			}
			for j, v := range row[:p.Shape[1]] {
				binary.LittleEndian.PutUint32(raw[4*j:], math.Float32bits(v))
			}
			h.Write(raw[:4*p.Shape[1]])
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// SameBase returns a sentence where an adapter, read from the given path, was trained on other weights
// than the model's, and "" where it was not, or where that is not known.
func (c *Checkpoint) SameBase(path string, a *adapters.Adapter) (string, error) {
	weight, distance, err := c.otherCopy(path)
	if err != nil {
		return "", err
	}
	if weight != "" {
		return fmt.Sprintf("adapter %q holds a copy of the %q it was trained beside, and that of %q is another (they differ by %.2g of its size): PEFT would put the copy there, this does not; use the model that it was trained on",
			path, weight, c.Path, distance), nil
	}
	trained := a.Config.BaseHash
	if trained == "" {
		return "", nil
	}
	own, err := Hash(c)
	if err != nil || own == trained {
		return "", err
	}
	was := "another model"
	if a.Config.BaseModel != "" {
		was = fmt.Sprintf("%q", a.Config.BaseModel)
	}
	return fmt.Sprintf("adapter %q was trained on other weights, those of %s (%.12s…), than those of %q (%.12s…); it may do less well on these",
		path, was, trained, c.Path, own), nil
}
