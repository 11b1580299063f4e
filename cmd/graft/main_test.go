package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/testhub"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/onnx/ort"
	"github.com/graftml/graft/safetensors"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"graft": main})
}

// TestScripts runs the scenarios in testdata. Each begins with a folder "model" (a tiny llama with a
// tokenizer) and the quickstart's rows in "rows.jsonl".
func TestScripts(t *testing.T) {
	rows, err := os.ReadFile("../../testdata/quickstart/pirate.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var short []string // rows that fit the tiny model's context
	for line := range strings.Lines(string(rows)) {
		if len(line) < 170 && len(short) < 20 {
			short = append(short, line)
		}
	}
	hub, err := startHub(t)
	if err != nil {
		t.Fatal(err)
	}
	_, noORT := ort.FindLibrary("")
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("GRAFT_ORT_LIB", os.Getenv("GRAFT_ORT_LIB"))
			e.Setenv("HF_ENDPOINT", hub)
			e.Setenv("HF_HOME", filepath.Join(e.WorkDir, "hf"))
			m, err := testmodel.Named("llama")
			if err != nil {
				return err
			}
			dir := filepath.Join(e.WorkDir, "model")
			if err := os.Mkdir(dir, 0o777); err != nil {
				return err
			}
			if err := m.WriteFolder(dir); err != nil {
				return err
			}
			for name, data := range testmodel.TokenizerFiles() {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
					return err
				}
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "rows.jsonl"), []byte(strings.Join(short, "")), 0o666)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "ort" { // ONNX Runtime is there; "make test" fetches it
				return noORT == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: damages,
	})
}

// startHub starts a hub with the tiny model, and with repositories that are wrong in some way:
// owner/broken sends other bytes than it lists, owner/cut breaks off the first answer for its large
// file, owner/evil lists a path outside its folder, owner/private wants the token "hf_secret".
func startHub(t *testing.T) (address string, err error) {
	dir := t.TempDir()
	m, err := testmodel.Named("llama")
	if err != nil {
		return "", err
	}
	if err := m.WriteFolder(dir); err != nil {
		return "", err
	}
	files := testmodel.TokenizerFiles()
	for _, name := range []string{"config.json", "model.safetensors"} {
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	hub := testhub.New(t)
	hub.Token = "hf_secret"
	hub.Add("owner/tiny", &testhub.Repo{Files: files})
	hub.Add("owner/private", &testhub.Repo{Files: files, Private: true})
	hub.Add("owner/evil", &testhub.Repo{Entries: []map[string]any{testhub.Entry("../evil", nil)}})
	broken, cut := []byte("LFS broken"), []byte("LFS "+strings.Repeat("cut", 100_000))
	hub.Add("owner/broken", &testhub.Repo{Files: map[string][]byte{"large": broken}})
	hub.Add("owner/cut", &testhub.Repo{Files: map[string][]byte{"large": cut}})
	hub.Intercept = func(w http.ResponseWriter, r *http.Request, stored bool) bool {
		switch {
		case stored && r.URL.Path == "/"+testhub.SHA256(broken):
			_, _ = w.Write([]byte("LFS BROKEN"))
			return true
		case stored && r.URL.Path == "/"+testhub.SHA256(cut) && r.Header.Get("Range") == "":
			w.Header().Set("Content-Length", fmt.Sprint(len(cut)))
			_, _ = w.Write(cut[:200_000])
			panic(http.ErrAbortHandler)
		}
		return false
	}
	return hub.URL, nil
}

// damages are the commands with which scripts hurt files.
var damages = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// damage FILE: changes one byte in the second half of a file
	"damage": func(ts *testscript.TestScript, _ bool, args []string) {
		path := ts.MkAbs(args[0])
		data, err := os.ReadFile(path)
		ts.Check(err)
		data[len(data)*3/4+1] ^= 0x41
		ts.Check(os.WriteFile(path, data, 0o666))
	},
	// wipe FILE: zeroes 4096 bytes in its middle
	"wipe": func(ts *testscript.TestScript, _ bool, args []string) {
		path := ts.MkAbs(args[0])
		data, err := os.ReadFile(path)
		ts.Check(err)
		clear(data[len(data)/2:][:4096])
		ts.Check(os.WriteFile(path, data, 0o666))
	},
	// negate FILE TENSOR: flips the sign of every value, of 4-bit codes to the mirrored ones
	"negate": func(ts *testscript.TestScript, _ bool, args []string) {
		patch(ts, args, func(dtype safetensors.DType, data []byte) {
			for i := range data {
				switch {
				case dtype == safetensors.U8:
					data[i] ^= 0xff
				case i%4 == 3:
					data[i] ^= 0x80
				}
			}
		})
	},
	// poison FILE TENSOR: makes the first value of the second row of 64 a NaN
	"poison": func(ts *testscript.TestScript, _ bool, args []string) {
		patch(ts, args, func(_ safetensors.DType, data []byte) { copy(data[4*64:], []byte{0, 0, 0xc0, 0x7f}) })
	},
	// store MODEL GOLDEN: the first block's q_proj and down_proj as testdata/golden/GOLDEN.safetensors has them
	"store": func(ts *testscript.TestScript, _ bool, args []string) { store(ts, args[0], args[1]) },
	// truncate FILE: cuts the last tenth off
	"truncate": func(ts *testscript.TestScript, _ bool, args []string) {
		path := ts.MkAbs(args[0])
		info, err := os.Stat(path)
		ts.Check(err)
		ts.Check(os.Truncate(path, info.Size()*9/10))
	},
}

