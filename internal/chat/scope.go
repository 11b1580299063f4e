package chat

// The scope analysis. jinja2 compiles each scope with its variables known
// beforehand, and that shows: a name a scope assigns is a variable of that
// scope from its start, so an inner scope that reads it earlier sees an
// undefined value, never an outer variable of the same name. This pass finds
// those names (frame.unset), what macros use implicitly, and the mistakes
// jinja2 reports before rendering: unknown filters and tests, and a loop
// that assigns to "loop".

// load says where a variable's value comes from when its scope begins.
type load uint8

const (
	loadOuter load = iota // an outer variable or the context
	loadParam             // bound at entry
	loadUnset             // undefined until assigned
)

type symbols struct {
	outer  *symbols
	refs   map[string]load
	stores map[string]bool
}

func newSymbols(outer *symbols) *symbols {
	return &symbols{outer, map[string]load{}, map[string]bool{}}
}

func (s *symbols) knows(name string) bool {
	for ; s != nil; s = s.outer {
		if _, ok := s.refs[name]; ok {
			return true
		}
	}
	return false
}

func (s *symbols) read(name string) {
	if !s.knows(name) {
		s.refs[name] = loadOuter
	}
}

func (s *symbols) param(name string) {
	s.stores[name] = true
	s.refs[name] = loadParam
}

func (s *symbols) store(name string) {
	s.stores[name] = true
	if _, ok := s.refs[name]; ok {
		return
	}
	if s.outer.knows(name) {
		s.refs[name] = loadOuter
	} else {
		s.refs[name] = loadUnset
	}
}

// branch is a copy in which one side of an {% if %} is analysed.
func (s *symbols) branch() *symbols {
	b := newSymbols(s.outer)
	for k, v := range s.refs {
		b.refs[k] = v
	}
	for k := range s.stores {
		b.stores[k] = true
	}
	return b
}

// merge takes the branches of an {% if %} back: a name that only some of
// them assign keeps its outer value where none did.
func (s *symbols) merge(branches []*symbols) {
	assigned := map[string]bool{}
	for _, b := range branches {
		for k := range b.stores {
			if !s.stores[k] {
				assigned[k] = true
			}
		}
	}
	for _, b := range branches {
		for k, v := range b.refs {
			s.refs[k] = v
		}
		for k := range b.stores {
			s.stores[k] = true
		}
	}
	for k := range assigned {
		s.refs[k] = loadOuter
	}
}

func (s *symbols) frame() frame {
	var f frame
	for name, l := range s.refs {
		if l == loadUnset {
			f.unset = append(f.unset, name)
		}
	}
	return f
}

// analyze fills the frames of a template's scopes and returns the outermost.
func analyze(body []stmt) frame {
	root := newSymbols(nil)
	root.statements(body)
	f := root.frame()
	analyzeInner(body, root, false)
	return f
}

// statements records what a scope's own statements read and assign; it does
// not go into the scopes they open.
func (s *symbols) statements(body []stmt) {
	for _, st := range body {
		switch st := st.(type) {
		case *printStmt:
			s.expr(st.value)
		case *ifStmt:
			s.ifStatement(st)
		case *forStmt:
			s.expr(st.iter)
		case *setStmt:
			s.expr(st.value)
			s.assign(st.target)
		case *setBlockStmt:
			s.assign(st.target)
		case *macroStmt:
			s.store(st.name)
		case *callBlockStmt:
			s.expr(st.call)
		case *filterBlockStmt:
			s.expr(st.filter)
		case *withStmt:
			for _, v := range st.values {
				s.expr(v)
			}
		}
	}
}

func (s *symbols) ifStatement(st *ifStmt) {
	s.expr(st.branches[0].test)
	var branches []*symbols
	for i, br := range st.branches {
		b := s.branch()
		if i > 0 {
			b.expr(br.test)
		}
		b.statements(br.body)
		branches = append(branches, b)
	}
	last := s.branch()
	last.statements(st.orElse)
	s.merge(append(branches, last))
}

func (s *symbols) assign(t target) {
	switch {
	case t.tuple:
		for _, item := range t.items {
			s.assign(item)
		}
	case t.attr != "":
		s.read(t.name)
	default:
		s.store(t.name)
	}
}

func (s *symbols) bind(t target) {
	if !t.tuple {
		s.param(t.name)
	}
	for _, item := range t.items {
		s.bind(item)
	}
}

