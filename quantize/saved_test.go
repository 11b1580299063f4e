package quantize

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

func savedFixture(tb testing.TB, o Options4) []Saved {
	tb.Helper()
	q, err := Quantize4(normal(11, 20*60), []int{20, 60}, o)
	if err != nil {
		tb.Fatal(err)
	}
	return q.Saved("w")
}

func TestLoad4Malformed(t *testing.T) {
	state := func(old, new string) func(map[string]*Saved) {
		return func(m map[string]*Saved) {
			s := m["quant_state.bitsandbytes__nf4"]
			text := strings.Replace(string(s.Data), old, new, 1)
			if text == string(s.Data) {
				panic("nothing to replace: " + old)
			}
			s.Data = []byte(text)
		}
	}
	put := func(name string, at int, v float32) func(map[string]*Saved) {
		return func(m map[string]*Saved) {
			binary.LittleEndian.PutUint32(m[name].Data[4*at:], math.Float32bits(v))
		}
	}
	remove := func(name string) func(map[string]*Saved) { return func(m map[string]*Saved) { delete(m, name) } }
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for name, c := range map[string]struct {
		spoil func(map[string]*Saved)
		want  error
	}{
		"untouched":           {func(map[string]*Saved) {}, nil},
		"no weight":           {remove(""), ErrFormat},
		"no absmax":           {remove("absmax"), ErrFormat},
		"no quant_map":        {remove("quant_map"), ErrFormat},
		"no nested_absmax":    {remove("nested_absmax"), ErrFormat},
		"no nested_quant_map": {remove("nested_quant_map"), ErrFormat},
		"no state":            {remove("quant_state.bitsandbytes__nf4"), ErrFormat},
		"two states":          {func(m map[string]*Saved) { m["quant_state.bitsandbytes__fp4"] = m["quant_state.bitsandbytes__nf4"] }, ErrFormat},
		"short weight":        {func(m map[string]*Saved) { m[""].Data = m[""].Data[1:] }, ErrFormat},
		"long weight":         {func(m map[string]*Saved) { m[""].Data = append(m[""].Data, 0) }, ErrFormat},
		"short absmax":        {func(m map[string]*Saved) { m["absmax"].Data = m["absmax"].Data[1:] }, ErrFormat},
		"absmax shape":        {func(m map[string]*Saved) { m["absmax"].Shape = []int{1, 19} }, ErrFormat},
		"absmax dtype":        {func(m map[string]*Saved) { m["absmax"].DType = "I8" }, ErrFormat},
		"map value":           {put("quant_map", 3, 0.5), ErrFormat},
		"map NaN":             {put("quant_map", 3, nan), ErrFormat},
		"nested map NaN":      {put("nested_quant_map", 3, nan), ErrFormat},
		"nested absmax inf":   {put("nested_absmax", 0, inf), ErrFormat},
		"nested absmax huge": {func(m map[string]*Saved) {
			put("nested_absmax", 0, math.MaxFloat32)(m)
			put("nested_quant_map", 0, 2)(m)
		}, ErrFormat},
		"other nested map":  {put("nested_quant_map", 3, -0.9), nil},
		"state not JSON":    {state("{", "["), ErrFormat},
		"state unknown key": {state(`"dtype"`, `"extra": 1, "dtype"`), ErrFormat},
		"state doubled key": {state(`"dtype"`, `"blocksize": 64, "dtype"`), ErrFormat},
		"state missing key": {state(`"blocksize": 64, `, ``), ErrFormat},
		"state missing offset": {func(m map[string]*Saved) {
			s := m["quant_state.bitsandbytes__nf4"]
			s.Data = append(s.Data[:bytes.Index(s.Data, []byte(`, "nested_offset"`))], '}')
		}, ErrFormat},
		"state trailing":       {state("}", "} {}"), ErrFormat},
		"state too long":       {state("{", "{"+strings.Repeat(" ", 1<<16)), ErrFormat},
		"state other type":     {state(`"nf4"`, `"fp4"`), ErrFormat},
		"state block size":     {state(`"blocksize": 64`, `"blocksize": 60`), ErrUnsupported},
		"state block size 0":   {state(`"blocksize": 64`, `"blocksize": 0`), ErrUnsupported},
		"state smaller blocks": {state(`"blocksize": 64`, `"blocksize": 32`), ErrFormat},
		"state dtype":          {state(`"float32", "shape"`, `"int8", "shape"`), ErrUnsupported},
		"state shape":          {state(`[20, 60]`, `[20, 61]`), ErrFormat},
		"state negative shape": {state(`[20, 60]`, `[-20, -60]`), ErrFormat},
		"state zero shape":     {state(`[20, 60]`, `[0, 60]`), ErrFormat},
		"state huge shape":     {state(`[20, 60]`, `[4611686018427387904, 4, 1200]`), ErrFormat},
		"state no shape":       {state(`[20, 60]`, `[]`), ErrFormat},
		"state null shape":     {state(`[20, 60]`, `null`), ErrFormat},
		"state text shape":     {state(`[20, 60]`, `"20"`), ErrFormat},
		"nested block size":    {state(`"nested_blocksize": 256`, `"nested_blocksize": -256`), ErrUnsupported},
		"nested dtype":         {state(`"nested_dtype": "float32"`, `"nested_dtype": "float16"`), ErrUnsupported},
		"nested offset":        {state(`"nested_offset": `, `"nested_offset": "x", "nested_offset": `), ErrFormat},
		"nested offset huge":   {state(`}`, `e60}`), ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			m := map[string]*Saved{}
			for _, s := range savedFixture(t, Options4{Double: true}) {
				s.Data = slices.Clone(s.Data)
				m[suffix(s.Name)] = &s
			}
			c.spoil(m)
			q, err := Load4("w", func(name string) (string, []int, []byte, bool, error) {
				if s := m[suffix(name)]; s != nil {
					return s.DType, s.Shape, s.Data, true, nil
				}
				return "", nil, nil, false, nil
			})
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				q.DecodeRows(make([]float32, 1200), 0, 20)
				return
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), `"w"`) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestLoad4Get: errors of the source come through.
func TestLoad4Get(t *testing.T) {
	saved := savedFixture(t, Options4{Double: true})
	for _, broken := range append(saved, Saved{Name: "w.quant_state.bitsandbytes__fp4"}) {
		_, err := Load4("w", func(name string) (string, []int, []byte, bool, error) {
			if name == broken.Name {
				return "", nil, nil, false, io.ErrUnexpectedEOF
			}
			return getter(saved)(name)
		})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", broken.Name, err)
		}
	}
}

