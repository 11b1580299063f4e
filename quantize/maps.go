package quantize

import (
	"math"

	"github.com/graftml/graft/internal/kernel"
)

// This file holds the tables of bitsandbytes' formats, as bits where the
// decimal form would hide what is meant.

// codebooks are the 4-bit formats by name.
var codebooks = map[string]*kernel.Codebook{
	// NF4: the quantiles of a normal distribution, scaled to [-1, 1], with 0.
	"nf4": kernel.NewCodebook(fromBits([16]uint32{
		0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0,
		0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a, 0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000,
	}), [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}),
	// FP4: a sign bit and 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4. Code 8 is a
	// second 0, the one that tiny positive numbers get.
	"fp4": kernel.NewCodebook(fromBits([16]uint32{
		0, 0x3baaaaab, 0x3f2aaaab, 0x3f800000, 0x3eaaaaab, 0x3f000000, 0x3e2aaaab, 0x3e800000,
		0, 0xbbaaaaab, 0xbf2aaaab, 0xbf800000, 0xbeaaaaab, 0xbf000000, 0xbe2aaaab, 0xbe800000,
	}), [16]byte{11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3}),
}

func fromBits(bits [16]uint32) (v [16]float32) {
	for i, b := range bits {
		v[i] = math.Float32frombits(b)
	}
	return v
}

// dynamicPositive are the bits of the upper half, codes 128 to 255, of the
// signed dynamic 8-bit map: for e = 0..6 the midpoints of 2^e equal parts of
// [0.1, 1] times 10^(e-6), and 1, in PyTorch's float32 arithmetic, which a
// computation in float64 would not reproduce.
var dynamicPositive = [128]uint32{
	0x3513a3b7, 0x365a1a94, 0x370205ff, 0x37b24206, 0x38378034, 0x388aefb3, 0x38ba1f4b, 0x3923d70b,
	0x398ce705, 0x39c7e283, 0x3a016f01, 0x3a1eecc1, 0x3a3c6a80, 0x3a59e83e, 0x3a7765ff, 0x3aa7ef9d,
	0x3af1a9fc, 0x3b1db22d, 0x3b428f5c, 0x3b676c8a, 0x3b8624dd, 0x3b989374, 0x3bab020d, 0x3bbd70a4,
	0x3bcfdf3b, 0x3be24dd3, 0x3bf4bc6a, 0x3c039581, 0x3c0ccccd, 0x3c160418, 0x3c1f3b64, 0x3c3ae148,
	0x3c68f5c3, 0x3c8b851f, 0x3ca28f5d, 0x3cb9999a, 0x3cd0a3d7, 0x3ce7ae15, 0x3cfeb852, 0x3d0ae148,
	0x3d166667, 0x3d21eb85, 0x3d2d70a3, 0x3d38f5c3, 0x3d447ae1, 0x3d500000, 0x3d5b851f, 0x3d670a3d,
	0x3d728f5d, 0x3d7e147b, 0x3d84cccd, 0x3d8a8f5d, 0x3d9051eb, 0x3d96147b, 0x3d9bd70a, 0x3da1999a,
	0x3da75c2a, 0x3dad1eb8, 0x3db2e148, 0x3db8a3d7, 0x3dbe6667, 0x3dc428f7, 0x3dc9eb85, 0x3ddb3334,
	0x3df80000, 0x3e0a6666, 0x3e18cccd, 0x3e273333, 0x3e35999a, 0x3e440000, 0x3e526666, 0x3e60cccd,
	0x3e6f3333, 0x3e7d9999, 0x3e860000, 0x3e8d3334, 0x3e946666, 0x3e9b999a, 0x3ea2cccc, 0x3eaa0000,
	0x3eb13333, 0x3eb86666, 0x3ebf999a, 0x3ec6cccc, 0x3ece0000, 0x3ed53333, 0x3edc6666, 0x3ee3999a,
	0x3eeacccc, 0x3ef20000, 0x3ef93332, 0x3f003333, 0x3f03cccc, 0x3f076666, 0x3f0b0000, 0x3f0e999a,
	0x3f123334, 0x3f15cccd, 0x3f196666, 0x3f1d0000, 0x3f20999a, 0x3f243334, 0x3f27cccd, 0x3f2b6666,
	0x3f2f0000, 0x3f32999a, 0x3f363334, 0x3f39cccd, 0x3f3d6666, 0x3f410000, 0x3f44999a, 0x3f483333,
	0x3f4bcccd, 0x3f4f6666, 0x3f530000, 0x3f56999a, 0x3f5a3333, 0x3f5dcccd, 0x3f616666, 0x3f650000,
	0x3f68999a, 0x3f6c3333, 0x3f6fcccd, 0x3f736666, 0x3f770000, 0x3f7a999a, 0x3f7e3333, 0x3f800000,
}

// dynamicMap is the whole map, ascending: code 127 is 0, codes below it are
// the negatives of those above without -1.
var dynamicMap = func() (m [256]float32) {
	for i, b := range dynamicPositive {
		m[128+i] = math.Float32frombits(b)
	}
	for k := 1; k <= 127; k++ {
		m[127-k] = -m[127+k]
	}
	return m
}()

// dynamicBounds are the midpoints of neighbouring map values.
var dynamicBounds = func() (b [255]float32) {
	for i := range b {
		b[i] = 0.5 * (dynamicMap[i] + dynamicMap[i+1])
	}
	return b
}()

// dynamicLevels is the map's code for each of 65536 levels of [-1, 1], the
// table that bitsandbytes' CPU code rounds with.
var dynamicLevels = func() (codes [1 << 16]byte) {
	code := 0
	for i := range codes {
		v := -1 + float32(2*float32(i))/65535
		for code < 255 && dynamicBounds[code] < v {
			code++
		}
		codes[i] = byte(code)
	}
	return codes
}()
