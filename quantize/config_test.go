package quantize

import (
	"errors"
	"reflect"
	"testing"
)

// TestConfig4 compares with what transformers writes and with which modules
// it leaves alone.
func TestConfig4(t *testing.T) {
	var golden struct {
		Configs []string
		Names   []string
		Skips   []struct {
			Patterns  []string
			Quantized []bool
		}
	}
	readGolden(t, "config.json", &golden)
	want := []Config4{
		{Type: "nf4", Double: true, ComputeDType: "bfloat16", Storage: "uint8"},
		{Type: "fp4", ComputeDType: "float32", Storage: "uint8", SkipModules: []string{"lm_head", "model.layers.0"}},
	}
	if len(golden.Configs) != len(want) || len(golden.Skips) < 10 {
		t.Fatalf("%d configurations and %d pattern lists", len(golden.Configs), len(golden.Skips))
	}
	for i, text := range golden.Configs {
		c, err := ParseConfig4([]byte(text))
		if err != nil || !reflect.DeepEqual(c, want[i]) {
			t.Errorf("%s\nparses as %+v, %v", text, c, err)
		}
		if b, err := c.JSON(); err != nil || string(b) != text {
			t.Errorf("%+v\nis written as %s, %v, want\n%s", c, b, err, text)
		}
	}
	for _, s := range golden.Skips {
		for i, name := range golden.Names {
			if got := (Config4{SkipModules: s.Patterns}).Quantized(name, "lm_head"); got != s.Quantized[i] {
				t.Errorf("%q with skip list %q: quantized %v, want %v", name, s.Patterns, got, s.Quantized[i])
			}
		}
	}
	for name, quantized := range map[string]bool{"lm_head": false, "model.layers.0.mlp.up_proj": true} {
		if got := (Config4{}).Quantized(name, "lm_head"); got != quantized {
			t.Errorf("%q with the model's default list: quantized %v", name, got)
		}
	}
}

func TestParseConfig4(t *testing.T) {
	for text, want := range map[string]error{
		``:      ErrFormat,
		`null`:  ErrFormat,
		`[]`:    ErrFormat,
		`{`:     ErrFormat,
		`{} {}`: ErrFormat,
		`{"bnb_4bit_quant_type":4,"load_in_4bit":true}`: ErrFormat,
		`{"load_in_4bit":true,"load_in_4bit":true}`:     ErrFormat,
		`{}`:                    ErrUnsupported,
		`{"load_in_8bit":true}`: ErrUnsupported,
		`{"load_in_4bit":true,"quant_method":"gptq"}`:                                             ErrUnsupported,
		`{"load_in_4bit":true,"bnb_4bit_quant_type":"int4"}`:                                      ErrUnsupported,
		`{"load_in_4bit":true,"llm_int8_skip_modules":["(?<=x)y"]}`:                               ErrUnsupported,
		`{"load_in_4bit":true}`:                                                                   nil,
		`{"_load_in_4bit":true,"quant_method":"bitsandbytes","later_key":{"a":[1]}}`:              nil,
		` {"load_in_4bit":true,"bnb_4bit_compute_dtype":"torch.bfloat16","llm_int8_threshold":6}`: nil,
	} {
		c, err := ParseConfig4([]byte(text))
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
		if want == nil && c.Type != "fp4" {
			t.Errorf("%s: %+v", text, c)
		}
	}
}

func FuzzConfig4(f *testing.F) {
	f.Add([]byte(`{"load_in_4bit":true,"llm_int8_skip_modules":["lm_head"],"bnb_4bit_quant_type":"nf4"}`), "model.layers.0.mlp.up_proj")
	f.Add([]byte(`{"_load_in_4bit":true,"llm_int8_skip_modules":null}`), "lm_head")
	f.Fuzz(func(t *testing.T, raw []byte, module string) {
		c, err := ParseConfig4(raw)
		if err != nil {
			return
		}
		c.Quantized(module)
		b, err := c.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig4(b)
		if err != nil || again.Type != c.Type || again.Double != c.Double || len(again.SkipModules) != len(c.SkipModules) {
			t.Fatalf("%+v was written as %s and read as %+v, %v", c, b, again, err)
		}
	})
}
