package quantize

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A Config4 is the quantization_config object in the config.json of a
// checkpoint whose linear layers bitsandbytes quantized to 4 bits. Block sizes
// are not in it: they stand in each tensor's quant_state.
type Config4 struct {
	Type         string // "nf4" or "fp4"
	Double       bool   // whether block scales are quantized too
	ComputeDType string // what products are computed in: "float32", "bfloat16" or "float16"
	Storage      string // dtype the codes are stored under; "uint8" in all but a few
	// SkipModules are the modules left alone, as patterns; see Quantized. Nil
	// means the model's default.
	SkipModules []string
}

// config4JSON is the object as transformers writes it, keys sorted.
type config4JSON struct {
	AlsoLoadIn4Bit *bool    `json:"_load_in_4bit,omitempty"`
	AlsoLoadIn8Bit *bool    `json:"_load_in_8bit,omitempty"`
	ComputeDType   *string  `json:"bnb_4bit_compute_dtype,omitempty"`
	Storage        *string  `json:"bnb_4bit_quant_storage,omitempty"`
	Type           *string  `json:"bnb_4bit_quant_type,omitempty"`
	Double         *bool    `json:"bnb_4bit_use_double_quant,omitempty"`
	FP32CPUOffload bool     `json:"llm_int8_enable_fp32_cpu_offload"`
	FP16Weight     bool     `json:"llm_int8_has_fp16_weight"`
	SkipModules    []string `json:"llm_int8_skip_modules"`
	Threshold      any      `json:"llm_int8_threshold"`
	LoadIn4Bit     *bool    `json:"load_in_4bit,omitempty"`
	LoadIn8Bit     *bool    `json:"load_in_8bit,omitempty"`
	QuantMethod    *string  `json:"quant_method,omitempty"`
}

// JSON returns the object with the keys and order that transformers writes,
// without spaces. Empty fields take the values that bitsandbytes checkpoints
// commonly have: nf4, float32, uint8.
func (c Config4) JSON() ([]byte, error) {
	orElse := func(s, otherwise string) *string {
		if s == "" {
			s = otherwise
		}
		return &s
	}
	yes, no := true, false
	b, err := json.Marshal(config4JSON{
		AlsoLoadIn4Bit: &yes, AlsoLoadIn8Bit: &no,
		ComputeDType: orElse(c.ComputeDType, "float32"), Storage: orElse(c.Storage, "uint8"), Type: orElse(c.Type, "nf4"), Double: &c.Double,
		SkipModules: c.SkipModules, Threshold: jsontext.Value("6.0"), // transformers insists on a float
		LoadIn4Bit: &yes, LoadIn8Bit: &no, QuantMethod: orElse("", "bitsandbytes"),
	}, json.FormatNilSliceAsNull(true))
	if err != nil {
		return nil, fmt.Errorf("quantize: writing quantization_config: %w", err)
	}
	return b, nil
}

// ParseConfig4 reads a quantization_config object. Absent keys take
// transformers' defaults: fp4, single quantization, computing in float32. It
// fails with ErrFormat on anything but a JSON object of that form and with
// ErrUnsupported on another method or on 8-bit weights.
func ParseConfig4(raw []byte) (Config4, error) {
	fail := func(kind error, format string, args ...any) (Config4, error) {
		return Config4{}, fmt.Errorf("quantize: reading quantization_config: %w: %s", kind, fmt.Sprintf(format, args...))
	}
	if b := bytes.TrimLeft(raw, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return fail(ErrFormat, "not a JSON object")
	}
	var j config4JSON
	if err := json.Unmarshal(raw, &j); err != nil {
		return fail(ErrFormat, "%v", err)
	}
	is := func(flags ...*bool) bool {
		for _, f := range flags {
			if f != nil {
				return *f
			}
		}
		return false
	}
	if j.QuantMethod != nil && *j.QuantMethod != "bitsandbytes" {
		return fail(ErrUnsupported, "quant_method %q: only bitsandbytes is read", *j.QuantMethod)
	}
	if !is(j.LoadIn4Bit, j.AlsoLoadIn4Bit) || is(j.LoadIn8Bit, j.AlsoLoadIn8Bit) {
		return fail(ErrUnsupported, "only 4-bit weights are read (load_in_4bit)")
	}
	c := Config4{Type: "fp4", ComputeDType: "float32", Storage: "uint8", Double: is(j.Double), SkipModules: j.SkipModules}
	for _, s := range []struct {
		to   *string
		from *string
	}{{&c.Type, j.Type}, {&c.ComputeDType, j.ComputeDType}, {&c.Storage, j.Storage}} {
		if s.from != nil {
			*s.to = strings.TrimPrefix(*s.from, "torch.")
		}
	}
	if codebooks[c.Type] == nil {
		return fail(ErrUnsupported, "bnb_4bit_quant_type %q: use nf4 or fp4", c.Type)
	}
	for _, p := range c.SkipModules {
		if _, err := skipPattern(p); err != nil {
			return fail(ErrUnsupported, "llm_int8_skip_modules: %v", err)
		}
	}
	return c, nil
}

// Quantized reports whether transformers quantizes the linear layer with this
// module name, such as "model.layers.0.mlp.up_proj". DefaultSkip is what the
// model leaves alone by itself, the output head and modules tied to it
// ("lm_head"); a list in the configuration replaces it. A module is left alone
// if an entry is the end of its name or, as a regular expression, matches it
// from the start to a dot or the end. Embeddings and norms are no linear
// layers: they are not to be asked about.
func (c Config4) Quantized(module string, defaultSkip ...string) bool {
	skip := c.SkipModules
	if skip == nil {
		skip = defaultSkip
	}
	for _, p := range skip {
		if strings.HasSuffix(module, p) {
			return false
		}
		re, err := skipPattern(p)
		if err != nil {
			continue
		}
		for i := range len(module) + 1 {
			// Boundaries: the end, before a dot and after one.
			if (i == len(module) || module[i] == '.' || i > 0 && module[i-1] == '.') && re.MatchString(module[:i]) {
				return false
			}
		}
	}
	return true
}

func skipPattern(p string) (*regexp.Regexp, error) { return regexp.Compile("^(?:" + p + ")$") }