func (s *symbols) expr(e expr) {
	walkExpr(e, func(e expr) {
		if n, ok := e.(*nameExpr); ok {
			s.read(n.name)
		}
	})
}

// analyzeInner analyses the scopes that the statements of scope s open. soft
// says that the statements stand under an {% if %} of the same scope, where
// an unknown filter is an error only once it is used.
func analyzeInner(body []stmt, s *symbols, soft bool) {
	for _, st := range body {
		checkNames(st, soft)
		switch st := st.(type) {
		case *ifStmt:
			for _, br := range st.branches {
				analyzeInner(br.body, s, true)
			}
			analyzeInner(st.orElse, s, true)
		case *forStmt:
			analyzeFor(st, s)
		case *setBlockStmt:
			st.frame = analyzeBody(st.body, newSymbols(s))
		case *filterBlockStmt:
			in := newSymbols(s)
			in.expr(st.filter)
			st.frame = analyzeBody(st.body, in)
		case *generationStmt:
			st.frame = analyzeBody(st.body, newSymbols(s))
		case *withStmt:
			in := newSymbols(s)
			for _, t := range st.targets {
				in.bind(t)
			}
			st.frame = analyzeBody(st.body, in)
		case *macroStmt:
			analyzeMacro(&st.sig, st.body, s, st.pos)
		case *callBlockStmt:
			analyzeMacro(&st.sig, st.body, s, st.pos)
		}
	}
}

func analyzeBody(body []stmt, in *symbols) frame {
	in.statements(body)
	f := in.frame()
	analyzeInner(body, in, false)
	return f
}

func analyzeFor(st *forStmt, s *symbols) {
	rejectLoopTarget(st)
	in := newSymbols(s)
	in.bind(st.target)
	in.param("loop")
	st.bodyFrame = analyzeBody(st.body, in)
	st.elseFrame = analyzeBody(st.orElse, newSymbols(s))
	if st.test != nil {
		in := newSymbols(s)
		in.bind(st.target)
		in.expr(st.test)
		st.testFrame = in.frame()
	}
}

func analyzeMacro(sig *signature, body []stmt, s *symbols, at pos) {
	in := newSymbols(s)
	for _, name := range sig.params {
		in.param(name)
	}
	for _, d := range sig.defaults {
		in.expr(d)
	}
	free := freeNames(body, "caller", "kwargs", "varargs")
	has := func(name string) int {
		for i, p := range sig.params {
			if p == name {
				return i
			}
		}
		return -1
	}
	if sig.usesCaller = free["caller"]; sig.usesCaller {
		if i := has("caller"); i >= 0 && i < len(sig.params)-len(sig.defaults) {
			failSyntax(at, "parameter \"caller\" needs a default, or is left out")
		}
		in.param("caller")
	}
	if sig.usesKwargs = free["kwargs"] && has("kwargs") < 0; sig.usesKwargs {
		in.param("kwargs")
	}
	if sig.usesVarargs = free["varargs"] && has("varargs") < 0; sig.usesVarargs {
		in.param("varargs")
	}
	sig.frame = analyzeBody(body, in)
}

// freeNames tells which of the names the statements read, nested scopes
// included, before assigning to them.
func freeNames(body []stmt, names ...string) map[string]bool {
	free, hidden := map[string]bool{}, map[string]bool{}
	read := func(e expr) {
		walkExpr(e, func(e expr) {
			if n, ok := e.(*nameExpr); ok && !hidden[n.name] {
				free[n.name] = true
			}
		})
	}
	walkStatements(body, read, func(t target) {
		if t.attr == "" {
			hidden[t.name] = true
		}
	})
	out := map[string]bool{}
	for _, n := range names {
		out[n] = free[n]
	}
	return out
}

func rejectLoopTarget(st *forStmt) {
	walkStatements([]stmt{st}, func(expr) {}, func(t target) {
		if t.name == "loop" && t.attr == "" {
			failSyntax(t.pos, "cannot assign to \"loop\" in a loop")
		}
	})
}

