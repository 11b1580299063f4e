package chat

// Statements: what stands in {% %}. Expressions are in parser_expr.go.

import "fmt"

type parser struct {
	toks  []token
	next  int
	depth int // nesting so far, see enter
	loops int // loops around the current statement within its macro
}

func parseTemplate(source string) (body []stmt) {
	p := &parser{toks: lex(source)}
	body, _ = p.parseBody(pos{1, 1}, "", nil)
	return body
}

func (p *parser) cur() *token { return &p.toks[p.next] }

// peek is the token after the current one.
func (p *parser) peek() *token {
	if p.next+1 < len(p.toks) {
		return &p.toks[p.next+1]
	}
	return p.cur()
}

// advance returns the current token and steps over it.
func (p *parser) advance() *token {
	t := p.cur()
	if t.kind != tokEOF {
		p.next++
	}
	return t
}

func (p *parser) fail(format string, args ...any) { failSyntax(p.cur().pos, format, args...) }

func (p *parser) isOp(op string) bool     { t := p.cur(); return t.kind == tokOp && t.text == op }
func (p *parser) isName(name string) bool { t := p.cur(); return t.kind == tokName && t.text == name }

func (p *parser) skipOp(op string) bool {
	if !p.isOp(op) {
		return false
	}
	p.next++
	return true
}

func (p *parser) skipName(name string) bool {
	if !p.isName(name) {
		return false
	}
	p.next++
	return true
}

func (p *parser) expectOp(op string) {
	if !p.skipOp(op) {
		p.fail("expected %q, got %s", op, p.cur().describe())
	}
}

func (p *parser) expectName() string {
	if p.cur().kind != tokName {
		p.fail("expected a name, got %s", p.cur().describe())
	}
	return p.advance().text
}

func (p *parser) expectKind(kind tokenKind) {
	if p.cur().kind != kind {
		p.fail("expected %s, got %s", token{kind: kind}.describe(), p.cur().describe())
	}
	p.advance()
}

// enter counts one level of nesting; the caller takes it back by restoring
// p.depth. It bounds the tree's depth, hence the stack of all that walks it.
func (p *parser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested deeper than %d levels", maxDepth)
	}
}

// parseBody parses statements up to a tag whose name is in ends, stepping
// over that name and returning it. With no ends it parses to the end of
// source. opened names the statement for the error at a missing end.
func (p *parser) parseBody(start pos, opened string, ends []string) (body []stmt, end string) {
	defer func(d int) { p.depth = d }(p.depth)
	p.enter()
	for {
		t := p.advance()
		switch t.kind {
		case tokEOF:
			if ends != nil {
				failSyntax(start, "{%% %s %%} is never closed: expected %s", opened, ends[len(ends)-1])
			}
			return body, ""
		case tokText:
			body = append(body, &textStmt{t.pos, t.text})
		case tokPrintBegin:
			body = append(body, &printStmt{t.pos, p.parseTuple(tupleOptions{cond: true})})
			p.expectKind(tokPrintEnd)
		case tokBlockBegin:
			if p.cur().kind != tokName {
				p.fail("expected the name of a tag, got %s", p.cur().describe())
			}
			name := p.cur().text
			for _, e := range ends {
				if name == e {
					p.advance()
					return body, e
				}
			}
			body = append(body, p.parseStatement(name)...)
			p.expectKind(tokBlockEnd)
		default:
			panic(fmt.Sprintf("chat: internal error: token %v outside a tag", t.kind))
		}
	}
}

// block parses the rest of an opening tag and the body after it.
func (p *parser) block(start pos, opened string, ends ...string) ([]stmt, string) {
	p.skipOp(":")
	p.expectKind(tokBlockEnd)
	return p.parseBody(start, opened, ends)
}

// inMacro parses a body that loops around it cannot be left from.
func (p *parser) inMacro(start pos, opened, end string) []stmt {
	defer func(n int) { p.loops = n }(p.loops)
	p.loops = 0
	body, _ := p.block(start, opened, end)
	return body
}

func (p *parser) parseStatement(name string) []stmt {
	at := p.advance().pos
	one := func(s stmt) []stmt { return []stmt{s} }
	switch name {
	case "if":
		return one(p.parseIf(at))
	case "for":
		return one(p.parseFor(at))
	case "set":
		return one(p.parseSet(at))
	case "macro":
		m := &macroStmt{pos: at, name: p.expectName()}
		m.sig = p.parseSignature()
		m.body = p.inMacro(at, name, "endmacro")
		return one(m)
	case "call":
		return one(p.parseCallBlock(at))
	case "filter":
		f := &filterBlockStmt{pos: at, filter: p.parseFilterName(&capturedExpr{at}, at)}
		f.filter = p.parseFilters(f.filter)
		f.body, _ = p.block(at, name, "endfilter")
		return one(f)
	case "with":
		return one(p.parseWith(at))
	case "generation":
		return one(&generationStmt{pos: at, body: p.inMacro(at, name, "endgeneration")})
	case "break", "continue":
		if p.loops == 0 {
			failSyntax(at, "{%% %s %%} outside a loop", name)
		}
		sig := breakLoop
		if name == "continue" {
			sig = continueLoop
		}
		return one(&loopControl{at, sig})
	case "print":
		var out []stmt
		for p.cur().kind != tokBlockEnd {
			if out != nil {
				p.expectOp(",")
			}
			out = append(out, &printStmt{p.cur().pos, p.parseExpr(true)})
		}
		return out
	case "include", "import", "from", "extends", "block", "autoescape":
		failSyntax(at, "{%% %s %%} is not supported: a chat template stands alone", name)
	}
	failSyntax(at, "unknown or misplaced tag %q", name)
	return nil
}