// TestLoad4Storage: codes stored as another dtype are the same bytes.
func TestLoad4Storage(t *testing.T) {
	saved := savedFixture(t, Options4{})
	saved[0].DType, saved[0].Shape = "BF16", []int{300, 1}
	q, err := Load4("w", getter(saved))
	if err != nil || !bytes.Equal(q.Packed, saved[0].Data) {
		t.Fatal(err)
	}
}

// FuzzLoad4 feeds the parts of a saved tensor: whatever loads must decode, and
// save and load to the same.
func FuzzLoad4(f *testing.F) {
	for _, o := range []Options4{{Double: true}, {Type: "fp4", BlockSize: 32}, {Double: true, DType: "bfloat16", BlockSize: 128, NestedBlockSize: 32}} {
		s := savedFixture(f, o)
		part := map[string][]byte{}
		for _, s := range s {
			part[suffix(s.Name)] = s.Data
		}
		f.Add(o.Type == "fp4", s[len(s)-1].Data, part[""], part["absmax"], part["quant_map"], part["nested_absmax"], part["nested_quant_map"])
	}
	f.Fuzz(func(t *testing.T, fp4 bool, state, codes, absmax, values, nested, nestedValues []byte) {
		typ := "nf4"
		if fp4 {
			typ = "fp4"
		}
		first := []Saved{
			{"w", "U8", []int{len(codes), 1}, codes},
			{"w.absmax", "U8", []int{len(absmax)}, absmax},
			{"w.quant_map", "F32", []int{len(values) / 4}, values},
			{"w.nested_absmax", "F32", []int{len(nested) / 4}, nested},
			{"w.nested_quant_map", "F32", []int{len(nestedValues) / 4}, nestedValues},
			{"w." + savedState + typ, "U8", []int{len(state)}, state},
		}
		if !bytes.Contains(state, []byte("nested_offset")) {
			first[1].DType, first[1].Shape = "F32", []int{len(absmax) / 4}
		}
		q, err := Load4("w", getter(first))
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("no class: %v", err)
			}
			return
		}
		x := make([]float32, q.Elems())
		q.DecodeRows(x, 0, q.Rows())
		for i, v := range x {
			if !finite(v) {
				t.Fatalf("value %d is %g", i, v)
			}
		}
		again, err := Load4("w", getter(q.Saved("w")))
		if err != nil {
			t.Fatal(err)
		}
		y := make([]float32, again.Elems())
		again.DecodeRowsRounded(y, 0, again.Rows())
		q.DecodeRowsRounded(x, 0, q.Rows())
		for i := range x {
			if math.Float32bits(x[i]) != math.Float32bits(y[i]) {
				t.Fatalf("value %d is %g, then %g", i, x[i], y[i])
			}
		}
	})
}
