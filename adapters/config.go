package adapters

// adapter_config.json of PEFT: what it means for the numbers, and what is written back.

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// peftConfig is adapter_config.json as far as it is interpreted. Unknown keys are left alone.
type peftConfig struct {
	PEFTType      string           `json:"peft_type"`
	R             *int             `json:"r"`
	Alpha         *float64         `json:"lora_alpha"`
	Dropout       float64          `json:"lora_dropout"`
	RSLoRA        bool             `json:"use_rslora"`
	TargetModules jsontext.Value   `json:"target_modules"`
	BaseModel     *string          `json:"base_model_name_or_path"`
	TaskType      *string          `json:"task_type"`
	RankPattern   pattern[int]     `json:"rank_pattern"`
	AlphaPattern  pattern[float64] `json:"alpha_pattern"`

	Rest map[string]jsontext.Value `json:",embed"`
}

// unrepresentable lists keys whose presence, with a value that is not empty, means that the adapter
// does something that pairs do not say, each with what and the way around.
var unrepresentable = []struct{ key, what, instead string }{
	{"use_dora", "DoRA, which also rescales every row", "merge it into its base with PEFT (merge_and_unload) first"},
	{"modules_to_save", "whole modules trained along with it", "merge it into its base with PEFT (merge_and_unload) first"},
	{"trainable_token_indices", "replaced rows of the embedding table", "merge it into its base with PEFT (merge_and_unload) first"},
	{"lora_bias", "biases on the B matrices", "merge it into its base with PEFT (merge_and_unload) first"},
	{"fan_in_fan_out", "transposed weights (Conv1D, GPT-2)", "use a base model with linear layers"},
	{"target_parameters", "parameters that are no linear layer's weight", "train with target_modules"},
	{"layer_replication", "repeated layers", "make the model with repeated layers first"},
	{"alora_invocation_tokens", "an adapter active only after certain tokens", "train without alora_invocation_tokens"},
	{"use_qalora", "QA-LoRA's pooled inputs", "train without use_qalora"},
	{"use_bdlora", "block-diagonal factors", "train without use_bdlora"},
	{"arrow_config", "routing between adapters", "name one of the adapters instead"},
	{"kasa_config", "KaSA's singular values", "train plain LoRA"},
}

// baseChanging are values of init_lora_weights that change the base's weights when the adapter is
// made: the pairs alone are then a difference from a model that is not stored.
var baseChanging = []string{"pissa", "olora", "corda", "loftq", "lora_ga"}

// parseConfig reads adapter_config.json. The error wraps ErrFormat or ErrUnsupported.
func parseConfig(data []byte) (*peftConfig, error) {
	var c peftConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%w: adapter_config.json: %w", ErrFormat, err)
	}
	if c.PEFTType != "LORA" {
		return nil, fmt.Errorf("%w: peft_type %q; only LORA adapters are pairs of matrices", ErrUnsupported, c.PEFTType)
	}
	for _, u := range unrepresentable {
		if isSet(c.Rest[u.key]) {
			return nil, fmt.Errorf("%w: %s is set: %s; %s", ErrUnsupported, u.key, u.what, u.instead)
		}
	}
	var bias string
	if v, ok := c.Rest["bias"]; ok && v.Kind() != 'n' {
		if err := json.Unmarshal(v, &bias); err != nil {
			return nil, fmt.Errorf("%w: adapter_config.json: bias: %w", ErrFormat, err)
		}
	}
	if bias != "" && bias != "none" {
		return nil, fmt.Errorf("%w: bias is %q: biases trained along with it; merge it into its base with PEFT (merge_and_unload) first", ErrUnsupported, bias)
	}
	if v := c.Rest["init_lora_weights"]; v.Kind() == '"' {
		var init string
		if err := json.Unmarshal(v, &init); err != nil {
			return nil, fmt.Errorf("%w: adapter_config.json: init_lora_weights: %w", ErrFormat, err)
		}
		for _, method := range baseChanging {
			if strings.HasPrefix(strings.ToLower(init), method) {
				return nil, fmt.Errorf("%w: init_lora_weights is %q, which changed the base's own weights; convert it in PEFT (save_pretrained with path_initial_model_for_weight_conversion) first", ErrUnsupported, init)
			}
		}
	}
	return &c, c.validate()
}

// validate checks the numbers and sets PEFT's defaults.
func (c *peftConfig) validate() error {
	if c.R == nil {
		c.R = ptr(8)
	}
	if c.Alpha == nil {
		c.Alpha = ptr(8.0)
	}
	if *c.R < 1 || math.Abs(*c.Alpha) > math.MaxFloat32 {
		return fmt.Errorf("%w: adapter_config.json: r is %d and lora_alpha %v", ErrFormat, *c.R, *c.Alpha)
	}
	return nil
}