func store(ts *testscript.TestScript, model, golden string) {
	places := map[string]string{"q_proj": "model.layers.0.self_attn.q_proj.", "down_proj": "model.layers.0.mlp.down_proj."}
	path := ts.MkAbs(filepath.Join(model, "model.safetensors"))
	read := func(path string) (tensors []safetensors.TensorData) {
		f, err := safetensors.Open(path)
		ts.Check(err)
		defer f.Close()
		for _, t := range f.Tensors() {
			data := make([]byte, t.Size())
			ts.Check(f.ReadAt(t, data, 0))
			tensors = append(tensors, safetensors.TensorData{Spec: safetensors.Spec{Name: t.Name, DType: t.DType, Shape: t.Shape}, Data: data})
		}
		return tensors
	}
	all := slices.DeleteFunc(read(path), func(t safetensors.TensorData) bool {
		return t.Name == places["q_proj"]+"weight" || t.Name == places["down_proj"]+"weight"
	})
	folder, name := filepath.Split(filepath.Join(goldens, golden))
	for _, t := range read(filepath.Join(folder, name+".safetensors")) {
		module, rest, _ := strings.Cut(t.Name, ".")
		t.Name = places[module] + rest
		all = append(all, t)
	}
	ts.Check(safetensors.Write(path, all, map[string]string{"format": "pt"}))
	var cases map[string]struct{ Config json.RawMessage }
	list, err := os.ReadFile(filepath.Join(folder, filepath.Base(folder)+".json"))
	ts.Check(err)
	ts.Check(json.Unmarshal(list, &cases))
	path = ts.MkAbs(filepath.Join(model, "config.json"))
	data, err := os.ReadFile(path)
	ts.Check(err)
	var config map[string]any
	ts.Check(json.Unmarshal(data, &config))
	config["quantization_config"] = cases[name].Config
	data, err = json.Marshal(config)
	ts.Check(err)
	ts.Check(os.WriteFile(path, data, 0o666))
}

// goldens is the folder of goldens: scripts run elsewhere.
var goldens, _ = filepath.Abs("../../testdata/golden")

// patch changes the bytes of one tensor in a safetensors file.
func patch(ts *testscript.TestScript, args []string, change func(dtype safetensors.DType, data []byte)) {
	path := ts.MkAbs(args[0])
	f, err := safetensors.Open(path)
	ts.Check(err)
	defer f.Close()
	var tensors []safetensors.TensorData
	for _, t := range f.Tensors() {
		data := make([]byte, t.Size())
		ts.Check(f.ReadAt(t, data, 0))
		if t.Name == args[1] {
			change(t.DType, data)
		}
		tensors = append(tensors, safetensors.TensorData{Spec: safetensors.Spec{Name: t.Name, DType: t.DType, Shape: t.Shape}, Data: data})
	}
	ts.Check(safetensors.Write(path, tensors, f.Metadata()))
}

// Every command says what it does, what it takes, and gives an example.
func TestHelp(t *testing.T) {
	var visit func(c *cli.Command, path string)
	visit = func(c *cli.Command, path string) {
		if c.Usage == "" {
			t.Errorf("%s has no usage line", path)
		}
		if !strings.Contains(c.Description, "  graft ") && len(c.Commands) == 0 {
			t.Errorf("%s has no example in its help", path)
		}
		for _, sub := range c.Commands {
			visit(sub, path+" "+sub.Name)
		}
	}
	visit(rootCommand(), "graft")
}

// The exit code tells wrong usage from failure.
func TestUsageExitCode(t *testing.T) {
	for _, args := range [][]string{{"graft", "frobnicate"}, {"graft", "adapter", "frobnicate"}, {"graft", "eval", "x"}, {"graft", "inspect"}, {"graft", "inspect", "--frob", "x"}, {"graft", "convert", "x"}, {"graft", "train", "--set", "learning_rat=1"}} {
		if code := run(args); code != exitUsage {
			t.Errorf("%v: exit %d, want %d", args, code, exitUsage)
		}
	}
	if code := run([]string{"graft", "inspect", filepath.Join(t.TempDir(), "absent")}); code != exitFailed {
		t.Errorf("a missing file: exit %d, want %d", code, exitFailed)
	}
}
