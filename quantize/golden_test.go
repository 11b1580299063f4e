package quantize

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/testfile"
)

// This file compares with testdata/golden/quantize, whose make.py holds the
// same generator of inputs.

// goldenBits are n 32-bit words: the upper halves of splitmix64's outputs.
func goldenBits(seed uint64, n int) []uint32 {
	w := make([]uint32, n)
	for i := range w {
		z := seed + uint64(i+1)*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		w[i] = uint32((z ^ z>>31) >> 32)
	}
	return w
}

// goldenValues are n float32 values of a kind that make.py describes.
func goldenValues(seed uint64, n int, kind string, thresholds []uint32) []float32 {
	x := make([]float32, n)
	switch kind {
	case "bell", "outliers", "positive", "flat":
		w := goldenBits(seed, 3*n)
		for i := range x {
			x[i] = float32(math.Ldexp(float64(int(w[3*i]&0xffffff+w[3*i+1]&0xffffff+w[3*i+2]&0xffffff)-3<<23), -24))
			switch {
			case kind == "outliers" && i%97 == 0:
				x[i] *= 64
			case kind == "positive":
				x[i] = magnitude(x[i])
			case kind == "flat":
				x[i] = x[i/48*48]
			}
		}
		return x
	}
	for i, w := range goldenBits(seed, n) {
		if kind == "half" {
			x[i] = float32(math.Ldexp(float64(int(w&255)-128), -7-int(w>>8&7)))
			continue
		}
		scale := map[string]int{"tiny": -125, "small": -100, "huge": 120}[kind]
		x[i] = float32(math.Ldexp(float64(int(w&0xffffff)-(1<<23)), scale-23-int(w>>24&7)))
		switch {
		case kind == "zeros" && i/96%3 != 0:
			x[i] = 0
		case kind == "ties" && i%64 == 0:
			x[i] = 1
		case kind == "ties" && i%2 == 1:
			x[i] = math.Float32frombits(thresholds[int(w>>3)%len(thresholds)])
		}
	}
	return x
}

type digest struct {
	SHA256 string
	Hex    string
}

func (d digest) check(t *testing.T, what string, got []byte) {
	t.Helper()
	if d.Hex != "" && hex.EncodeToString(got) != d.Hex {
		t.Errorf("%s is %x, want %s", what, got, d.Hex)
		return
	}
	if sum := sha256.Sum256(got); hex.EncodeToString(sum[:]) != d.SHA256 {
		t.Errorf("%s: %d bytes differ from the golden ones", what, len(got))
	}
}

func readGolden(t *testing.T, name string, v any) {
	t.Helper()
	testfile.ReadJSON(t, filepath.Join("..", "testdata", "golden", "quantize", name), v)
}

// forEachImpl runs test under every kernel implementation of this processor.
func forEachImpl(t *testing.T, test func(t *testing.T)) {
	for _, name := range kernel.Impls() {
		t.Run(name, func(t *testing.T) {
			restore, err := kernel.SetImpl(name)
			if err != nil {
				t.Fatal(err)
			}
			defer restore()
			test(t)
		})
	}
}

type goldenCase struct {
	Seed      uint64
	Kind      string
	Shape     []int
	Type      string
	BlockSize int
	Double    bool
	DType     string
	Saved     []struct {
		digest
		Name  string
		DType string
		Shape []int
		Text  string
	}
	Decoded string
}