// config returns what the file says, for those who read the adapter.
func (c *peftConfig) config() (Config, error) {
	out := Config{R: *c.R, Alpha: *c.Alpha, RSLoRA: c.RSLoRA, Dropout: c.Dropout}
	if c.BaseModel != nil {
		out.BaseModel = *c.BaseModel
	}
	if c.TaskType != nil {
		out.TaskType = *c.TaskType
	}
	// A string is a regular expression over module paths. Which modules it meant is known from the
	// tensors, so it is not kept.
	switch c.TargetModules.Kind() {
	case '[':
		if err := json.Unmarshal(c.TargetModules, &out.TargetModules); err != nil {
			return out, fmt.Errorf("%w: adapter_config.json: target_modules: %w", ErrFormat, err)
		}
		slices.Sort(out.TargetModules)
	case '"', 'n', jsontext.KindInvalid:
	default:
		return out, fmt.Errorf("%w: adapter_config.json: target_modules is neither a list nor a string", ErrFormat)
	}
	return out, nil
}

// isSet reports whether a value turns an option on: anything but null, false, "", [] and {}.
func isSet(v jsontext.Value) bool {
	switch v.Kind() {
	case jsontext.KindInvalid, 'n', 'f':
		return false
	case '"', '[', '{':
		return len(bytes.TrimSpace(v[1:len(v)-1])) > 0
	}
	return true
}

// pattern is an ordered map from regular expressions over module paths to values: the first that
// matches counts.
type pattern[T any] []patternEntry[T]

type patternEntry[T any] struct {
	re    *regexp.Regexp
	value T
}

// UnmarshalJSONFrom reads an object and keeps its order. It makes pattern a json.UnmarshalerFrom.
func (p *pattern[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == 'n' {
		return d.SkipValue()
	}
	if tok, err := d.ReadToken(); err != nil {
		return err
	} else if tok.Kind() != '{' {
		return fmt.Errorf("want an object of expressions")
	}
	for d.PeekKind() != '}' {
		var key string
		var e patternEntry[T]
		if err := json.UnmarshalDecode(d, &key); err != nil {
			return err
		}
		if err := json.UnmarshalDecode(d, &e.value); err != nil {
			return err
		}
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + key + `)$`)
		if err != nil {
			return fmt.Errorf("expression %q is not one that Go's regular expressions know: %w", key, err)
		}
		e.re = re
		*p = append(*p, e)
	}
	_, err := d.ReadToken()
	return err
}

// lookup returns the value for a module, or otherwise where no expression matches.
func (p pattern[T]) lookup(module string, otherwise T) T {
	for _, e := range p {
		if e.re.MatchString(module) {
			return e.value
		}
	}
	return otherwise
}

func ptr[T any](v T) *T { return &v }

// encodeConfig makes the adapter_config.json of an adapter, with the keys that PEFT needs to
// rebuild it and no more, since older releases fail on keys they do not know.
func encodeConfig(a *Adapter) ([]byte, error) {
	c := &a.Config
	ranks, alphas := map[string]int{}, map[string]any{}
	base := *c
	if base.R < 1 {
		base.R = a.Pairs[0].R
		base.Alpha = base.alpha(base.R, a.Pairs[0].Scale)
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		if p.R != base.R {
			ranks[p.Module] = p.R
		}
		if p.Scale != base.scale(p.R, base.Alpha) {
			alphas[p.Module] = number(base.alpha(p.R, p.Scale))
		}
	}
	h := map[string]any{
		"alpha_pattern": alphas, "base_model_name_or_path": orNull(c.BaseModel), "bias": "none",
		"fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
		"lora_alpha": number(base.Alpha), "lora_dropout": c.Dropout, "modules_to_save": nil,
		"peft_type": "LORA", "r": base.R, "rank_pattern": ranks, "target_modules": targets(a),
		"task_type": orNull(c.TaskType), "use_dora": false, "use_rslora": c.RSLoRA,
	}
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, h, jsontext.WithIndent("  "), json.Deterministic(true)); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// number writes whole numbers without a point, as Python does with integers.
func number(v float64) any {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return int64(v)
	}
	return v
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// targets returns the configured list if it covers every pair, and the full paths of the pairs
// otherwise: what no entry covers, PEFT would not load.
func targets(a *Adapter) []string {
	list := slices.Clone(a.Config.TargetModules)
	slices.Sort(list)
	for i := range a.Pairs {
		if !slices.ContainsFunc(list, func(t string) bool {
			return a.Pairs[i].Module == t || strings.HasSuffix(a.Pairs[i].Module, "."+t)
		}) {
			list = list[:0]
			for j := range a.Pairs {
				list = append(list, a.Pairs[j].Module)
			}
			slices.Sort(list)
			break
		}
	}
	return slices.Compact(list)
}
