package train

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// This file reads and writes recipes: one YAML mapping, flat but for a few keys (values.go). Values are checked against the type of
// their key here, so that a message can name the key and the line.

// maxRecipe is far above any recipe.
const maxRecipe = 1 << 20

// LoadRecipe reads a recipe file and applies overrides, each "key=value", on top. With path "" the
// overrides stand alone. Keys that are in neither have their default. The recipe is not validated.
func LoadRecipe(path string, overrides ...string) (Recipe, error) {
	var data []byte
	if path != "" {
		info, err := os.Stat(path)
		if err != nil {
			return Recipe{}, fmt.Errorf("train: reading recipe: %w: %w", ErrRecipe, err)
		}
		if info.Size() > maxRecipe {
			return Recipe{}, fmt.Errorf("train: reading recipe %q: %w: larger than %d bytes", path, ErrRecipe, maxRecipe)
		}
		if data, err = os.ReadFile(path); err != nil {
			return Recipe{}, fmt.Errorf("train: reading recipe: %w: %w", ErrRecipe, err)
		}
	}
	r, err := ParseRecipe(data)
	if err != nil {
		return Recipe{}, fmt.Errorf("train: reading recipe %q: %w", path, err)
	}
	for _, o := range overrides {
		if err := r.Set(o); err != nil {
			return Recipe{}, err
		}
	}
	return r, nil
}

// ParseRecipe reads a recipe. The error wraps ErrRecipe and names the line.
func ParseRecipe(data []byte) (Recipe, error) {
	r := Defaults()
	r.given = map[string]bool{}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return Recipe{}, fmt.Errorf("%w: not YAML: %s", ErrRecipe, oneLine(err))
	}
	if len(file.Docs) > 1 {
		return Recipe{}, fmt.Errorf("%w: it has %d documents, not one", ErrRecipe, len(file.Docs))
	}
	for _, doc := range file.Docs {
		if err := r.decode(doc.Body); err != nil {
			return Recipe{}, err
		}
	}
	return r, nil
}

// oneLine is the message of a YAML error without the excerpt of the source.
func oneLine(err error) string {
	text, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
	return text
}

func (r *Recipe) decode(body ast.Node) error {
	var entries []*ast.MappingValueNode
	switch n := body.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return nil
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{n}
	default:
		return fmt.Errorf("%w: line %d: a recipe is a list of \"key: value\" lines", ErrRecipe, body.GetToken().Position.Line)
	}
	for _, e := range entries {
		key, line := e.Key.GetToken().Value, e.Key.GetToken().Position.Line
		f, err := r.field(key)
		if err != nil {
			return fmt.Errorf("%w: line %d: %w", ErrRecipe, line, err)
		}
		if r.given[key] {
			return fmt.Errorf("%w: line %d: key %q stands there twice", ErrRecipe, line, key)
		}
		if _, null := e.Value.(*ast.NullNode); null || e.Value == nil {
			continue // "key:" leaves the default
		}
		if err := setNode(f, e.Value); err != nil {
			return fmt.Errorf("%w: line %d: %s %w", ErrRecipe, line, key, err)
		}
		r.given[key] = true
	}
	return nil
}

// Set applies one "key=value". A value is written as in the file; lists are written [a, b] or a,b.
func (r *Recipe) Set(override string) error {
	key, value, ok := strings.Cut(override, "=")
	if !ok {
		return fmt.Errorf("train: setting %q: %w: wanted key=value", override, ErrRecipe)
	}
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	f, err := r.field(key)
	if err == nil {
		err = setText(f, value)
		if err != nil {
			err = fmt.Errorf("%s %w", key, err)
		}
	}
	if err != nil {
		return fmt.Errorf("train: setting %q: %w: %w", override, ErrRecipe, err)
	}
	if r.given == nil {
		r.given = map[string]bool{}
	}
	r.given[key] = true
	return nil
}

// keys lists the recipe's keys in order.
func keys() []string {
	var out []string
	t := reflect.TypeFor[Recipe]()
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" {
			out = append(out, key)
		}
	}
	return out
}

