package kernel

// This file holds the type of activations: what flows between operations is float32,
// or bfloat16 where memory and the products are to gain by it.

// Vec is a run of values: float32, or bfloat16 (little-endian, as in files) where F32
// is nil. Operations on bfloat16 widen what they read, compute in float32 and round
// what they write to the nearest even.
type Vec struct {
	F32  []float32
	BF16 []byte

	kept *Kept
}

// Keeping is v as the operand of several products in a row, which k keeps in the form that they take.
// What v holds must not change before k.Drop. A slice of it is an operand of its own.
func (v Vec) Keeping(k *Kept) Vec {
	v.kept = k
	return v
}

// F32Vec is x as a Vec.
func F32Vec(x []float32) Vec { return Vec{F32: x} }

// HalfVec is the memory of words as n values in bfloat16, two to a word.
func HalfVec(words []float32, n int) Vec { return Vec{BF16: asBytes(words)[:2*n]} }

// Half reports whether the values are bfloat16.
func (v Vec) Half() bool { return v.F32 == nil && v.BF16 != nil }

// Len is the number of values.
func (v Vec) Len() int {
	if v.F32 != nil {
		return len(v.F32)
	}
	return len(v.BF16) / 2
}

// Slice is values [lo, hi).
func (v Vec) Slice(lo, hi int) Vec {
	if v.F32 != nil {
		return Vec{F32: v.F32[lo:hi]}
	}
	return Vec{BF16: v.BF16[2*lo : 2*hi]}
}

// from is the values from lo on.
func (v Vec) from(lo int) Vec { return v.Slice(lo, v.Len()) }

// Read gives values [lo, hi) as float32: in place where they are, in buf otherwise.
func (v Vec) Read(buf *[]float32, lo, hi int) []float32 {
	if v.F32 != nil {
		return v.F32[lo:hi]
	}
	x := growAligned(buf, hi-lo)
	BF16ToF32(x, v.BF16[2*lo:2*hi])
	return x
}

// Room gives where values [lo, hi) are to be computed as float32: in place, or in buf,
// from which Write puts them in place.
func (v Vec) Room(buf *[]float32, lo, hi int) []float32 {
	if v.F32 != nil {
		return v.F32[lo:hi]
	}
	return growAligned(buf, hi-lo)
}

// Write puts x, which Room gave, in place as values [lo, lo+len(x)).
func (v Vec) Write(lo int, x []float32) {
	if v.F32 == nil {
		F32ToBF16(v.BF16[2*lo:2*(lo+len(x))], x)
	}
}

// rowScratch is room for a row, or a piece, of each operand that is not float32.
type rowScratch [6][]float32

var rowScratches freeList[rowScratch]

// widenPiece is the number of values that elementwise operations widen at a time.
const widenPiece = 512

// Copy sets dst to src, which has as many values, in the type of dst.
func Copy(dst, src Vec) {
	checkLen("Copy", "src", src.Len(), dst.Len())
	if dst.Len() < 2*elemGrain {
		copyVec(dst, src)
		return
	}
	t := copyTasks.get()
	*t = copyTask{dst, src}
	Parallel(dst.Len(), elemGrain, t)
	*t = copyTask{}
	copyTasks.put(t)
}

type copyTask struct{ dst, src Vec }

var copyTasks freeList[copyTask]

func (t *copyTask) Run(lo, hi int) { copyVec(t.dst.Slice(lo, hi), t.src.Slice(lo, hi)) }

func copyVec(dst, src Vec) {
	switch {
	case dst.F32 != nil && src.F32 != nil:
		copy(dst.F32, src.F32)
	case dst.F32 != nil:
		BF16ToF32(dst.F32, src.BF16)
	case src.F32 != nil:
		F32ToBF16(dst.BF16, src.F32)
	default:
		copy(dst.BF16, src.BF16)
	}
}

// accumulateTask adds a range of values.
type accumulateTask struct{ dst, src Vec }

var accumulateTasks freeList[accumulateTask]

func (t *accumulateTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	for ; lo < hi; lo += widenPiece {
		to := min(lo+widenPiece, hi)
		dst := t.dst.Read(&sc[0], lo, to)
		vecAdd(dst, dst, t.src.Read(&sc[1], lo, to))
		t.dst.Write(lo, dst)
	}
}

// Accumulate adds src to dst, which has as many values.
func Accumulate(dst, src Vec) {
	checkLen("Accumulate", "src", src.Len(), dst.Len())
	t := accumulateTasks.get()
	*t = accumulateTask{dst, src}
	Parallel(dst.Len(), elemGrain, t)
	*t = accumulateTask{}
	accumulateTasks.put(t)
}

type scaleTask struct {
	dst, src Vec
	s        float32
}

var scaleTasks freeList[scaleTask]

func (t *scaleTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	for ; lo < hi; lo += widenPiece {
		to := min(lo+widenPiece, hi)
		dst := t.dst.Room(&sc[0], lo, to)
		vecScale(dst, t.src.Read(&sc[1], lo, to), t.s)
		t.dst.Write(lo, dst)
	}
}

// ScaleVec sets dst = s·src, which has as many values. dst may be src.
func ScaleVec(dst, src Vec, s float32) {
	checkLen("ScaleVec", "src", src.Len(), dst.Len())
	t := scaleTasks.get()
	*t = scaleTask{dst, src, s}
	Parallel(dst.Len(), elemGrain, t)
	*t = scaleTask{}
	scaleTasks.put(t)
}
