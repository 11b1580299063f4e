package train

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// This file is the values of keys that are no plain words, numbers or lists of words.

// value is one of them.
type value interface {
	// fromYAML sets it. The error continues a sentence that begins with the key.
	fromYAML(n ast.Node) error
	// yaml writes it on one line.
	yaml() string
}

// Patterns is numbers by regular expressions over module paths, in order: of those that match a whole
// path, or all of it behind a point, the first counts. PEFT's rank_pattern and alpha_pattern.
type Patterns []Pattern

// Pattern is one of Patterns.
type Pattern struct {
	Expression string
	Value      float64
}

func (p *Patterns) fromYAML(n ast.Node) error {
	*p = nil
	entries, ok := mapping(n)
	if !ok {
		return fmt.Errorf("is %s, not a mapping of expressions to numbers: {q_proj: 4}", nodeName(n))
	}
	for _, e := range entries {
		key := e.Key.GetToken().Value
		v, err := strconv.ParseFloat(strings.ReplaceAll(e.Value.GetToken().Value, "_", ""), 64)
		if _, quoted := e.Value.(*ast.StringNode); err != nil || v-v != 0 || quoted && !unquoted(e.Value.(*ast.StringNode)) {
			return fmt.Errorf("has for %q a value that is no number", clip(key))
		}
		if _, err := compilePattern(key); err != nil {
			return fmt.Errorf("has %q, which is not a regular expression: %w", clip(key), err)
		}
		if slices.ContainsFunc(*p, func(p Pattern) bool { return p.Expression == key }) {
			return fmt.Errorf("has %q twice", clip(key))
		}
		*p = append(*p, Pattern{key, v})
	}
	return nil
}

func (p Patterns) yaml() string {
	list := make([]string, len(p))
	for i, e := range p {
		list[i] = quoteYAML(e.Expression) + ": " + strconv.FormatFloat(e.Value, 'g', -1, 64)
	}
	return "{" + strings.Join(list, ", ") + "}"
}

func compilePattern(key string) (*regexp.Regexp, error) {
	return regexp.Compile(`^(?:.*\.)?(?:` + key + `)$`)
}

// choose returns the value of a module, otherwise where no expression matches, and marks the expression
// that did in used, which is as long as p.
func (p Patterns) choose(module string, otherwise float64, used []bool) (float64, error) {
	for i, e := range p {
		re, err := compilePattern(e.Expression)
		if err != nil {
			return 0, fmt.Errorf("%q is not a regular expression: %w", e.Expression, err)
		}
		if re.MatchString(module) {
			used[i] = true
			return e.Value, nil
		}
	}
	return otherwise, nil
}

// Layers is numbers of decoder blocks, counted from 0; a single one can stand for a list.
type Layers []int

func (l *Layers) fromYAML(n ast.Node) (err error) {
	*l, err = integers(n)
	return err
}

func (l Layers) yaml() string { return integersYAML(l) }

// integers reads a whole number or a list of them.
func integers(n ast.Node) (out []int, err error) {
	items := []ast.Node{n}
	if list, ok := n.(*ast.SequenceNode); ok {
		items = list.Values
	}
	for _, item := range items {
		_, isNumber := item.(*ast.IntegerNode)
		v, err := strconv.Atoi(strings.ReplaceAll(item.GetToken().Value, "_", ""))
		if err != nil || !isNumber {
			return nil, fmt.Errorf("is not a list of whole numbers: [0, 3]")
		}
		out = append(out, v)
	}
	return out, nil
}

func integersYAML(list []int) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = strconv.Itoa(v)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// TokenIndices is rows of tables by the last parts of a table's path; those under "" are of the embedding
// table. PEFT's trainable_token_indices.
type TokenIndices map[string][]int

