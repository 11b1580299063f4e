package engine

import "math"

// random is splitmix64 (Steele, Lea and Flood 2014): small, and the same on every machine.
type random struct{ state uint64 }

// newRandom returns a stream for one purpose of one seed.
func newRandom(seed uint64, purpose string) random {
	h := uint64(0xcbf29ce484222325) // FNV-1a
	for _, b := range []byte(purpose) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return random{hash(seed, h)}
}

func (r *random) uint64() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// float64 is uniform in [0, 1).
func (r *random) float64() float64 { return float64(r.uint64()>>11) / (1 << 53) }

// hash mixes two numbers into one.
func hash(a, b uint64) uint64 {
	r := random{a}
	r.state = r.uint64() ^ b
	return r.uint64()
}

// normal is standard normal (Box and Muller 1958).
func (r *random) normal() float64 {
	u, v := 1-r.float64(), r.float64() // u is never 0
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}
