package train

import (
	"fmt"

	"github.com/graftml/graft/internal/model"
)

// Choose returns those paths of a model's products that t names, in the order they are given. The
// error wraps ErrRecipe.
func (t Targets) Choose(modules []string) ([]string, error) {
	all := make([]model.Linear, len(modules))
	for i, m := range modules {
		all[i].Module = m
	}
	chosen, err := chooseModules(t, all)
	if err != nil {
		return nil, fmt.Errorf("train: checking recipe: %w: target_modules: %w", ErrRecipe, err)
	}
	return chosen, nil
}
