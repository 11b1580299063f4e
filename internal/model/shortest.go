package model

import "strconv"

// shortest widens a float32 to the float64 whose decimal form is the shortest that names it: 1e-5
// stored as a float32 becomes 1e-05 again, not 9.999999747378752e-06.
func shortest(v float32) float64 {
	f, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
	if err != nil { // not a finite number: kept as it is, Validate refuses it
		return float64(v)
	}
	return f
}
