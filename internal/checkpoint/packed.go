package checkpoint

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// packed is a weight (rows, cols) whose codes of 2, 4 or 8 bits lie in 32-bit words: the value of a code is
// (code − zero)·scale, with a scale and a zero for each group of columns of each row, rounded to the
// scales' type, in which every runtime computes it. Rows are read where they lie, a few at a time.
//
// Three layouts are known, with pack = 32/bits:
//
//	GPTQ (Frantar et al. 2022)   qweight (cols/pack, rows)  qzeros (groups, rows/pack)     scales (groups, rows)
//	AWQ (Lin et al. 2023), gemm  qweight (cols, rows/8)     qzeros (groups, rows/8)        scales (groups, rows)
//	compressed-tensors           weight_packed (rows, cols/pack)  weight_zero_point (rows/pack, groups)  weight_scale (rows, groups)
type packed struct {
	layout       packedLayout
	bits         int
	rows, cols   int
	groups       int
	group        []int32            // of each column
	codes, scale safetensors.Tensor // as the layout has them
	zero         safetensors.Tensor // its Name is empty where all zeros are half of the range
	scaleCodec   quantize.Encoder
	first        bool // GPTQ's first form, whose zeros are stored less one
}

type packedLayout int

const (
	layoutGPTQ packedLayout = iota
	layoutAWQ
	layoutCompressed
)

var layoutNames = [...]string{layoutGPTQ: "GPTQ", layoutAWQ: "AWQ", layoutCompressed: "INT"}

// codec names the type, "GPTQ4".
func (p *packed) codec() string { return fmt.Sprint(layoutNames[p.layout], p.bits) }

// awqPlace is where in a word of AWQ the code of each of eight rows lies.
var awqPlace = [8]int{0, 4, 1, 5, 2, 6, 3, 7}

// packedOf finds a missing weight in words, and lists the tensors that stand beside its codes. It returns nil where
// there are none.
func (s *folderSource) packedOf(p model.Param, q quantizationConfig) (*packed, []string, error) {
	module, ok := strings.CutSuffix(p.Name, ".weight")
	if !ok || len(p.Shape) != 2 {
		return nil, nil, nil
	}
	for _, m := range s.config.FolderNames(module) {
		for name, names := range map[string][4]string{
			"qweight":       {"scales", "qzeros", "g_idx", "bias"},
			"weight_packed": {"weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape"},
		} {
			codes, ok := s.set.Tensor(m + "." + name)
			if !ok {
				continue
			}
			out := &packed{rows: p.Shape[0], cols: p.Shape[1], codes: codes}
			if out.layout, out.first, ok = q.layout(name); !ok {
				return nil, nil, nil // packedBy says who made it
			}
			known, err := s.readPacked(out, m, names, q)
			if err != nil {
				return nil, nil, fmt.Errorf("tensor %q: %w", codes.Name, err)
			}
			return out, known, nil
		}
	}
	return nil, nil, nil
}

// layout is that of a module with a tensor of the given name.
func (q *quantizationConfig) layout(name string) (layout packedLayout, first, ok bool) {
	switch {
	case name == "weight_packed":
		return layoutCompressed, false, q.Method == "compressed-tensors" && (q.Format == "" || q.Format == "pack-quantized" || q.Format == "mixed-precision")
	case q.Method == "gptq":
		return layoutGPTQ, q.CheckpointFormat != "gptq_v2", slices.Contains([]string{"", "gptq", "gptq_v2"}, q.CheckpointFormat)
	case q.Method == "awq":
		return layoutAWQ, false, q.Version == "" || strings.EqualFold(q.Version, "gemm")
	}
	return 0, false, false
}

// misfit is the error about a tensor that does not go with a weight.
func (p *packed) misfit(t safetensors.Tensor) error {
	return fmt.Errorf("%s has shape %v of %s, which does not fit a weight of shape %v: %w", t.Name, t.Shape, t.DType, []int{p.rows, p.cols}, quantize.ErrFormat)
}

