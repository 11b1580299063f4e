package testmodel

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"

	"github.com/graftml/graft/internal/model"
)

// configs.json holds a configuration for every architecture, and one more for every way in which those
// of one differ, by name. Keys that a family's class has by default are left out in some, as
// transformers does. The scripts under testdata/golden read the same file.
//
//go:embed configs.json
var configsJSON []byte

type named struct {
	name string
	json json.RawMessage
}

var configs = readConfigs()

// readConfigs keeps the order of the file.
func readConfigs() []named {
	var all []named
	d := json.NewDecoder(bytes.NewReader(configsJSON))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return all
		}
		if name, ok := token.(string); ok {
			all = append(all, named{name: name})
			err = d.Decode(&all[len(all)-1].json)
		}
		if err != nil {
			panic(fmt.Sprintf("testmodel: internal error: configs.json: %v", err))
		}
	}
}

// Names lists the models that Config knows.
func Names() []string {
	var names []string
	for _, n := range configs {
		names = append(names, n.name)
	}
	return names
}

// Config returns the configuration called name, or an error that lists the names.
func Config(name string) (*model.Config, error) {
	for _, n := range configs {
		if n.name == name {
			return model.ParseConfig(n.json)
		}
	}
	return nil, fmt.Errorf("testmodel: configuration %q: there are %v", name, Names())
}
