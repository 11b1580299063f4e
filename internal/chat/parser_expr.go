package chat

// Expressions, by precedence from the loosest: inline if, or, and, not,
// comparison, + -, ~, * / // %, **, sign, postfix and filters.

type tupleOptions struct {
	cond   bool   // inline if may stand at the top
	parens bool   // inside ( ), where nothing at all is the empty tuple
	end    string // a name that ends the tuple
}

// parseTuple parses an expression, or several with commas as a tuple.
func (p *parser) parseTuple(o tupleOptions) expr {
	at := p.cur().pos
	var items []expr
	tuple := false
	for {
		if t := p.cur(); t.kind == tokPrintEnd || t.kind == tokBlockEnd || p.isOp(")") || o.end != "" && p.isName(o.end) {
			break
		}
		items = append(items, p.parseExpr(o.cond || o.parens))
		if !p.skipOp(",") {
			break
		}
		tuple = true
	}
	if !tuple {
		if len(items) == 1 {
			return items[0]
		}
		if !o.parens {
			p.fail("expected an expression, got %s", p.cur().describe())
		}
	}
	return &seqExpr{at, items, true}
}

func (p *parser) parseExpr(cond bool) expr {
	defer func(d int) { p.depth = d }(p.depth)
	p.enter()
	e := p.parseOr()
	for cond && p.isName("if") {
		p.enter()
		at := p.advance().pos
		c := &condExpr{pos: at, yes: e, test: p.parseOr()}
		if p.skipName("else") {
			c.no = p.parseExpr(true)
		}
		e = c
	}
	return e
}

func (p *parser) parseOr() expr  { return p.parseLogic("or", p.parseAnd) }
func (p *parser) parseAnd() expr { return p.parseLogic("and", p.parseNot) }

// parseLogic reads operands joined by one word, from the left.
func (p *parser) parseLogic(word string, operand func() expr) expr {
	defer func(d int) { p.depth = d }(p.depth)
	e := operand()
	for p.isName(word) {
		p.enter()
		at := p.advance().pos
		e = &logicExpr{at, word == "or", e, operand()}
	}
	return e
}

func (p *parser) parseNot() expr {
	if p.isName("not") {
		defer func(d int) { p.depth = d }(p.depth)
		p.enter()
		at := p.advance().pos
		return &unaryExpr{at, "not", p.parseNot()}
	}
	return p.parseCompare()
}

func (p *parser) parseCompare() expr {
	first := p.parseSum()
	c := &compareExpr{pos: p.cur().pos, first: first}
	for {
		op := ""
		switch t := p.cur(); {
		case t.kind == tokOp && (t.text == "==" || t.text == "!=" || t.text == "<" || t.text == "<=" || t.text == ">" || t.text == ">="):
			op = t.text
			p.advance()
		case p.skipName("in"):
			op = "in"
		case p.isName("not") && p.peek().kind == tokName && p.peek().text == "in":
			op = "not in"
			p.next += 2
		}
		if op == "" {
			break
		}
		c.rest = append(c.rest, comparison{op, p.parseSum()})
	}
	if c.rest == nil {
		return first
	}
	return c
}

// parseBinary parses a left-associative chain of the operators ops.
func (p *parser) parseBinary(operand func() expr, ops ...string) expr {
	defer func(d int) { p.depth = d }(p.depth)
	e := operand()
next:
	for {
		for _, op := range ops {
			if p.isOp(op) {
				p.enter()
				at := p.advance().pos
				e = &binaryExpr{at, op, e, operand()}
				continue next
			}
		}
		return e
	}
}

func (p *parser) parseSum() expr { return p.parseBinary(p.parseConcat, "+", "-") }

func (p *parser) parseConcat() expr {
	at := p.cur().pos
	items := []expr{p.parseProduct()}
	for p.skipOp("~") {
		items = append(items, p.parseProduct())
	}
	if len(items) == 1 {
		return items[0]
	}
	return &concatExpr{at, items}
}

func (p *parser) parseProduct() expr { return p.parseBinary(p.parsePower, "*", "/", "//", "%") }

// parsePower is left-associative, unlike Python's.
func (p *parser) parsePower() expr {
	return p.parseBinary(func() expr { return p.parseUnary(true) }, "**")
}

func (p *parser) parseUnary(filters bool) expr {
	defer func(d int) { p.depth = d }(p.depth)
	var e expr
	if t := p.cur(); p.isOp("-") || p.isOp("+") {
		p.enter()
		p.advance()
		e = &unaryExpr{t.pos, t.text, p.parseUnary(false)}
	} else {
		e = p.parsePrimary()
	}
	e = p.parsePostfix(e)
	if filters {
		e = p.parseFilterChain(e)
	}
	return e
}

func (p *parser) parsePrimary() expr {
	t := p.cur()
	switch {
	case t.kind == tokName:
		p.advance()
		switch t.text {
		case "true", "True":
			return &constExpr{t.pos, true}
		case "false", "False":
			return &constExpr{t.pos, false}
		case "none", "None":
			return &constExpr{t.pos, nil}
		}
		return &nameExpr{t.pos, t.text}
	case t.kind == tokString:
		text := ""
		for p.cur().kind == tokString { // adjacent literals are one
			text += p.advance().text
		}
		return &constExpr{t.pos, text}
	case t.kind == tokNumber:
		p.advance()
		return &constExpr{t.pos, t.num}
	case p.skipOp("("):
		e := p.parseTuple(tupleOptions{parens: true})
		p.expectOp(")")
		return e
	case p.isOp("["):
		return p.parseList()
	case p.isOp("{"):
		return p.parseDict()
	}
	p.fail("expected an expression, got %s", t.describe())
	return nil
}