// countBits checks the codes. Their words run along one axis: how many there are says how many bits a code has.
func (p *packed) countBits() error {
	along, other, axis := p.cols, p.rows, 1
	switch p.layout {
	case layoutGPTQ:
		axis = 0
	case layoutAWQ:
		along, other = p.rows, p.cols
	}
	if p.codes.DType != safetensors.I32 || len(p.codes.Shape) != 2 || p.codes.Shape[1-axis] != other || along == 0 {
		return p.misfit(p.codes)
	}
	for _, bits := range []int{2, 4, 8} {
		if p.codes.Shape[axis] == ceilDiv(along, 32/bits) {
			p.bits = bits
		}
	}
	if p.bits == 0 || p.layout == layoutAWQ && p.bits != 4 {
		return fmt.Errorf("codes of shape %v for a weight of shape %v: only 2, 4 and 8 bits are read (AWQ: 4): %w", p.codes.Shape, []int{p.rows, p.cols}, quantize.ErrUnsupported)
	}
	return nil
}

// setTables checks the scales, and the zeros where there are any (ok).
func (p *packed) setTables(zero safetensors.Tensor, ok bool) (err error) {
	if !slices.Contains([]safetensors.DType{safetensors.F16, safetensors.BF16, safetensors.F32}, p.scale.DType) || len(p.scale.Shape) != 2 {
		return p.misfit(p.scale)
	}
	if p.scaleCodec, err = quantize.LookupEncoder(string(p.scale.DType)); err != nil {
		return err
	}
	rowWords, rowAxis := ceilDiv(p.rows, 32/p.bits), 1
	if p.layout == layoutCompressed {
		rowAxis = 0
	}
	p.groups = p.scale.Shape[1-rowAxis]
	if p.groups == 0 || p.groups > p.cols || p.scale.Shape[rowAxis] != p.rows {
		return p.misfit(p.scale)
	}
	if ok {
		if zero.DType != safetensors.I32 || len(zero.Shape) != 2 || zero.Shape[rowAxis] != rowWords || zero.Shape[1-rowAxis] != p.groups {
			return p.misfit(zero)
		}
		p.zero = zero
	}
	return nil
}

// readPacked checks what belongs to a weight, lists it, and reads its columns' groups.
func (s *folderSource) readPacked(p *packed, module string, names [4]string, q quantizationConfig) (known []string, err error) {
	if err := p.countBits(); err != nil {
		return nil, err
	}
	var ok bool
	if p.scale, ok = s.set.Tensor(module + "." + names[0]); !ok {
		return nil, fmt.Errorf("no %s beside it: %w", names[0], quantize.ErrFormat)
	}
	zero, ok := s.set.Tensor(module + "." + names[1])
	if !ok && p.layout != layoutCompressed {
		return nil, fmt.Errorf("no %s beside it: %w", names[1], quantize.ErrFormat)
	}
	if err := p.setTables(zero, ok); err != nil {
		return nil, err
	}
	known = append(known, p.scale.Name)
	if ok {
		known = append(known, zero.Name)
	}
	if index, ok := s.set.Tensor(module + "." + names[2]); ok {
		known = append(known, index.Name)
		if err := s.readGroups(p, index); err != nil {
			return nil, err
		}
	}
	if p.group == nil {
		size := ceilDiv(p.cols, p.groups)
		if q.GroupSize > 0 && ceilDiv(p.cols, q.GroupSize) == p.groups {
			size = q.GroupSize
		}
		if ceilDiv(p.cols, size) != p.groups {
			return nil, p.misfit(p.scale)
		}
		p.group = make([]int32, p.cols)
		for i := range p.group {
			p.group[i] = int32(i / size)
		}
	}
	if beside, ok := s.set.Tensor(module + "." + names[3]); ok {
		switch {
		case names[3] != "bias":
			if err := s.mustHaveShape(p, beside); err != nil {
				return nil, err
			}
			known = append(known, beside.Name)
		case slices.Equal(beside.Shape, []int{p.rows}) && s.mustBeZero(beside) == nil:
			// AutoGPTQ saves such for layers that have none; a layer's own is a parameter.
			known = append(known, beside.Name)
		}
	}
	for _, b := range besideScales {
		if t, ok := s.set.Tensor(module + "." + b); ok {
			known = append(known, t.Name)
		}
	}
	return known, nil
}