func (p *parser) parseIf(at pos) stmt {
	s := &ifStmt{pos: at}
	for {
		test := p.parseTuple(tupleOptions{})
		body, end := p.block(at, "if", "elif", "else", "endif")
		s.branches = append(s.branches, branch{test, body})
		if end == "else" {
			s.orElse, end = p.block(at, "if", "endif")
		}
		if end == "endif" {
			return s
		}
	}
}

func (p *parser) parseFor(at pos) stmt {
	s := &forStmt{pos: at, target: p.parseTarget("in", false)}
	if !p.skipName("in") {
		p.fail("expected \"in\", got %s", p.cur().describe())
	}
	s.iter = p.parseTuple(tupleOptions{end: "recursive"})
	if p.skipName("if") {
		s.test = p.parseExpr(true)
	}
	s.recursive = p.skipName("recursive")
	loops := p.loops
	if s.recursive {
		p.loops = 0 // its else cannot reach a loop outside
	}
	outer := p.loops
	p.loops = outer + 1
	body, end := p.block(at, "for", "else", "endfor")
	s.body = body
	p.loops = outer
	if end == "else" {
		s.orElse, _ = p.block(at, "for", "endfor")
	}
	p.loops = loops
	return s
}

func (p *parser) parseSet(at pos) stmt {
	t := p.parseTarget("", true)
	if p.skipOp("=") {
		return &setStmt{at, t, p.parseTuple(tupleOptions{cond: true})}
	}
	s := &setBlockStmt{pos: at, target: t}
	if p.isOp("|") {
		s.filter = p.parseFilters(&capturedExpr{at})
	}
	s.body, _ = p.block(at, "set", "endset")
	return s
}

func (p *parser) parseWith(at pos) stmt {
	s := &withStmt{pos: at}
	for p.cur().kind != tokBlockEnd {
		if s.targets != nil {
			p.expectOp(",")
		}
		s.targets = append(s.targets, p.parseTarget("", false))
		p.expectOp("=")
		s.values = append(s.values, p.parseExpr(true))
	}
	s.body, _ = p.block(at, "with", "endwith")
	return s
}

func (p *parser) parseCallBlock(at pos) stmt {
	s := &callBlockStmt{pos: at}
	if p.isOp("(") {
		s.sig = p.parseSignature()
	}
	callee := p.parseExpr(true)
	call, ok := callee.(*callExpr)
	if !ok {
		failSyntax(callee.at(), "{%% call %%} needs a call such as name(...)")
	}
	s.call = call
	s.body = p.inMacro(at, "call", "endcall")
	return s
}

func (p *parser) parseSignature() signature {
	var sig signature
	p.expectOp("(")
	for !p.isOp(")") {
		if sig.params != nil {
			p.expectOp(",")
		}
		t := p.cur()
		name := p.expectName()
		if isConstName(name) {
			failSyntax(t.pos, "cannot assign to %q", name)
		}
		for _, other := range sig.params {
			if other == name {
				failSyntax(t.pos, "parameter %q stands twice", name)
			}
		}
		sig.params = append(sig.params, name)
		if p.skipOp("=") {
			sig.defaults = append(sig.defaults, p.parseExpr(true))
		} else if sig.defaults != nil {
			failSyntax(t.pos, "parameter %q without a default follows one with", name)
		}
	}
	p.expectOp(")")
	return sig
}

func isConstName(name string) bool {
	switch name {
	case "true", "false", "none", "True", "False", "None":
		return true
	}
	return false
}

// parseTarget parses what an assignment binds. end is the name that may
// follow, so that "for a, in x" is a tuple of one.
func (p *parser) parseTarget(end string, namespace bool) target {
	at := p.cur().pos
	var items []target
	tuple := false
	for {
		if p.cur().kind == tokBlockEnd || p.isOp(")") || p.isOp("=") || end != "" && p.isName(end) {
			break
		}
		items = append(items, p.parseSingleTarget(namespace))
		if !p.skipOp(",") {
			break
		}
		tuple = true
	}
	if len(items) == 0 {
		p.fail("expected a name to assign to, got %s", p.cur().describe())
	}
	if !tuple {
		return items[0]
	}
	return target{pos: at, items: items, tuple: true}
}

func (p *parser) parseSingleTarget(namespace bool) target {
	t := p.cur()
	if p.skipOp("(") {
		defer func(d int) { p.depth = d }(p.depth)
		p.enter()
		inner := p.parseTarget("", namespace)
		p.expectOp(")")
		return inner
	}
	if t.kind != tokName || isConstName(t.text) {
		p.fail("cannot assign to %s", t.describe())
	}
	p.advance()
	if namespace && p.skipOp(".") {
		return target{pos: t.pos, name: t.text, attr: p.expectName()}
	}
	return target{pos: t.pos, name: t.text}
}