func (p *parser) parseList() expr {
	e := &seqExpr{pos: p.advance().pos}
	for !p.isOp("]") {
		if e.items != nil {
			if p.expectOp(","); p.isOp("]") {
				break
			}
		}
		e.items = append(e.items, p.parseExpr(true))
	}
	p.expectOp("]")
	return e
}

func (p *parser) parseDict() expr {
	e := &dictExpr{pos: p.advance().pos}
	for !p.isOp("}") {
		if e.keys != nil {
			if p.expectOp(","); p.isOp("}") {
				break
			}
		}
		e.keys = append(e.keys, p.parseExpr(true))
		p.expectOp(":")
		e.values = append(e.values, p.parseExpr(true))
	}
	p.expectOp("}")
	return e
}

// parsePostfix parses attributes, subscripts and calls.
func (p *parser) parsePostfix(e expr) expr {
	defer func(d int) { p.depth = d }(p.depth)
	for {
		switch {
		case p.isOp("."):
			p.enter()
			p.advance()
			t := p.advance()
			switch n, isInt := t.num.(int64); {
			case t.kind == tokName:
				e = &attrExpr{t.pos, e, t.text}
			case isInt:
				e = &itemExpr{t.pos, e, &constExpr{t.pos, n}}
			default:
				failSyntax(t.pos, "expected a name or number after \".\", got %s", t.describe())
			}
		case p.isOp("["):
			p.enter()
			e = p.parseSubscript(e)
		case p.isOp("("):
			p.enter()
			at := p.cur().pos
			e = &callExpr{at, e, p.parseCallArgs()}
		default:
			return e
		}
	}
}

func (p *parser) parseSubscript(object expr) expr {
	at := p.advance().pos
	part := func() expr {
		if p.isOp(":") || p.isOp("]") {
			return nil
		}
		return p.parseExpr(true)
	}
	if p.isOp("]") {
		p.advance()
		return &itemExpr{at, object, &seqExpr{pos: at, tuple: true}}
	}
	start := part()
	if p.skipOp(":") {
		s := &sliceExpr{pos: at, object: object, start: start, stop: part()}
		if p.skipOp(":") {
			s.step = part()
		}
		p.expectOp("]")
		return s
	}
	index := start
	if p.isOp(",") {
		items := []expr{start}
		for p.skipOp(",") {
			items = append(items, p.parseExpr(true))
		}
		index = &seqExpr{at, items, true}
	}
	p.expectOp("]")
	return &itemExpr{at, object, index}
}

func (p *parser) parseCallArgs() callArgs {
	var a callArgs
	open := p.advance().pos
	ensure := func(ok bool) {
		if !ok {
			failSyntax(open, "arguments are in an order no call allows")
		}
	}
	for first := true; !p.isOp(")"); first = false {
		if !first {
			if p.expectOp(","); p.isOp(")") {
				break
			}
		}
		switch t := p.cur(); {
		case p.skipOp("*"):
			ensure(a.star == nil && a.kw == nil)
			a.star = p.parseExpr(true)
		case p.skipOp("**"):
			ensure(a.kw == nil)
			a.kw = p.parseExpr(true)
		case t.kind == tokName && p.peek().kind == tokOp && p.peek().text == "=":
			ensure(a.kw == nil)
			for _, k := range a.keyword {
				if k.name == t.text {
					failSyntax(t.pos, "argument %q stands twice", t.text)
				}
			}
			p.next += 2
			a.keyword = append(a.keyword, keywordArg{t.text, p.parseExpr(true)})
		default:
			ensure(a.star == nil && a.kw == nil && a.keyword == nil)
			a.positional = append(a.positional, p.parseExpr(true))
		}
	}
	p.expectOp(")")
	return a
}

// parseFilterChain parses filters, tests and calls of their results.
func (p *parser) parseFilterChain(e expr) expr {
	defer func(d int) { p.depth = d }(p.depth)
	for {
		switch {
		case p.isOp("|"):
			p.enter()
			e = p.parseFilters(e)
		case p.isName("is"):
			p.enter()
			e = p.parseTest(e)
		case p.isOp("("):
			p.enter()
			at := p.cur().pos
			e = &callExpr{at, e, p.parseCallArgs()}
		default:
			return e
		}
	}
}

func (p *parser) parseFilters(e expr) expr {
	defer func(d int) { p.depth = d }(p.depth)
	for p.isOp("|") {
		p.enter()
		at := p.advance().pos
		e = p.parseFilterName(e, at)
	}
	return e
}

func (p *parser) parseFilterName(operand expr, at pos) expr {
	f := &filterExpr{pos: at, operand: operand, name: p.dottedName()}
	if p.isOp("(") {
		f.args = p.parseCallArgs()
	}
	return f
}

func (p *parser) dottedName() string {
	name := p.expectName()
	for p.skipOp(".") {
		name += "." + p.expectName()
	}
	return name
}

func (p *parser) parseTest(operand expr) expr {
	at := p.advance().pos
	negated := p.skipName("not")
	t := &testExpr{pos: at, operand: operand, name: p.dottedName()}
	switch next := p.cur(); {
	case p.isOp("("):
		t.args = p.parseCallArgs()
	case next.kind == tokString, next.kind == tokNumber, p.isOp("["), p.isOp("{"),
		next.kind == tokName && next.text != "else" && next.text != "or" && next.text != "and":
		if p.isName("is") {
			p.fail("tests cannot be chained with \"is\"")
		}
		t.args.positional = []expr{p.parsePostfix(p.parsePrimary())}
	}
	if negated {
		return &unaryExpr{at, "not", t}
	}
	return t
}
