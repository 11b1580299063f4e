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
	Bias          *string          `json:"bias"`
	DoRA          bool             `json:"use_dora"`
	LoraBias      bool             `json:"lora_bias"`
	ModulesToSave []string         `json:"modules_to_save"`
	TokenIndices  tokenIndices     `json:"trainable_token_indices"`
	TieWeights    bool             `json:"ensure_weight_tying"`

	Rest map[string]jsontext.Value `json:",embed"`
}

// unrepresentable lists keys whose presence, with a value that is not empty, means that the adapter
// does something that pairs do not say, each with what and the way around.
var unrepresentable = []struct{ key, what, instead string }{
	{"target_parameters", "parameters that are no linear layer's weight", "train with target_modules"},
	{"layer_replication", "repeated layers", "make the model with repeated layers first"},
	{"alora_invocation_tokens", "an adapter active only after certain tokens", "train without alora_invocation_tokens"},
	{"use_qalora", "QA-LoRA's pooled inputs", "train without use_qalora"},
	{"use_bdlora", "block-diagonal factors", "train without use_bdlora"},
	{"arrow_config", "routing between adapters", "name one of the adapters instead"},
	{"kasa_config", "KaSA's singular values", "train plain LoRA"},
}

// Keys that say which of the modules that target_modules names are adapted. Where one is set the list
// names more than the adapter has, so it is not kept: the tensors say.
var narrowing = []string{"exclude_modules", "layers_to_transform", "layers_pattern"}

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
		return nil, fmt.Errorf("%w: peft_type %q; only LORA is known: merge it into its base with PEFT (merge_and_unload) and use that", ErrUnsupported, c.PEFTType)
	}
	for _, u := range unrepresentable {
		if isSet(c.Rest[u.key]) {
			return nil, fmt.Errorf("%w: %s is set: %s; %s", ErrUnsupported, u.key, u.what, u.instead)
		}
	}
	if c.Bias != nil && *c.Bias != "none" && *c.Bias != "all" && *c.Bias != "lora_only" {
		return nil, fmt.Errorf("%w: adapter_config.json: bias is %q, not none, all or lora_only", ErrFormat, *c.Bias)
	}
	if c.DoRA && c.LoraBias {
		return nil, fmt.Errorf("%w: use_dora and lora_bias are both set, which PEFT refuses too; train without one of them", ErrUnsupported)
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
	out := Config{R: *c.R, Alpha: *c.Alpha, RSLoRA: c.RSLoRA, Dropout: c.Dropout, TieWeights: c.TieWeights}
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
		for _, key := range narrowing {
			if isSet(c.Rest[key]) {
				out.TargetModules = nil
			}
		}
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
			return fmt.Errorf("expression %q has what Go's regular expressions do not know; write it without looking ahead or behind and without references back: %w", key, err)
		}
		e.re = re
		*p = append(*p, e)
	}
	_, err := d.ReadToken()
	return err
}

// tokenIndices is trainable_token_indices: lists of rows by the name of a table, which may be the last
// parts of its path; under "" those of a list without a name, the rows of the embedding table.
type tokenIndices map[string][]int

// UnmarshalJSONFrom reads either form. It makes tokenIndices a json.UnmarshalerFrom.
func (t *tokenIndices) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case 'n':
		return d.SkipValue()
	case '[':
		var list []int
		if err := json.UnmarshalDecode(d, &list); err != nil {
			return err
		}
		if len(list) > 0 {
			*t = tokenIndices{"": list}
		}
		return nil
	}
	var named map[string][]int
	err := json.UnmarshalDecode(d, &named)
	*t = named
	return err
}

// of returns the rows of a table.
func (t tokenIndices) of(module string) ([]int, bool) {
	for name, list := range t {
		if names(name, module) {
			return list, true
		}
	}
	list, ok := t[""]
	return list, ok
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
func encodeConfig(a *Adapter, v variants) ([]byte, error) {
	c := &a.Config
	ranks, alphas := map[string]int{}, map[string]any{}
	base := *c
	if base.R < 1 && len(a.Pairs) > 0 {
		base.R = a.Pairs[0].R
		base.Alpha = base.alpha(base.R, a.Pairs[0].Scale)
	} else if base.R < 1 {
		base.R, base.Alpha = 8, 8
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
		"alpha_pattern": alphas, "base_model_name_or_path": orNull(c.BaseModel), "bias": v.bias,
		"fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
		"lora_alpha": number(base.Alpha), "lora_dropout": c.Dropout, "modules_to_save": v.modulesToSave(),
		"peft_type": "LORA", "r": base.R, "rank_pattern": ranks, "target_modules": targets(a),
		"task_type": orNull(c.TaskType), "use_dora": v.dora, "use_rslora": c.RSLoRA,
	}
	if v.loraBias {
		h["lora_bias"] = true
	}
	if c.TieWeights {
		h["ensure_weight_tying"] = true
	}
	if len(a.Rows) == 1 && lastPart(a.Rows[0].Module) == "embed_tokens" {
		h["trainable_token_indices"] = a.Rows[0].Indices
	} else if len(a.Rows) > 0 {
		rows := map[string][]int{}
		for i := range a.Rows {
			rows[a.Rows[i].Module] = a.Rows[i].Indices
		}
		h["trainable_token_indices"] = rows
	}
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, h, jsontext.WithIndent("  "), json.Deterministic(true)); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// variants is what PEFT says once for the whole of an adapter.
type variants struct {
	dora, loraBias bool
	bias           string   // none, lora_only or all
	saved          []string // modules_to_save, nil where there are none
}

func (v *variants) modulesToSave() any {
	if len(v.saved) == 0 {
		return nil
	}
	return v.saved
}

// variants fails with ErrUnsupported on an adapter that PEFT has no configuration for.
func (a *Adapter) variants() (v variants, err error) {
	v.bias = "none"
	for i := range a.Pairs {
		p := &a.Pairs[i]
		v.dora = v.dora || p.Magnitude != nil
		v.loraBias = v.loraBias || p.Bias != nil
	}
	for i := range a.Pairs {
		if p := &a.Pairs[i]; v.loraBias && p.Table {
			return v, fmt.Errorf("%w: a pair on the table %q beside pairs with biases (lora_bias), which PEFT does not load; merge it into its base", ErrUnsupported, p.Module)
		}
		if p := &a.Pairs[i]; v.dora && (p.Magnitude == nil || p.Bias != nil) {
			return v, fmt.Errorf("%w: %q is plain LoRA or has a bias where other modules are DoRA, and PEFT knows one for all; merge it into its base", ErrUnsupported, p.Module)
		}
	}
	for i := range a.Whole {
		module, ok := strings.CutSuffix(a.Whole[i].Name, ".bias")
		switch {
		case !ok:
			module = strings.TrimSuffix(a.Whole[i].Name, ".weight")
			v.saved = append(v.saved, module)
		case a.WholeOf(module+".weight") != nil: // the bias of a module saved whole
		case a.Pair(module) != nil:
			if v.bias == "none" {
				v.bias = "lora_only"
			}
		default:
			v.bias = "all"
		}
	}
	return v, nil
}

// names reports whether a name in a list of PEFT's stands for a module: it is the module's path or its
// last parts.
func names(name, module string) bool {
	return name == module || name != "" && strings.HasSuffix(module, "."+name)
}

// lastPart is what stands behind the last point of a module's path.
func lastPart(module string) string { return module[strings.LastIndexByte(module, '.')+1:] }

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
			return names(t, a.Pairs[i].Module)
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