func (t *TokenIndices) fromYAML(n ast.Node) error {
	*t = nil
	if entries, ok := mapping(n); ok {
		for _, e := range entries {
			key := e.Key.GetToken().Value
			list, err := integers(e.Value)
			if err != nil || len(list) == 0 || (*t)[key] != nil || key == "" {
				return fmt.Errorf("has for %q no list of tokens, or has it twice: {embed_tokens: [49152, 49153]}", clip(key))
			}
			if *t == nil {
				*t = TokenIndices{}
			}
			(*t)[key] = list
		}
		return nil
	}
	list, err := integers(n)
	if err == nil && len(list) > 0 {
		*t = TokenIndices{"": list}
	}
	return err
}

func (t TokenIndices) yaml() string {
	if list, ok := t[""]; ok || len(t) == 0 {
		return integersYAML(list)
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(t)) {
		out = append(out, quoteYAML(name)+": "+integersYAML(t[name]))
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// Init is how an adapter's pairs begin, PEFT's init_lora_weights: "true", "false", "gaussian",
// "orthogonal", "pissa", "pissa_niter_N", "olora".
type Init string

func (i *Init) fromYAML(n ast.Node) error {
	switch n.(type) {
	case *ast.BoolNode, *ast.StringNode:
		*i = Init(n.GetToken().Value)
		return nil
	}
	return fmt.Errorf("is %s, not true, false or a name", nodeName(n))
}

func (i Init) yaml() string {
	if i == "true" || i == "false" {
		return string(i)
	}
	return quoteYAML(string(i))
}

// AdapterRecipe is one of several adapters of a run.
type AdapterRecipe struct {
	Name string // of its folder within out
	// Keys are those of a recipe that this adapter has otherwise than the others, with values as YAML
	// writes them.
	Keys map[string]string
}

// AdapterRecipes is the adapters of a run, in the order in which they are trained.
type AdapterRecipes []AdapterRecipe

func (a *AdapterRecipes) fromYAML(n ast.Node) error {
	*a = nil
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return fmt.Errorf("is %s, not a list of mappings: [{name: one, data: a.jsonl}, {name: two, data: b.jsonl}]", nodeName(n))
	}
	for i, item := range list.Values {
		entries, ok := mapping(item)
		if !ok {
			return fmt.Errorf("has as entry %d %s, not a mapping with a name", i+1, nodeName(item))
		}
		one := AdapterRecipe{Keys: map[string]string{}}
		scratch := Defaults()
		for _, e := range entries {
			key := e.Key.GetToken().Value
			if key == "name" {
				s, ok := e.Value.(*ast.StringNode)
				if !ok || one.Name != "" {
					return fmt.Errorf("has in entry %d a name that is no string, or two", i+1)
				}
				one.Name = s.Value
				continue
			}
			f, err := scratch.field(key)
			if err != nil {
				return fmt.Errorf("has in entry %d an %w", i+1, err)
			}
			if _, ok := one.Keys[key]; ok {
				return fmt.Errorf("has in entry %d the key %q twice", i+1, clip(key))
			}
			if _, nested := f.Addr().Interface().(*AdapterRecipes); nested {
				return fmt.Errorf("has in entry %d adapters of its own", i+1)
			}
			if _, null := e.Value.(*ast.NullNode); null || e.Value == nil {
				continue
			}
			if err := setNode(f, e.Value); err != nil {
				return fmt.Errorf("has in entry %d: %s %w", i+1, key, err)
			}
			one.Keys[key] = scalar(f)
		}
		*a = append(*a, one)
	}
	return nil
}

func (a AdapterRecipes) yaml() string {
	out := make([]string, len(a))
	for i, one := range a {
		out[i] = "{name: " + quoteYAML(one.Name)
		for _, key := range slices.Sorted(maps.Keys(one.Keys)) {
			out[i] += ", " + key + ": " + one.Keys[key]
		}
		out[i] += "}"
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// mapping returns the entries of a mapping.
func mapping(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// parseValue reads a value as it stands behind a key.
func parseValue(s string) (ast.Node, error) {
	file, err := parser.ParseBytes([]byte(s), 0)
	if err != nil {
		return nil, fmt.Errorf("is not YAML: %s", oneLine(err))
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, fmt.Errorf("has no value")
	}
	return file.Docs[0].Body, nil
}
