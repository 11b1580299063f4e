package onnx

// The tables of cosines and sines that attention rotates by.

import (
	"strconv"

	"github.com/graftml/graft/internal/model"
)

// maxRopeValues caps the tables of sines and cosines, which every position of the context has a row in: 512 MiB each.
const maxRopeValues = 1 << 27

// angles are the edges that hold a table's cosines and sines.
type angles struct{ cos, sin string }

// ropeTables returns the names of the cosines and sines of a table, a row for each position of the
// context. Where sequences of more than Original positions have rows of their own, behind the others,
// the run's total length decides which are cut out, as the longest sequence of a batch does in
// transformers. Keys in the cache stay as they were rotated: who goes past Original begins anew.
func (b *builder) ropeTables(t *model.RopeTable) (cos, sin string) {
	if a := b.tables[t]; a != nil {
		return a.cos, a.sin
	}
	suffix := ""
	if n := len(b.tables); n > 0 {
		suffix = "_" + strconv.Itoa(n)
	}
	a := &angles{}
	b.tables[t] = a
	pairs, rows := len(t.InvFreq), t.Rows(b.config.Context)
	if rows > maxRopeValues/pairs {
		b.fail("a context of %d positions takes tables of more than %d MiB; set a smaller max_position_embeddings: %w", b.config.Context, maxRopeValues>>18, ErrUnsupported)
		return "", ""
	}
	shape := []int{rows, pairs}
	l := load{rows: rows, cols: pairs, table: t}
	l.name = "cos_cache" + suffix
	a.cos = b.external(shape, l)
	l.name, l.sine = "sin_cache"+suffix, true
	a.sin = b.external(shape, l)
	if rows > b.config.Context {
		b.longAfter = t.Original
		at, total, original := "/model/rotemb_caches"+suffix, totalNode+"/output_0", b.constant(nil, int64(t.Original))
		long := b.emit(node{op: "Greater", name: at + "/Greater", inputs: []string{total, original}}, 0)
		first := b.emit(node{op: "Where", name: at + "/Where", inputs: []string{long, original, b.constant(nil, 0)}}, 0)
		end := b.emit(node{op: "Add", name: at + "/Add", inputs: []string{first, total}}, 0)
		axis := b.constant([]int{1}, 0)
		first = b.emit(node{op: "Unsqueeze", name: at + "/Unsqueeze_first", inputs: []string{first, axis}}, 0)
		end = b.emit(node{op: "Unsqueeze", name: at + "/Unsqueeze_end", inputs: []string{end, axis}}, 0)
		a.cos = b.emit(node{op: "Slice", name: at + "/Slice_cos", inputs: []string{a.cos, first, end, axis}}, pairs)
		a.sin = b.emit(node{op: "Slice", name: at + "/Slice_sin", inputs: []string{a.sin, first, end, axis}}, pairs)
	}
	return a.cos, a.sin
}

// ropeTable writes the cosines or sines of all positions.
func (w *dataWriter) ropeTable(off int64, l *load) error {
	cos, sin := make([]float32, l.rows*l.cols), make([]float32, l.rows*l.cols)
	l.table.CosSin(cos, sin)
	values := cos
	if l.sine {
		values = sin
	}
	w.encode(values)
	w.advance(4 * int64(len(values)))
	_, err := w.file.WriteAt(w.raw, off)
	return err
}
