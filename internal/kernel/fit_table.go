package kernel

// This file is fit.go for codes that are places in a table, as of IQ4_NL.

// FitTable searches the scale of runs whose values are scale·table[code], with weights w. The table
// ascends from its negative first entry. It sets f.Scale alone.
func FitTable(f *Fit, x, w []float32, table *[16]float32) {
	checkRuns("FitTable", len(x), len(w))
	if !fitTableLanes(f, x, w, table) {
		fitTableGeneric(f, x, w, table)
	}
}

// TableCodes writes the place in table of what is nearest to inverse·x for every value, the higher
// of two that are as near. inverse is that of the runs.
func TableCodes(q []byte, x []float32, inverse *[Runs]float32, table *[16]float32) {
	checkRuns("TableCodes", len(x), len(q))
	if !tableCodesLanes(q, x, inverse, table) {
		for i, v := range x {
			q[i] = byte(nearestPlace(table, inverse[i%Runs]*v))
		}
	}
}

// nearestPlace is TableCodes for one value.
func nearestPlace(table *[16]float32, v float32) int {
	low := 0
	for step := 8; step > 0; step /= 2 {
		if !(v < table[low+step]) {
			low += step
		}
	}
	if high := min(low+1, 15); !(v-table[low] < table[high]-v) {
		return high
	}
	return low
}

// tableTries are the numerators of FitTable's inverse scales but the first.
func tableTries(table *[16]float32) (tries [15]float32) {
	for i := range tries {
		tries[i] = float32(i-7) + table[0]
	}
	return tries
}

func fitTableGeneric(f *Fit, x, w []float32, table *[16]float32) {
	var xs, ws [maxRun]float32
	for r := range Runs {
		f.Scale[r] = tableRun(lane(&xs, x, r), lane(&ws, w, r), table)
	}
}

// tableRun is FitTable for one run.
func tableRun(x, w []float32, table *[16]float32) (scale float32) {
	var peak, size float32
	for _, v := range x {
		if a := magnitude(v); a > size {
			size, peak = a, v
		}
	}
	if size < tiny {
		return 0
	}
	sums := func(inverse float32) (qx, qq float32) {
		for i, v := range x {
			q := table[nearestPlace(table, inverse*v)]
			wq := float32(w[i] * q)
			qx += float32(wq * v)
			qq += float32(wq * q)
		}
		return qx, qq
	}
	qx, qq := sums(1 / (-peak / table[0]))
	if qq > 0 {
		scale = qx / qq
	}
	best := scale * qx
	for _, try := range tableTries(table) {
		qx, qq := sums(try / peak)
		if qq > 0 && float32(qx*qx) > float32(best*qq) {
			scale = qx / qq
			best = scale * qx
		}
	}
	return scale
}
