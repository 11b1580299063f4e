package checkpoint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// scales turn 8-bit numbers of a safetensors folder into weights: each value is multiplied by the
// scale of its tile of rows × cols, and then by factor. Known are
//
//   - bitsandbytes' LLM.int8 (Dettmers et al. 2022): int8, a scale a row in MODULE.SCB, the row's
//     largest magnitude, so that the factor is 1/127;
//   - 8-bit floats with MODULE.weight_scale for the tensor, each row, group or block
//     (compressed-tensors, ModelOpt), or with MODULE.weight_scale_inv for each block, which
//     despite its name multiplies too (DeepSeek, Qwen; quant_method fp8).
type scales struct {
	values     []float32
	rows, cols int // of a tile
	perRow     int // scales of a row of tiles
	factor     float32
}

// int8Factor is 1/127, as bitsandbytes rounds it.
const int8Factor = 7.874015718698502e-3

// The names of scales beside a module's weight, and of what stands there without meaning for the
// weight.
const (
	scaleSCB     = "SCB"
	scalePlain   = "weight_scale"
	scaleInverse = "weight_scale_inv"
)

var besideScales = []string{"weight_format", "input_scale", "output_scale", "k_scale", "v_scale", "weight_zero_point", "input_zero_point"}

// apply scales rows [lo, …) of cols values.
func (s *scales) apply(dst []float32, lo, cols int) {
	for i := 0; i < len(dst); i, lo = i+cols, lo+1 {
		row, tiles := dst[i:i+cols], s.values[lo/s.rows*s.perRow:]
		for j := 0; j < cols; j += s.cols {
			part, scale := row[j:min(cols, j+s.cols)], tiles[j/s.cols]
			for k := range part {
				part[k] = float32(part[k]*scale) * s.factor
			}
		}
	}
}

// scalesOf reads the scales beside a weight of shape (rows, cols) that is stored in 8 bits, and lists the
// tensors that belong to it. It returns nil for a weight that has none.
func (s *folderSource) scalesOf(t safetensors.Tensor, p model.Param, blocks [2]int) (*scales, []string, error) {
	module, ok := strings.CutSuffix(t.Name, ".weight")
	if !ok || len(p.Shape) != 2 {
		return nil, nil, nil
	}
	for _, suffix := range []string{scaleSCB, scaleInverse, scalePlain} {
		beside, ok := s.set.Tensor(module + "." + suffix)
		if !ok {
			continue
		}
		out, err := s.readScales(beside, suffix, p.Shape, blocks)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", beside.Name, err)
		}
		known := []string{beside.Name}
		for _, b := range besideScales {
			z, ok := s.set.Tensor(module + "." + b)
			if !ok {
				continue
			}
			if strings.HasSuffix(b, "weight_zero_point") {
				if err := s.mustBeZero(z); err != nil {
					return nil, nil, err
				}
			}
			known = append(known, z.Name)
		}
		return out, known, nil
	}
	return nil, nil, nil
}

func (s *folderSource) readScales(t safetensors.Tensor, suffix string, weight []int, blocks [2]int) (*scales, error) {
	codec, err := quantize.Lookup(string(t.DType))
	if err != nil || t.DType == safetensors.I8 {
		return nil, fmt.Errorf("scales are stored as %s: %w", t.DType, quantize.ErrUnsupported)
	}
	rows, cols := weight[0], weight[1]
	out := &scales{factor: 1}
	grid := t.Shape // tiles down and across
	switch {
	case len(grid) == 0, len(grid) == 1 && grid[0] == 1:
		grid = []int{1, 1}
	case len(grid) == 1:
		grid = []int{grid[0], 1}
	}
	if suffix == scaleSCB {
		out.factor = int8Factor
	}
	// side is the tile's side where so many of them cover n: a whole division, or the configured one.
	side := func(n, tiles, configured int) int {
		switch {
		case tiles <= 0 || tiles > n:
			return 0
		case tiles == 1:
			return n
		case configured > 0 && (n+configured-1)/configured == tiles:
			return configured
		case n%tiles == 0:
			return n / tiles
		}
		return 0
	}
	if len(grid) == 2 {
		out.rows, out.cols, out.perRow = side(rows, grid[0], blocks[0]), side(cols, grid[1], blocks[1]), grid[1]
	}
	if out.rows == 0 || out.cols == 0 || suffix == scaleSCB && (out.rows != 1 || out.cols != cols) {
		return nil, fmt.Errorf("scales of shape %v do not divide a weight of shape %v: %w", t.Shape, weight, quantize.ErrFormat)
	}
	data := make([]byte, t.Size())
	if err := s.set.ReadAt(t.Name, data, 0); err != nil {
		return nil, err
	}
	out.values = make([]float32, grid[0]*grid[1])
	codec.Decode(out.values, data)
	return out, nil
}

// mustBeZero refuses asymmetric numbers.
func (s *folderSource) mustBeZero(t safetensors.Tensor) error {
	data := make([]byte, t.Size())
	if err := s.set.ReadAt(t.Name, data, 0); err != nil {
		return err
	}
	if slices.ContainsFunc(data, func(b byte) bool { return b != 0 }) {
		return fmt.Errorf("tensor %q: weights with a zero point: %w", t.Name, quantize.ErrUnsupported)
	}
	return nil
}

// quantizationConfig is what is read of config.json's quantization_config for 8-bit weights.
type quantizationConfig struct {
	Method    string `json:"quant_method"`
	Format    string `json:"format"`
	BlockSize []int  `json:"weight_block_size"`
	Groups    map[string]struct {
		Weights struct {
			Block []int `json:"block_structure"`
		} `json:"weights"`
	} `json:"config_groups"`
}

// tileSides are the sides of the blocks that scales cover, by the configuration: 128 where it does not say.
func (q *quantizationConfig) tileSides() [2]int {
	sides := q.BlockSize
	for _, g := range q.Groups {
		if len(g.Weights.Block) == 2 {
			sides = g.Weights.Block
		}
	}
	if len(sides) == 2 && sides[0] > 0 && sides[1] > 0 {
		return [2]int{sides[0], sides[1]}
	}
	return [2]int{128, 128}
}

func parseQuantization(c *model.Config) quantizationConfig {
	var q quantizationConfig
	if raw := c.Key("quantization_config"); raw != nil {
		_ = json.Unmarshal(raw, &q) // what the tensors say decides; this only names the sides of blocks
	}
	return q
}

// packedBy names who stored a missing weight in a form that is not read, as far as its neighbours tell.
func (s *folderSource) packedBy(name string, q quantizationConfig) error {
	module, ok := strings.CutSuffix(name, ".weight")
	if !ok {
		return nil
	}
	for _, m := range s.config.FolderNames(module) {
		for _, suffix := range []string{"qweight", "weight_packed", "B", "codes", "Wq_packed"} {
			if _, ok := s.set.Tensor(m + "." + suffix); ok {
				method := q.Method
				if method == "" {
					method = "another tool"
				}
				return fmt.Errorf("module %q is stored as %q, quantized by %s: %w (4-bit weights are read in bitsandbytes' form and in GGUF; start from the model's 16-bit checkpoint, or save it dequantized: model.dequantize() in transformers)",
					module, suffix, method, quantize.ErrUnsupported)
			}
		}
	}
	return nil
}
