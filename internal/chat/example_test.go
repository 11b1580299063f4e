package chat_test

import (
	"fmt"

	"github.com/graftml/graft/internal/chat"
)

func Example() {
	template, err := chat.Parse(`{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`)
	if err != nil {
		fmt.Println(err)
		return
	}
	in := chat.Input{
		Messages: []chat.Message{{Role: "user", Content: "2+2?"}, {Role: "assistant", Content: "4"}},
		EOSToken: "</s>",
	}
	text, spans, err := template.RenderSpans(in)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(text)
	for _, s := range spans {
		fmt.Printf("to learn: %q\n", text[s.Start:s.End])
	}
	// Output:
	// [user] 2+2?</s>
	// [assistant] 4</s>
	// to learn: "4</s>"
}