// walkStatements calls read for every expression and store for every name
// assigned in the statements and in all scopes inside them.
func walkStatements(body []stmt, read func(expr), store func(target)) {
	var assign func(t target)
	assign = func(t target) {
		if !t.tuple {
			store(t)
		}
		for _, item := range t.items {
			assign(item)
		}
	}
	for _, st := range body {
		switch st := st.(type) {
		case *forStmt:
			assign(st.target)
		case *withStmt:
			for _, t := range st.targets {
				assign(t)
			}
		case *setStmt:
			assign(st.target)
		case *setBlockStmt:
			assign(st.target)
		}
		for _, e := range statementExprs(st) {
			read(e)
		}
		for _, inner := range statementBodies(st) {
			walkStatements(inner, read, store)
		}
	}
}

// statementExprs are the expressions that stand in the statement's own tags.
func statementExprs(st stmt) []expr {
	switch st := st.(type) {
	case *printStmt:
		return []expr{st.value}
	case *ifStmt:
		var out []expr
		for _, br := range st.branches {
			out = append(out, br.test)
		}
		return out
	case *forStmt:
		if st.test != nil {
			return []expr{st.iter, st.test}
		}
		return []expr{st.iter}
	case *setStmt:
		return []expr{st.value}
	case *setBlockStmt:
		if st.filter != nil {
			return []expr{st.filter}
		}
	case *macroStmt:
		return st.sig.defaults
	case *callBlockStmt:
		return append([]expr{st.call}, st.sig.defaults...)
	case *filterBlockStmt:
		return []expr{st.filter}
	case *withStmt:
		return st.values
	}
	return nil
}

func statementBodies(st stmt) [][]stmt {
	switch st := st.(type) {
	case *ifStmt:
		var out [][]stmt
		for _, br := range st.branches {
			out = append(out, br.body)
		}
		return append(out, st.orElse)
	case *forStmt:
		return [][]stmt{st.body, st.orElse}
	case *setBlockStmt:
		return [][]stmt{st.body}
	case *macroStmt:
		return [][]stmt{st.body}
	case *callBlockStmt:
		return [][]stmt{st.body}
	case *filterBlockStmt:
		return [][]stmt{st.body}
	case *withStmt:
		return [][]stmt{st.body}
	case *generationStmt:
		return [][]stmt{st.body}
	}
	return nil
}

// checkNames rejects filters and tests that do not exist in the statement's
// expressions, except where the statement may never come to use them.
func checkNames(st stmt, soft bool) {
	if _, isIf := st.(*ifStmt); isIf {
		soft = true
	}
	if _, isMacro := st.(*macroStmt); isMacro {
		soft = false
	}
	for _, e := range statementExprs(st) {
		checkExprNames(e, soft)
	}
}

func checkExprNames(e expr, soft bool) {
	switch x := e.(type) {
	case *condExpr:
		soft = true
	case *filterExpr:
		if _, ok := filters[x.name]; !ok && !soft {
			failSyntax(x.pos, "there is no filter %q", x.name)
		}
	case *testExpr:
		if _, ok := tests[x.name]; !ok && !soft {
			failSyntax(x.pos, "there is no test %q", x.name)
		}
	}
	eachOperand(e, func(inner expr) { checkExprNames(inner, soft) })
}

// walkExpr calls f for an expression and all inside it, operands in the
// order of the source.
func walkExpr(e expr, f func(expr)) {
	f(e)
	eachOperand(e, func(inner expr) { walkExpr(inner, f) })
}

func eachOperand(e expr, f func(expr)) {
	some := func(list ...expr) {
		for _, x := range list {
			if x != nil {
				f(x)
			}
		}
	}
	call := func(a callArgs) {
		some(a.positional...)
		for _, k := range a.keyword {
			some(k.value)
		}
		some(a.star, a.kw)
	}
	switch e := e.(type) {
	case *seqExpr:
		some(e.items...)
	case *dictExpr:
		for i := range e.keys {
			some(e.keys[i], e.values[i])
		}
	case *condExpr:
		some(e.test, e.yes, e.no)
	case *binaryExpr:
		some(e.left, e.right)
	case *logicExpr:
		some(e.left, e.right)
	case *unaryExpr:
		some(e.operand)
	case *compareExpr:
		some(e.first)
		for _, c := range e.rest {
			some(c.operand)
		}
	case *concatExpr:
		some(e.items...)
	case *attrExpr:
		some(e.object)
	case *itemExpr:
		some(e.object, e.index)
	case *sliceExpr:
		some(e.object, e.start, e.stop, e.step)
	case *callExpr:
		some(e.callee)
		call(e.args)
	case *filterExpr:
		some(e.operand)
		call(e.args)
	case *testExpr:
		some(e.operand)
		call(e.args)
	}
}