// TestBitsandbytes quantizes, saves, loads and decodes as bitsandbytes did.
func TestBitsandbytes(t *testing.T) {
	var golden struct {
		Cases      []goldenCase
		Zero       map[string]string
		Thresholds []uint32
		Edges      struct {
			digest
			Centers []int32
		}
		Blockwise struct {
			Seed          uint64
			N             int
			Codes, Absmax digest
		}
	}
	readGolden(t, "bnb4.json", &golden)
	if len(golden.Cases) < 100 {
		t.Fatalf("only %d cases", len(golden.Cases))
	}
	forEachImpl(t, func(t *testing.T) {
		for _, c := range golden.Cases {
			checkGolden4(t, c, golden.Thresholds)
			if t.Failed() {
				t.Fatalf("%s of %s values, shape %v in blocks of %d, double %v, %s", c.Type, c.Kind, c.Shape, c.BlockSize, c.Double, c.DType)
			}
		}
		zero, err := Quantize4(make([]float32, 512), []int{4, 128}, Options4{Double: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range zero.Saved("w") {
			if want, ok := golden.Zero[suffix(s.Name)]; ok && hex.EncodeToString(s.Data) != want {
				t.Errorf("all zeros: %s is %x, want %s", s.Name, s.Data, want)
			}
		}
	})
	b := golden.Blockwise
	y := goldenValues(b.Seed, b.N, "plain", nil)
	codes, absmax := make([]byte, b.N), make([]float32, b.N/256)
	for i := range absmax {
		y[256*i] = 1
		absmax[i] = encode8(codes[256*i:][:256], y[256*i:][:256], RoundingCPU)
	}
	b.Codes.check(t, "8-bit codes", codes)
	near := []float32{}
	for _, c := range golden.Edges.Centers {
		for d := int32(-8); d <= 8; d++ {
			near = append(near, math.Float32frombits(uint32(c+d)))
		}
	}
	if len(golden.Edges.Centers) < 200 {
		t.Fatalf("%d edges", len(golden.Edges.Centers))
	}
	codes = codes[:0]
	for block := range slices.Chunk(near, 255) {
		c := make([]byte, 1+len(block))
		encode8(c, append([]float32{1}, block...), RoundingCPU)
		codes = append(codes, c[1:]...)
	}
	golden.Edges.check(t, "8-bit codes at the edges", codes)
	b.Absmax.check(t, "8-bit scales", floatBytes(absmax))
}

// suffix is the part of a saved name after "w.", or "" for "w".
func suffix(name string) string {
	if name == "w" {
		return ""
	}
	return name[len("w."):]
}

func checkGolden4(t *testing.T, c goldenCase, thresholds []uint32) {
	t.Helper()
	n := 1
	for _, d := range c.Shape {
		n *= d
	}
	x := goldenValues(c.Seed, n, c.Kind, thresholds)
	o := Options4{Type: c.Type, BlockSize: c.BlockSize, Double: c.Double, DType: c.DType}
	q, err := Quantize4(x, c.Shape, o)
	if err != nil {
		t.Fatal(err)
	}
	saved := q.Saved("w")
	plan, err := PlanSaved("w", c.Shape, o)
	if err != nil || len(plan) != len(saved) {
		t.Fatalf("planned %d tensors, saved %d: %v", len(plan), len(saved), err)
	}
	if len(saved) != len(c.Saved) {
		t.Fatalf("saved %d tensors, want %d", len(saved), len(c.Saved))
	}
	for i, s := range saved {
		at := slices.IndexFunc(saved, func(s Saved) bool { return suffix(s.Name) == c.Saved[i].Name })
		if at < 0 {
			t.Fatalf("no tensor %q", c.Saved[i].Name)
		}
		got, want := saved[at], c.Saved[i]
		if got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) {
			t.Errorf("%s is %s %v, want %s %v", got.Name, got.DType, got.Shape, want.DType, want.Shape)
		}
		if want.Text != "" {
			if string(got.Data) != want.Text {
				t.Errorf("quant_state is %s, want %s", got.Data, want.Text)
			}
		} else {
			want.check(t, got.Name, got.Data)
		}
		last := i == len(saved)-1
		if p := plan[i]; p.Name != s.Name || p.DType != s.DType || !last && !slices.Equal(p.Shape, s.Shape) || last && p.Shape[0] < s.Shape[0] {
			t.Errorf("planned %s %s %v, saved %s %s %v", p.Name, p.DType, p.Shape, s.Name, s.DType, s.Shape)
		}
	}
	back, err := Load4("w", getter(saved))
	if err != nil {
		t.Fatal(err)
	}
	if c.Decoded == "" {
		return
	}
	y := make([]float32, n)
	back.DecodeRowsRounded(y, 0, back.Rows())
	for i := range y {
		y[i] += 0 // drops the sign of a zero, as make.py does
	}
	if sum := sha256.Sum256(floatBytes(y)); hex.EncodeToString(sum[:]) != c.Decoded {
		t.Error("decoded values differ from the golden ones")
	}
}

// getter reads from a list of saved tensors.
func getter(saved []Saved) func(string) (string, []int, []byte, bool, error) {
	return func(name string) (string, []int, []byte, bool, error) {
		for _, s := range saved {
			if s.Name == name {
				return s.DType, s.Shape, s.Data, true, nil
			}
		}
		return "", nil, nil, false, nil
	}
}

// TestTorchMean compares the order of summation on many lengths and threads.
func TestTorchMean(t *testing.T) {
	var golden struct {
		Seed  uint64
		Rows  [][3]uint32
		Tiled [3]uint32
	}
	readGolden(t, "mean.json", &golden)
	if len(golden.Rows) < 200 {
		t.Fatalf("only %d rows", len(golden.Rows))
	}
	long := goldenValues(golden.Seed, 1<<19, "plain", nil)
	for i, v := range long {
		long[i] = float32(math.Abs(float64(v)))
	}
	for _, r := range golden.Rows {
		if got := math.Float32bits(torchMean(long[:r[0]], int(r[1]))); got != r[2] {
			t.Errorf("mean of %d by %d threads is %08x, want %08x", r[0], r[1], got, r[2])
		}
	}
	tiled := slices.Repeat(long[:golden.Tiled[1]], int(golden.Tiled[0]/golden.Tiled[1])+1)[:golden.Tiled[0]]
	if got := math.Float32bits(torchMean(tiled, 1)); got != golden.Tiled[2] {
		t.Errorf("mean of %d numbers is %08x, want %08x", len(tiled), got, golden.Tiled[2])
	}
}

// decodeCase is random blocks of a type and what they decode to.
type decodeCase struct {
	digest
	Type   string
	Seed   uint64
	Blocks int
	Block  [2]int // values and bytes
	Halves []int  // where a block has half-precision numbers: one exponent bit is cleared, so that they are finite
	First  []float32
}

func (g *decodeCase) run(t *testing.T) {
	t.Helper()
	c, err := Lookup(g.Type)
	if err != nil {
		t.Fatal(err)
	}
	elems, size := c.Block()
	if elems != g.Block[0] || size != g.Block[1] {
		t.Fatalf("%s: block of %d values in %d bytes, want %v", g.Type, elems, size, g.Block)
	}
	src := make([]byte, g.Blocks*size)
	for i, w := range goldenBits(g.Seed, len(src)) {
		src[i] = byte(w)
	}
	for b := range g.Blocks {
		for _, h := range g.Halves {
			src[b*size+h+1] &= 0xbf
		}
		if g.Type == "MXFP4" {
			e := &src[b*size]
			*e = min(*e, 254)
			if b < 2 {
				*e = byte(b)
			}
		}
	}
	dst := make([]float32, g.Blocks*elems)
	c.Decode(dst, src)
	if !slices.Equal(dst[:len(g.First)], g.First) {
		t.Errorf("%s starts with %g, want %g", g.Type, dst[:len(g.First)], g.First)
	}
	g.check(t, g.Type, floatBytes(dst))
}

// TestReadAlone compares the types that can only be read with libggml, and 8-bit floats with torch.
func TestReadAlone(t *testing.T) {
	var golden struct {
		Decode []decodeCase
		Eights map[string][]any
	}
	readGolden(t, "alone.json", &golden)
	if len(golden.Decode) < 12 || len(golden.Eights) < 2 {
		t.Fatalf("only %d and %d cases", len(golden.Decode), len(golden.Eights))
	}
	forEachImpl(t, func(t *testing.T) {
		for _, g := range golden.Decode {
			g.run(t)
		}
	})
	for name, values := range golden.Eights {
		c, err := Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range values {
			var got [1]float32
			c.Decode(got[:], []byte{byte(i)})
			var w float64
			switch v := want.(type) {
			case nil:
				w = math.NaN()
			case string:
				w = math.Inf(map[string]int{"inf": 1, "-inf": -1}[v])
			case float64:
				w = v
			}
			if g := float64(got[0]); g != w && (g == g || w == w) || math.Signbit(g) != (i > 127) && g == g {
				t.Errorf("%s: %#02x is %v, want %v", name, i, g, w)
			}
		}
	}
}

// TestGGML compares with gguf-py: decoding of random blocks bit for bit,
// encoding byte for byte.
func TestGGML(t *testing.T) {
	var golden struct {
		Decode []decodeCase
		Encode []struct {
			digest
			Type, Kind string
			Seed       uint64
			N          int
		}
	}
	readGolden(t, "ggml.json", &golden)
	if len(golden.Decode) < 15 || len(golden.Encode) < 40 {
		t.Fatalf("only %d and %d cases", len(golden.Decode), len(golden.Encode))
	}
	forEachImpl(t, func(t *testing.T) {
		for _, g := range golden.Decode {
			g.run(t)
		}
		for _, g := range golden.Encode {
			c, err := LookupEncoder(g.Type)
			if err != nil {
				t.Fatal(err)
			}
			x := goldenValues(g.Seed, g.N, g.Kind, nil)
			for i := 320; i < 352; i++ {
				x[i] = x[320]
				x[i+32] = float32(math.Abs(float64(x[i+32])))
			}
			size, err := Size(c, len(x))
			if err != nil {
				t.Fatal(err)
			}
			dst := make([]byte, size)
			c.Encode(dst, x)
			g.check(t, g.Type+" of "+g.Kind+" values", dst)
		}
	})
}

// TestRealCheckpoint compares every tensor with what bitsandbytes makes of a
// whole checkpoint.
func TestRealCheckpoint(t *testing.T) {
	in, want := os.Getenv("GRAFT_BNB_INPUT"), os.Getenv("GRAFT_BNB_OUTPUT")
	if in == "" || want == "" {
		t.Skip("set GRAFT_BNB_INPUT to a safetensors file and GRAFT_BNB_OUTPUT to what testdata/golden/quantize/make.py makes of it")
	}
	input, output := readSafetensors(t, in), readSafetensors(t, want)
	tensors, compared := 0, 0
	for name := range output {
		raw, ok := input[name]
		if !ok {
			continue // a table: compared with its weight
		}
		codec, err := Lookup(raw.DType)
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float32, raw.Shape[0]*raw.Shape[1])
		codec.Decode(x, raw.Data)
		dtype := map[string]string{"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[raw.DType]
		q, err := Quantize4(x, raw.Shape, Options4{Double: true, DType: dtype})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range q.Saved(name) {
			ref, ok := output[s.Name]
			if !ok || ref.DType != s.DType || !slices.Equal(ref.Shape, s.Shape) || !bytes.Equal(ref.Data, s.Data) {
				t.Errorf("%s differs", s.Name)
			}
			compared++
		}
		if _, err := Load4(name, getter(slices.Collect(maps.Values(output)))); err != nil {
			t.Error(err)
		}
		tensors++
	}
	if compared != len(output) || tensors == 0 {
		t.Errorf("compared %d of %d tensors", compared, len(output))
	}
	t.Logf("%d weights, %d stored tensors equal", tensors, compared)
}

// readSafetensors is just enough of a reader for TestRealCheckpoint.
func readSafetensors(t *testing.T, path string) map[string]Saved {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 8 + int(binary.LittleEndian.Uint64(b))
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:n], &header); err != nil {
		t.Fatal(err)
	}
	m := map[string]Saved{}
	for name, raw := range header {
		if name == "__metadata__" {
			continue
		}
		var e struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		m[name] = Saved{name, e.DType, e.Shape, b[n+e.Offsets[0] : n+e.Offsets[1]]}
	}
	return m
}