func ceilDiv(n, d int) int { return (n + d - 1) / d }

// readGroups reads the group of each column, where it is not by the order of columns.
func (s *folderSource) readGroups(p *packed, t safetensors.Tensor) error {
	if t.DType != safetensors.I32 || !slices.Equal(t.Shape, []int{p.cols}) {
		return fmt.Errorf("%s has shape %v of %s, want (%d) of I32: %w", t.Name, t.Shape, t.DType, p.cols, quantize.ErrFormat)
	}
	data := make([]byte, t.Size())
	if err := s.set.ReadAt(t.Name, data, 0); err != nil {
		return err
	}
	group := make([]int32, p.cols)
	for i := range group {
		group[i] = int32(binary.LittleEndian.Uint32(data[4*i:]))
	}
	if p.layout == layoutCompressed && !slices.ContainsFunc(group, func(g int32) bool { return g != -1 }) {
		return nil // not in use
	}
	for i, g := range group {
		if g < 0 || int(g) >= p.groups {
			return fmt.Errorf("%s[%d] is %d, but there are %d groups: %w", t.Name, i, g, p.groups, quantize.ErrFormat)
		}
	}
	p.group = group
	return nil
}

// mustHaveShape checks the shape that compressed-tensors stores beside a weight.
func (s *folderSource) mustHaveShape(p *packed, t safetensors.Tensor) error {
	if t.DType != safetensors.I64 || !slices.Equal(t.Shape, []int{2}) {
		return fmt.Errorf("%s has shape %v of %s, want (2) of I64: %w", t.Name, t.Shape, t.DType, quantize.ErrFormat)
	}
	var data [16]byte
	if err := s.set.ReadAt(t.Name, data[:], 0); err != nil {
		return err
	}
	rows, cols := binary.LittleEndian.Uint64(data[:]), binary.LittleEndian.Uint64(data[8:])
	if rows != uint64(p.rows) || cols != uint64(p.cols) {
		return fmt.Errorf("%s says (%d, %d), the configuration %v: %w", t.Name, rows, cols, []int{p.rows, p.cols}, quantize.ErrFormat)
	}
	return nil
}

// packedRows decodes rows [lo, hi) to dst.
func (s *folderSource) packedRows(p *packed, lo, hi int, dst []float32) error {
	if hi == lo {
		return nil
	}
	n := hi - lo
	scale, zero := make([]float32, p.groups*n), make([]float32, p.groups*n) // (n, groups)
	if err := s.packedScales(p, lo, hi, scale); err != nil {
		return err
	}
	if err := s.packedZeros(p, lo, hi, zero); err != nil {
		return err
	}
	if err := s.packedCodes(p, lo, hi, dst); err != nil {
		return err
	}
	_, size := p.scaleCodec.Block()
	buf := getScratch(&s.scratch, p.cols*size)
	defer s.scratch.Put(buf)
	for r := range n {
		x, sc, z := dst[r*p.cols:][:p.cols], scale[r*p.groups:][:p.groups], zero[r*p.groups:][:p.groups]
		for i, g := range p.group {
			x[i] = (x[i] - z[g]) * sc[g]
		}
		p.scaleCodec.Encode(*buf, x)
		p.scaleCodec.Decode(x, *buf)
	}
	return nil
}

// packedScales reads the scales of rows [lo, hi) as (hi−lo, groups).
func (s *folderSource) packedScales(p *packed, lo, hi int, dst []float32) error {
	_, size := p.scaleCodec.Block()
	n := hi - lo
	if p.layout == layoutCompressed {
		buf := getScratch(&s.scratch, len(dst)*size)
		defer s.scratch.Put(buf)
		if err := s.set.ReadAt(p.scale.Name, *buf, int64(lo)*int64(p.groups*size)); err != nil {
			return err
		}
		p.scaleCodec.Decode(dst, *buf)
		return nil
	}
	buf := getScratch(&s.scratch, n*size)
	defer s.scratch.Put(buf)
	line := make([]float32, n)
	for g := range p.groups {
		if err := s.set.ReadAt(p.scale.Name, *buf, (int64(g)*int64(p.rows)+int64(lo))*int64(size)); err != nil {
			return err
		}
		p.scaleCodec.Decode(line, *buf)
		for r, v := range line {
			dst[r*p.groups+g] = v
		}
	}
	return nil
}