// field returns the field of a key.
func (r *Recipe) field(key string) (reflect.Value, error) {
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == key && key != "" {
			return v.Field(i), nil
		}
	}
	return reflect.Value{}, fmt.Errorf("unknown key %q; did you mean %q?", clip(key), nearest(key, keys()))
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// nearest returns the name with the smallest edit distance (Levenshtein 1966).
func nearest(key string, names []string) string {
	key = clip(key)
	return slices.MinFunc(names, func(a, b string) int { return distance(key, a) - distance(key, b) })
}

func distance(a, b string) int {
	row := make([]int, len(b)+1) // row[j] is the distance of the part of a so far from b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// setNode sets a field from a YAML value.
func setNode(f reflect.Value, n ast.Node) error {
	if v, ok := f.Addr().Interface().(value); ok {
		return v.fromYAML(n)
	}
	switch n := n.(type) {
	case *ast.SequenceNode:
		var list []string
		for _, item := range n.Values {
			s, ok := item.(*ast.StringNode)
			if !ok {
				return fmt.Errorf("has an entry that is %s, not a string", nodeName(item))
			}
			list = append(list, s.Value)
		}
		return setList(f, list)
	case *ast.LiteralNode:
		return setString(f, strings.TrimSpace(n.Value.Value))
	case *ast.StringNode:
		if k := f.Kind(); k == reflect.Float64 && unquoted(n) { // 1e-4 is a string in YAML 1.1, a number to us
			return setText(f, n.Value)
		}
		return setString(f, n.Value)
	case *ast.BoolNode:
		if f.Kind() != reflect.Bool {
			return mistyped(f, nodeName(n))
		}
		f.SetBool(n.Value)
		return nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		if k := f.Kind(); k != reflect.Int && k != reflect.Float64 {
			return mistyped(f, "the number "+n.GetToken().Value)
		}
		return setText(f, strings.ReplaceAll(n.GetToken().Value, "_", ""))
	}
	return mistyped(f, nodeName(n))
}

func unquoted(n *ast.StringNode) bool {
	return n.Token.Origin == "" || !strings.ContainsAny(n.Token.Origin, `"'`)
}

func nodeName(n ast.Node) string {
	switch n.(type) {
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.BoolNode:
		return "a truth value"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	case *ast.AliasNode, *ast.AnchorNode, *ast.TagNode:
		return "an anchor, alias or tag"
	}
	return "no plain value"
}

// mistyped is the error about a value of another type than its key's.
func mistyped(f reflect.Value, got string) error {
	want := "a string"
	switch f.Kind() {
	case reflect.Int:
		want = "a whole number"
	case reflect.Float64:
		want = "a number"
	case reflect.Bool:
		want = "true or false"
	case reflect.Slice, reflect.Struct:
		want = "a string or a list of strings"
	}
	return fmt.Errorf("is %s, not %s", got, want)
}

// setString sets a field that takes strings.
func setString(f reflect.Value, s string) error {
	switch v := f.Addr().Interface().(type) {
	case *string:
		*v = s
	case *[]string:
		*v = nil
		if s != "" {
			*v = []string{s}
		}
	case *Targets:
		*v = Targets{Pattern: s}
	default:
		return mistyped(f, strconv.Quote(clip(s)))
	}
	return nil
}

func setList(f reflect.Value, list []string) error {
	switch v := f.Addr().Interface().(type) {
	case *[]string:
		*v = list
	case *Targets:
		*v = Targets{Modules: list}
	default:
		return mistyped(f, "a list")
	}
	return nil
}

// setText sets a field from text as it stands on a command line.
func setText(f reflect.Value, s string) error {
	if v, ok := f.Addr().Interface().(value); ok {
		if strings.Contains(s, ",") && !strings.ContainsAny(s, "[{") {
			s = "[" + s + "]"
		}
		n, err := parseValue(s)
		if err != nil {
			return err
		}
		return v.fromYAML(n)
	}
	switch f.Kind() {
	case reflect.Int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return mistyped(f, strconv.Quote(clip(s)))
		}
		f.SetInt(int64(n))
	case reflect.Float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return mistyped(f, strconv.Quote(clip(s)))
		}
		f.SetFloat(x)
	case reflect.Bool:
		if s != "true" && s != "false" {
			return mistyped(f, strconv.Quote(clip(s)))
		}
		f.SetBool(s == "true")
	case reflect.String:
		f.SetString(s)
	default:
		inner, listed := strings.CutPrefix(s, "[")
		if listed {
			inner, listed = strings.CutSuffix(inner, "]")
		}
		if !listed && (!strings.Contains(s, ",") || f.Kind() == reflect.Struct && strings.ContainsAny(s, `\()*+?|^$`)) {
			return setString(f, s)
		}
		if !listed {
			inner = s
		}
		var list []string
		for _, item := range strings.Split(inner, ",") {
			if item = strings.Trim(strings.TrimSpace(item), `"'`); item != "" {
				list = append(list, item)
			}
		}
		return setList(f, list)
	}
	return nil
}