// blockCase is one of blocks.json: rows of a kind that libggml encoded.
type blockCase struct {
	digest
	Type, Kind, Importance string
	Seed                   uint64
	Rows, Cols             int
}

// TestBlocks compares with libggml's own blocks, without and with importance.
func TestBlocks(t *testing.T) {
	var golden []blockCase
	readGolden(t, "blocks.json", &golden)
	if len(golden) < 300 {
		t.Fatalf("only %d cases", len(golden))
	}
	forEachImpl(t, func(t *testing.T) { checkBlocks(t, golden) })
}

func checkBlocks(t *testing.T, golden []blockCase) {
	for _, g := range golden {
		e, err := LookupEncoder(g.Type)
		if err != nil {
			t.Fatal(err)
		}
		n, err := Size(e, g.Rows*g.Cols)
		if err != nil {
			t.Fatal(err)
		}
		var importance []float32
		if g.Importance != "" {
			importance = goldenValues(g.Seed+1000, g.Cols, g.Importance, nil)
			for i, v := range importance {
				importance[i] = magnitude(v)
			}
		}
		got := make([]byte, n)
		e.EncodeWeighted(got, goldenValues(g.Seed, g.Rows*g.Cols, g.Kind, nil), importance)
		g.check(t, g.Type+" of "+g.Kind+" values with importance "+g.Importance, got)
	}
}
