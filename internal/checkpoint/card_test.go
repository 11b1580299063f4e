package checkpoint

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/testfile"
)

// keysOf returns what a folder's card and generation defaults say, as keys of a GGUF file.
func keysOf(dir string, card, generation []byte) map[string]any {
	var m Meta
	readCard(card, &m)
	if m.Name == "" {
		m.Name = folderName(dir, nil)
	}
	readSampling(generation, &m)
	keys := map[string]any{"general.name": m.Name}
	if m.License != "" {
		keys["general.license"] = m.License
	}
	if m.Languages != nil {
		keys["general.languages"] = m.Languages
	}
	for _, kv := range m.Provenance {
		keys[kv.Key] = kv.Value
	}
	return keys
}

// Cards are read as gguf-py reads them, and a card made of the keys says the same again.
func TestCards(t *testing.T) {
	var cases []struct {
		Name, Card, Generation string
		Keys                   map[string][2]any
	}
	testfile.ReadJSON(t, "../../testdata/golden/card/cards.json", &cases)
	if len(cases) < 8 {
		t.Fatalf("%d cards", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			want := map[string]any{}
			for key, v := range c.Keys {
				switch n, _ := v[1].(float64); v[0] {
				case "string":
					want[key] = v[1]
				case "uint32":
					want[key] = uint32(n)
				case "int32":
					want[key] = int32(n)
				case "float32":
					want[key] = float32(n)
				case "array":
					var list []string
					for _, s := range v[1].([]any) {
						list = append(list, s.(string))
					}
					want[key] = list
				default:
					t.Fatalf("key %q of type %v", key, v[0])
				}
			}
			dir := filepath.Join(t.TempDir(), "folder")
			got := keysOf(dir, []byte(c.Card), []byte(c.Generation))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("keys (-gguf-py +ours):\n%s", diff)
			}
			var m Meta
			readCard([]byte(c.Card), &m)
			card, err := writeCard(&m)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, keysOf(dir, card, []byte(c.Generation))); diff != "" {
				t.Errorf("our card says otherwise (-want +got):\n%s\n%s", diff, card)
			}
		})
	}
}

func TestSampling(t *testing.T) {
	fields := map[string]any{}
	addSampling(fields, []gguf.KV{gguf.Entry("general.sampling.temp", float32(0.5)), gguf.Entry("general.sampling.top_k", int32(7)), gguf.Entry("general.sampling.top_p", "?")})
	if diff := cmp.Diff(map[string]any{"temperature": float32(0.5), "top_k": int32(7), "do_sample": true}, fields); diff != "" {
		t.Error(diff)
	}
}

func TestNames(t *testing.T) {
	for n, want := range map[int64]string{134_515_008: "135M", 1_235_814_400: "1.2B", 8_030_261_248: "8.0B", 70_553_706_496: "71B", 600_000: "600K", 9_960_000_000: "10B"} {
		if got := sizeLabel(n); got != want {
			t.Errorf("%d parameters are %s, want %s", n, got, want)
		}
	}
	for id, want := range map[string]string{`"meta-llama/Llama-3.2-1B"`: "Llama 3.2 1B", `"/data/a/b"`: "My Model v2", `"./x"`: "My Model v2", `7`: "My Model v2", `""`: "My Model v2"} {
		if got := folderName("/models/my-model-v2", []byte(id)); got != want {
			t.Errorf("%s is called %q, want %q", id, got, want)
		}
	}
}

// FuzzCard: no card panics or grows, and one that we write is read as it was meant.
func FuzzCard(f *testing.F) {
	var cases []struct{ Card string }
	testfile.ReadJSON(f, "../../testdata/golden/card/cards.json", &cases)
	for _, c := range cases {
		f.Add([]byte(c.Card))
	}
	f.Add([]byte("---\na: &a [x]\nb: [*a, *a]\nlicense: [{}]\nbase_model: [[1], {name: 3}]\n---\n"))
	f.Fuzz(func(t *testing.T, card []byte) {
		var m, again Meta
		readCard(card, &m)
		written, err := writeCard(&m)
		if err != nil {
			t.Fatal(err)
		}
		readCard(written, &again)
		if m.License != again.License {
			t.Errorf("license %q, then %q", m.License, again.License)
		}
	})
}