// YAML writes the recipe as a file with every key, which reads back as the same recipe. One for full
// training lacks the keys that only an adapter has, and one for a single adapter the list of several.
func (r *Recipe) YAML() []byte {
	var b bytes.Buffer
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("yaml")
		absent := r.isDefault(key) && (r.Method == "full" && slices.Contains(adapterKeys, key) || key == "adapters")
		if key != "" && !absent {
			fmt.Fprintf(&b, "%s: %s\n", key, scalar(v.Field(i)))
		}
	}
	return b.Bytes()
}

// brief writes the keys that were given, which is what a recipe of several adapters is: what follows from
// others differs between them.
func (r *Recipe) brief() []byte {
	var b bytes.Buffer
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		if key := v.Type().Field(i).Tag.Get("yaml"); key != "" && (r.given[key] || !r.isDefault(key)) {
			fmt.Fprintf(&b, "%s: %s\n", key, scalar(v.Field(i)))
		}
	}
	return b.Bytes()
}

// scalar writes a value on one line.
func scalar(f reflect.Value) string {
	if v, ok := f.Addr().Interface().(value); ok {
		return v.yaml()
	}
	switch v := f.Interface().(type) {
	case string:
		return quoteYAML(v)
	case []string:
		return listYAML(v)
	case Targets:
		if len(v.Modules) > 0 {
			return listYAML(v.Modules)
		}
		return quoteYAML(v.Pattern)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return fmt.Sprint(f.Interface())
}

func listYAML(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quoteYAML(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// quoteYAML leaves plain words alone and writes everything else in double quotes.
func quoteYAML(s string) string {
	plain := s != "" && s != "true" && s != "false" && s != "null" && s != "yes" && s != "no" && s != "on" && s != "off"
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '/' && i >= 0
		plain = plain && (letter || i > 0 && (c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'))
	}
	if plain {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < 0x20 || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0x2028 || c == 0x2029 || c == 0xfeff:
			if c > 0xff {
				fmt.Fprintf(&b, `\u%04X`, c)
			} else {
				fmt.Fprintf(&b, `\x%02X`, c)
			}
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// isDefault reports whether a key has the value it has where nobody gives it one.
func (r *Recipe) isDefault(key string) bool {
	defaults := Defaults()
	f, err := r.field(key)
	d, _ := defaults.field(key)
	return err == nil && scalar(f) == scalar(d)
}

// changed names the first key, other than those in but, in which two recipes differ, and both values.
func (r *Recipe) changed(o *Recipe, but ...string) (key, was, is string) {
	a, b := reflect.ValueOf(r).Elem(), reflect.ValueOf(o).Elem()
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("yaml")
		if key == "" || slices.Contains(but, key) {
			continue
		}
		if was, is := scalar(a.Field(i)), scalar(b.Field(i)); was != is {
			return key, was, is
		}
	}
	return "", "", ""
}
