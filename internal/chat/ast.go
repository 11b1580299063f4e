package chat

// The syntax tree. Every node keeps the place it came from.

type expr interface{ at() pos }

func (p pos) at() pos { return p }

type (
	nameExpr struct {
		pos
		name string
	}
	constExpr struct {
		pos
		value any
	}
	// capturedExpr stands for the text a {% filter %} or {% set %} block
	// collected: the innermost operand of its filter chain.
	capturedExpr struct{ pos }
	seqExpr      struct {
		pos
		items []expr
		tuple bool
	}
	dictExpr struct {
		pos
		keys, values []expr
	}
	condExpr struct {
		pos
		test, yes expr
		no        expr // nil: undefined where the test fails
	}
	binaryExpr struct {
		pos
		op          string // + - * / // % **
		left, right expr
	}
	logicExpr struct {
		pos
		or          bool
		left, right expr
	}
	unaryExpr struct {
		pos
		op      string // + - not
		operand expr
	}
	compareExpr struct {
		pos
		first expr
		rest  []comparison
	}
	comparison struct {
		op      string // == != < <= > >= in, not in
		operand expr
	}
	concatExpr struct {
		pos
		items []expr
	}
	attrExpr struct {
		pos
		object expr
		name   string
	}
	itemExpr struct {
		pos
		object, index expr
	}
	sliceExpr struct {
		pos
		object            expr
		start, stop, step expr // nil where left out
	}
	callExpr struct {
		pos
		callee expr
		args   callArgs
	}
	filterExpr struct {
		pos
		operand expr
		name    string
		args    callArgs
	}
	testExpr struct {
		pos
		operand expr
		name    string
		args    callArgs
	}
)

// callArgs are the arguments of a call, a filter or a test.
type callArgs struct {
	positional []expr
	keyword    []keywordArg
	star, kw   expr // *star and **kw, nil where absent
}

type keywordArg struct {
	name  string
	value expr
}

// target is what an assignment or a loop binds: a name, an attribute of a
// namespace, or several of either.
type target struct {
	pos
	name  string
	attr  string   // set for name.attr
	items []target // set for a tuple
	tuple bool
}

type stmt interface{ at() pos }

type (
	textStmt struct {
		pos
		text string
	}
	printStmt struct {
		pos
		value expr
	}
	ifStmt struct {
		pos
		branches []branch
		orElse   []stmt
	}
	branch struct {
		test expr
		body []stmt
	}
	forStmt struct {
		pos
		target    target
		iter      expr
		test      expr // nil: every item
		body      []stmt
		orElse    []stmt
		recursive bool

		testFrame, bodyFrame, elseFrame frame
	}
	setStmt struct {
		pos
		target target
		value  expr
	}
	setBlockStmt struct {
		pos
		target target
		filter expr // over capturedExpr, nil for none
		body   []stmt
		frame  frame
	}
	macroStmt struct {
		pos
		name string
		sig  signature
		body []stmt
	}
	callBlockStmt struct {
		pos
		call *callExpr
		sig  signature
		body []stmt
	}
	filterBlockStmt struct {
		pos
		filter expr
		body   []stmt
		frame  frame
	}
	withStmt struct {
		pos
		targets []target
		values  []expr
		body    []stmt
		frame   frame
	}
	generationStmt struct {
		pos
		body  []stmt
		frame frame
	}
	loopControl struct {
		pos
		signal signal
	}
)

// signature is the parameter list of a macro or a call block.
type signature struct {
	params   []string
	defaults []expr // of the last len(defaults) parameters
	frame    frame

	usesCaller, usesKwargs, usesVarargs bool
}

// frame is what the scope analysis found for one scope.
type frame struct {
	// unset are names the scope assigns before it, or a scope inside it,
	// could read an outer one: they hide the outer variable from the start.
	unset []string
}

// signal says how a list of statements ended.
type signal uint8

const (
	proceed signal = iota
	breakLoop
	continueLoop
)