// packedZeros reads the zeros of rows [lo, hi) as (hi−lo, groups).
func (s *folderSource) packedZeros(p *packed, lo, hi int, dst []float32) error {
	pack, mask := 32/p.bits, uint32(1)<<p.bits-1
	if p.zero.Name == "" {
		for i := range dst {
			dst[i] = float32(int(1) << (p.bits - 1))
		}
		return nil
	}
	// The words of these rows, or with the words down the rows those of all groups.
	first, last := lo/pack, ceilDiv(hi, pack)
	if p.layout == layoutCompressed {
		w := make(words, 4*(last-first)*p.groups)
		if err := s.words(w, p.zero, first*p.groups); err != nil {
			return err
		}
		for i := range dst {
			r, g := lo+i/p.groups, i%p.groups
			dst[i] = float32(w.at((r/pack-first)*p.groups+g) >> (r % pack * p.bits) & mask)
		}
		return nil
	}
	var one uint32 // in every code of a word: GPTQ's writers take it off whole words, borrowing between codes
	if p.first {
		one = 0xffffffff / mask
	}
	w := make(words, 4*(last-first))
	for g := range p.groups {
		if err := s.words(w, p.zero, g*p.zero.Shape[1]+first); err != nil {
			return err
		}
		for r := lo; r < hi; r++ {
			place := r % pack
			if p.layout == layoutAWQ {
				place = awqPlace[place]
			}
			dst[(r-lo)*p.groups+g] = float32((w.at(r/pack-first) + one) >> (place * p.bits) & mask)
		}
	}
	return nil
}

// packedCodes reads the codes of rows [lo, hi) as (hi−lo, cols).
func (s *folderSource) packedCodes(p *packed, lo, hi int, dst []float32) error {
	pack, mask := 32/p.bits, uint32(1)<<p.bits-1
	switch p.layout {
	case layoutCompressed:
		line := p.codes.Shape[1]
		w := make(words, 4*(hi-lo)*line)
		if err := s.words(w, p.codes, lo*line); err != nil {
			return err
		}
		for r := range hi - lo {
			x := dst[r*p.cols:][:p.cols]
			for i := range x {
				x[i] = float32(w.at(r*line+i/pack) >> (i % pack * p.bits) & mask)
			}
		}
	case layoutGPTQ:
		w := make(words, 4*(hi-lo))
		for k := range p.codes.Shape[0] {
			if err := s.words(w, p.codes, k*p.rows+lo); err != nil {
				return err
			}
			for r := range hi - lo {
				x, word := dst[r*p.cols+k*pack:(r+1)*p.cols], w.at(r)
				for j := range min(pack, len(x)) {
					x[j] = float32(word >> (j * p.bits) & mask)
				}
			}
		}
	case layoutAWQ:
		first, last := lo/pack, ceilDiv(hi, pack)
		w := make(words, 4*(last-first))
		for i := range p.cols {
			if err := s.words(w, p.codes, i*p.codes.Shape[1]+first); err != nil {
				return err
			}
			for r := lo; r < hi; r++ {
				dst[(r-lo)*p.cols+i] = float32(w.at(r/pack-first) >> (awqPlace[r%pack] * p.bits) & mask)
			}
		}
	}
	return nil
}

// words are 32 bits each, as they lie in a file.
type words []byte

func (w words) at(i int) uint32 { return binary.LittleEndian.Uint32(w[4*i:]) }

// words fills w from a tensor's word at on.
func (s *folderSource) words(w words, t safetensors.Tensor, at int) error {
	return s.set.ReadAt(t.Name, w, 4*int64(at))
}
