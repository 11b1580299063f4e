//go:build amd64 && !purego

#include "textflag.h"

// Constants of 4-bit coding. Even and odd values of a piece come out of the
// table separately; evenOdd* interleave them again (an index of 16 or more
// takes from the odd ones).
DATA evenOddLo<>+0(SB)/4, $0
DATA evenOddLo<>+4(SB)/4, $16
DATA evenOddLo<>+8(SB)/4, $1
DATA evenOddLo<>+12(SB)/4, $17
DATA evenOddLo<>+16(SB)/4, $2
DATA evenOddLo<>+20(SB)/4, $18
DATA evenOddLo<>+24(SB)/4, $3
DATA evenOddLo<>+28(SB)/4, $19
DATA evenOddLo<>+32(SB)/4, $4
DATA evenOddLo<>+36(SB)/4, $20
DATA evenOddLo<>+40(SB)/4, $5
DATA evenOddLo<>+44(SB)/4, $21
DATA evenOddLo<>+48(SB)/4, $6
DATA evenOddLo<>+52(SB)/4, $22
DATA evenOddLo<>+56(SB)/4, $7
DATA evenOddLo<>+60(SB)/4, $23
GLOBL evenOddLo<>(SB), RODATA|NOPTR, $64

DATA evenOddHi<>+0(SB)/4, $8
DATA evenOddHi<>+4(SB)/4, $24
DATA evenOddHi<>+8(SB)/4, $9
DATA evenOddHi<>+12(SB)/4, $25
DATA evenOddHi<>+16(SB)/4, $10
DATA evenOddHi<>+20(SB)/4, $26
DATA evenOddHi<>+24(SB)/4, $11
DATA evenOddHi<>+28(SB)/4, $27
DATA evenOddHi<>+32(SB)/4, $12
DATA evenOddHi<>+36(SB)/4, $28
DATA evenOddHi<>+40(SB)/4, $13
DATA evenOddHi<>+44(SB)/4, $29
DATA evenOddHi<>+48(SB)/4, $14
DATA evenOddHi<>+52(SB)/4, $30
DATA evenOddHi<>+56(SB)/4, $15
DATA evenOddHi<>+60(SB)/4, $31
GLOBL evenOddHi<>(SB), RODATA|NOPTR, $64

// Weights that join two codes into a byte: 16 for the first, 1 for the second.
DATA joinCodes<>+0(SB)/8, $0x0110011001100110
DATA joinCodes<>+8(SB)/8, $0x0110011001100110
GLOBL joinCodes<>(SB), RODATA|NOPTR, $16

DATA scalars4<>+0(SB)/4, $0x7fffffff // magnitude mask
DATA scalars4<>+4(SB)/4, $0x006ce3ee // 1e-38
DATA scalars4<>+8(SB)/4, $0x3f800000 // 1.0
DATA scalars4<>+12(SB)/4, $1
GLOBL scalars4<>(SB), RODATA|NOPTR, $16

// func decode4AVX512(dst *float32, src *byte, absmax *float32, blocks, pieces int, table *float32)
TEXT ·decode4AVX512(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ absmax+16(FP), DX
	MOVQ blocks+24(FP), CX
	MOVQ pieces+32(FP), R8
	MOVQ table+40(FP), AX
	VMOVUPS (AX), Z31
	VMOVDQU64 evenOddLo<>(SB), Z30
	VMOVDQU64 evenOddHi<>(SB), Z29

block:
	VBROADCASTSS (DX), Z28
	VMULPS       Z28, Z31, Z27 // 16 products serve the whole block
	MOVQ         R8, R9

piece:
	VPMOVZXBD (SI), Z0
	VPSRLD    $4, Z0, Z1
	VPERMPS   Z27, Z1, Z2 // first of each pair
	VPERMPS   Z27, Z0, Z3 // second: only the low 4 bits of an index count
	VMOVAPS   Z2, Z4
	VPERMT2PS Z3, Z30, Z4
	VPERMT2PS Z3, Z29, Z2
	VMOVUPS   Z4, (DI)
	VMOVUPS   Z2, 64(DI)
	ADDQ      $16, SI
	ADDQ      $128, DI
	DECQ      R9
	JNZ       piece
	ADDQ      $4, DX
	DECQ      CX
	JNZ       block
	VZEROUPPER
	RET

// LOOKUP8 decodes the 8 bytes at off(SI) to 16 values in Y6, Y7.
// Y14 and Y15 are the lower and upper half of the scaled table; bit 3 of an
// index, moved to the sign, chooses between them. Y2 gets the first of each
// pair, Y3 the second.
#define LOOKUP8(off) \
	VPMOVZXBD  off(SI), Y0         \
	VPSRLD     $4, Y0, Y1          \
	VPSLLD     $28, Y0, Y4         \
	VPSLLD     $28, Y1, Y5         \
	VPERMPS    Y14, Y1, Y2         \
	VPERMPS    Y15, Y1, Y3         \
	VBLENDVPS  Y5, Y3, Y2, Y2      \
	VPERMPS    Y14, Y0, Y1         \
	VPERMPS    Y15, Y0, Y3         \
	VBLENDVPS  Y4, Y3, Y1, Y3      \
	VUNPCKLPS  Y3, Y2, Y4          \
	VUNPCKHPS  Y3, Y2, Y5          \
	VPERM2F128 $0x20, Y5, Y4, Y6   \
	VPERM2F128 $0x31, Y5, Y4, Y7

// func decode4AVX2(dst *float32, src *byte, absmax *float32, blocks, pieces int, table *float32)
TEXT ·decode4AVX2(SB), NOSPLIT, $0-48
	MOVQ    dst+0(FP), DI
	MOVQ    src+8(FP), SI
	MOVQ    absmax+16(FP), DX
	MOVQ    blocks+24(FP), CX
	MOVQ    pieces+32(FP), R8
	MOVQ    table+40(FP), AX
	VMOVUPS (AX), Y12
	VMOVUPS 32(AX), Y13

block:
	VBROADCASTSS (DX), Y0
	VMULPS       Y0, Y12, Y14
	VMULPS       Y0, Y13, Y15
	MOVQ         R8, R9

piece:
	LOOKUP8(0)
	VMOVUPS Y6, (DI)
	VMOVUPS Y7, 32(DI)
	LOOKUP8(8)
	VMOVUPS Y6, 64(DI)
	VMOVUPS Y7, 96(DI)
	ADDQ $16, SI
	ADDQ $128, DI
	DECQ R9
	JNZ  piece
	ADDQ $4, DX
	DECQ CX
	JNZ  block
	VZEROUPPER
	RET

// The sums of dot4 have the order of dot (gemm_amd64.s). NEXTROW adds up the 8 lanes of Y4, stores the sum
// and goes on with the next row, or returns.
#define NEXTROW \
	VEXTRACTF128 $1, Y4, X5 \
	VADDPS       X5, X4, X4 \
	VPERMILPD    $1, X4, X5 \
	VADDPS       X5, X4, X4 \
	VMOVSHDUP    X4, X5 \
	VADDSS       X5, X4, X4 \
	VMOVSS       X4, (BX) \
	ADDQ         $4, BX \
	DECQ         R10 \
	JNZ          row \
	VZEROUPPER \
	RET

// evens and odds take the values at even and odd places of 32 apart.
DATA evens<>+0(SB)/4, $0
DATA evens<>+4(SB)/4, $2
DATA evens<>+8(SB)/4, $4
DATA evens<>+12(SB)/4, $6
DATA evens<>+16(SB)/4, $8
DATA evens<>+20(SB)/4, $10
DATA evens<>+24(SB)/4, $12
DATA evens<>+28(SB)/4, $14
DATA evens<>+32(SB)/4, $16
DATA evens<>+36(SB)/4, $18
DATA evens<>+40(SB)/4, $20
DATA evens<>+44(SB)/4, $22
DATA evens<>+48(SB)/4, $24
DATA evens<>+52(SB)/4, $26
DATA evens<>+56(SB)/4, $28
DATA evens<>+60(SB)/4, $30
GLOBL evens<>(SB), RODATA|NOPTR, $64

DATA odds<>+0(SB)/4, $1
DATA odds<>+4(SB)/4, $3
DATA odds<>+8(SB)/4, $5
DATA odds<>+12(SB)/4, $7
DATA odds<>+16(SB)/4, $9
DATA odds<>+20(SB)/4, $11
DATA odds<>+24(SB)/4, $13
DATA odds<>+28(SB)/4, $15
DATA odds<>+32(SB)/4, $17
DATA odds<>+36(SB)/4, $19
DATA odds<>+40(SB)/4, $21
DATA odds<>+44(SB)/4, $23
DATA odds<>+48(SB)/4, $25
DATA odds<>+52(SB)/4, $27
DATA odds<>+56(SB)/4, $29
DATA odds<>+60(SB)/4, $31
GLOBL odds<>(SB), RODATA|NOPTR, $64

// func dot4AVX512(out, x, apart *float32, src *byte, absmax *float32, rows, blocks, pieces int, table *float32)
TEXT ·dot4AVX512(SB), NOSPLIT, $0-72
	MOVQ out+0(FP), BX
	MOVQ x+8(FP), DI
	MOVQ apart+16(FP), R11
	MOVQ src+24(FP), SI
	MOVQ absmax+32(FP), DX
	MOVQ rows+40(FP), R10
	MOVQ blocks+48(FP), R12
	MOVQ pieces+56(FP), R8
	MOVQ table+64(FP), AX
	VMOVUPS (AX), Z31
	VMOVDQU64 evenOddLo<>(SB), Z30
	VMOVDQU64 evenOddHi<>(SB), Z29
	VMOVDQU64 evens<>(SB), Z26
	VMOVDQU64 odds<>(SB), Z25
	MOVQ  R12, CX
	IMULQ R8, CX
	MOVQ  R11, R9

apart: // x as the nibbles come: of 32 values the 16 at even places, then the others
	VMOVUPS   (DI), Z0
	VMOVUPS   64(DI), Z1
	VMOVAPS   Z0, Z2
	VPERMT2PS Z1, Z26, Z2
	VPERMT2PS Z1, Z25, Z0
	VMOVUPS   Z2, (R9)
	VMOVUPS   Z0, 64(R9)
	ADDQ      $128, DI
	ADDQ      $128, R9
	DECQ      CX
	JNZ       apart

row:
	MOVQ   R11, DI
	MOVQ   R12, CX
	VPXORQ Z16, Z16, Z16
	VPXORQ Z17, Z17, Z17

block:
	VBROADCASTSS (DX), Z28
	VMULPS       Z28, Z31, Z27
	MOVQ         R8, R9

piece:
	PREFETCHT0  4096(SI) // pages are further apart in memory than the processor looks ahead
	VPMOVZXBD   (SI), Z0
	VPSRLD      $4, Z0, Z1
	VPERMPS     Z27, Z1, Z2
	VPERMPS     Z27, Z0, Z3
	VFMADD231PS (DI), Z2, Z16
	VFMADD231PS 64(DI), Z3, Z17
	ADDQ        $16, SI
	ADDQ        $128, DI
	DECQ        R9
	JNZ         piece
	ADDQ        $4, DX
	DECQ        CX
	JNZ         block
	VMOVAPS       Z16, Z4 // sums back at their places
	VPERMT2PS     Z17, Z30, Z4
	VPERMT2PS     Z17, Z29, Z16
	VADDPS        Z16, Z4, Z4
	VEXTRACTF64X4 $1, Z4, Y5
	VADDPS        Y5, Y4, Y4
	NEXTROW

// func dot4AVX2(out, x *float32, src *byte, absmax *float32, rows, blocks, pieces int, table *float32)
TEXT ·dot4AVX2(SB), NOSPLIT, $0-64
	MOVQ out+0(FP), BX
	MOVQ x+8(FP), R11
	MOVQ src+16(FP), SI
	MOVQ absmax+24(FP), DX
	MOVQ rows+32(FP), R10
	MOVQ blocks+40(FP), R12
	MOVQ pieces+48(FP), R8
	MOVQ table+56(FP), AX
	VMOVUPS (AX), Y12
	VMOVUPS 32(AX), Y13

row:
	MOVQ  R11, DI
	MOVQ  R12, CX
	VPXOR Y8, Y8, Y8
	VPXOR Y9, Y9, Y9
	VPXOR Y10, Y10, Y10
	VPXOR Y11, Y11, Y11

block:
	VBROADCASTSS (DX), Y0
	VMULPS       Y0, Y12, Y14
	VMULPS       Y0, Y13, Y15
	MOVQ         R8, R9

piece:
	PREFETCHT0 4096(SI)
	LOOKUP8(0)
	VFMADD231PS (DI), Y6, Y8
	VFMADD231PS 32(DI), Y7, Y9
	LOOKUP8(8)
	VFMADD231PS 64(DI), Y6, Y10
	VFMADD231PS 96(DI), Y7, Y11
	ADDQ        $16, SI
	ADDQ        $128, DI
	DECQ        R9
	JNZ         piece
	ADDQ        $4, DX
	DECQ        CX
	JNZ         block
	VADDPS Y10, Y8, Y4
	VADDPS Y11, Y9, Y5
	VADDPS Y5, Y4, Y4
	NEXTROW

// CODES16 turns 16 values at off(SI) into 8 bytes at out(DI). A value walks
// down the tree of bounds: node = 2*node + (value > tree[node]), four times
// from node 1; nodes 16 to 31 are the intervals, whose codes are in X25.
#define CODES16(off, out) \
	VMULPS     off(SI), Z28, Z0  \
	VCMPPS     $0x1e, Z27, Z0, K1 \
	VPADDD     Z29, Z29, Z1      \
	VPADDD     Z29, Z1, K1, Z1   \
	VPERMPS    Z31, Z1, Z2       \
	VCMPPS     $0x1e, Z2, Z0, K1 \
	VPADDD     Z1, Z1, Z1        \
	VPADDD     Z29, Z1, K1, Z1   \
	VPERMPS    Z31, Z1, Z2       \
	VCMPPS     $0x1e, Z2, Z0, K1 \
	VPADDD     Z1, Z1, Z1        \
	VPADDD     Z29, Z1, K1, Z1   \
	VPERMPS    Z31, Z1, Z2       \
	VCMPPS     $0x1e, Z2, Z0, K1 \
	VPADDD     Z1, Z1, Z1        \
	VPADDD     Z29, Z1, K1, Z1   \
	VPMOVDB    Z1, X1            \
	VPSHUFB    X1, X25, X1       \
	VPMADDUBSW X26, X1, X1       \
	VPACKUSWB  X1, X1, X1        \
	VMOVQ      X1, out(DI)

// func encode4AVX512(dst *byte, absmax *float32, src *float32, blocks, pieces int, tree *float32, order *byte)
TEXT ·encode4AVX512(SB), NOSPLIT, $0-56
	MOVQ         dst+0(FP), DI
	MOVQ         absmax+8(FP), DX
	MOVQ         src+16(FP), SI
	MOVQ         blocks+24(FP), CX
	MOVQ         pieces+32(FP), R8
	MOVQ         tree+40(FP), AX
	MOVQ         order+48(FP), BX
	VMOVUPS      (AX), Z31
	VBROADCASTSS 4(AX), Z27
	VPBROADCASTD scalars4<>+0(SB), Z30
	VPBROADCASTD scalars4<>+12(SB), Z29
	VMOVDQU64    joinCodes<>(SB), X26
	VMOVDQU64    (BX), X25

block:
	VPXORD Z0, Z0, Z0
	VPXORD Z1, Z1, Z1
	MOVQ   SI, R10
	MOVQ   R8, R9

magnitude:
	VPANDD  (R10), Z30, Z2
	VPANDD  64(R10), Z30, Z3
	VPMAXUD Z2, Z0, Z0
	VPMAXUD Z3, Z1, Z1
	ADDQ    $128, R10
	DECQ    R9
	JNZ     magnitude
	VPMAXUD       Z1, Z0, Z0
	VEXTRACTI64X4 $1, Z0, Y1
	VPMAXUD       Y1, Y0, Y0
	VEXTRACTI128  $1, Y0, X1
	VPMAXUD       X1, X0, X0
	VPSHUFD       $0x4e, X0, X1
	VPMAXUD       X1, X0, X0
	VPSHUFD       $0xb1, X0, X1
	VPMAXUD       X1, X0, X0
	VMOVSS        X0, (DX)
	VMAXSS        scalars4<>+4(SB), X0, X0
	VMOVSS        scalars4<>+8(SB), X1
	VDIVSS        X0, X1, X0
	VBROADCASTSS  X0, Z28
	MOVQ          R8, R9

piece:
	CODES16(0, 0)
	CODES16(64, 8)
	ADDQ $128, SI
	ADDQ $16, DI
	DECQ R9
	JNZ  piece
	ADDQ $4, DX
	DECQ CX
	JNZ  block
	VZEROUPPER
	RET

// NODES8 walks the 8 values at off(SI) down the tree, leaving nodes 16 to 31
// in n. Y13 holds nodes 0 to 7, Y14 nodes 8 to 15.
#define NODES8(off, n) \
	VMULPS  off(SI), Y15, Y0   \
	VCMPPS  $0x1e, Y12, Y0, Y1 \
	VPADDD  Y11, Y11, n        \
	VPSUBD  Y1, n, n           \
	VPERMPS Y13, n, Y1         \
	VCMPPS  $0x1e, Y1, Y0, Y1  \
	VPADDD  n, n, n            \
	VPSUBD  Y1, n, n           \
	VPERMPS Y13, n, Y1         \
	VCMPPS  $0x1e, Y1, Y0, Y1  \
	VPADDD  n, n, n            \
	VPSUBD  Y1, n, n           \
	VPERMPS Y14, n, Y1         \
	VCMPPS  $0x1e, Y1, Y0, Y1  \
	VPADDD  n, n, n            \
	VPSUBD  Y1, n, n

// CODES16Y is CODES16 in halves; packing leaves them as 0-3 8-11 4-7 12-15,
// which VPERMQ sorts.
#define CODES16Y(off, out) \
	NODES8(off, Y2)               \
	NODES8((off+32), Y3)          \
	VPACKSSDW    Y3, Y2, Y2       \
	VPERMQ       $0xd8, Y2, Y2    \
	VEXTRACTI128 $1, Y2, X3       \
	VPACKUSWB    X3, X2, X2       \
	VPSHUFB      X2, X9, X2       \
	VPMADDUBSW   X8, X2, X2       \
	VPACKUSWB    X2, X2, X2       \
	VMOVQ        X2, out(DI)

// func encode4AVX2(dst *byte, absmax *float32, src *float32, blocks, pieces int, tree *float32, order *byte)
TEXT ·encode4AVX2(SB), NOSPLIT, $0-56
	MOVQ         dst+0(FP), DI
	MOVQ         absmax+8(FP), DX
	MOVQ         src+16(FP), SI
	MOVQ         blocks+24(FP), CX
	MOVQ         pieces+32(FP), R8
	MOVQ         tree+40(FP), AX
	MOVQ         order+48(FP), BX
	VMOVUPS      (AX), Y13
	VMOVUPS      32(AX), Y14
	VBROADCASTSS 4(AX), Y12
	VPBROADCASTD scalars4<>+0(SB), Y10
	VPBROADCASTD scalars4<>+12(SB), Y11
	VMOVDQU      joinCodes<>(SB), X8
	VMOVDQU      (BX), X9

block:
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	MOVQ  SI, R10
	MOVQ  R8, R9

magnitude:
	VPAND   (R10), Y10, Y2
	VPAND   32(R10), Y10, Y3
	VPAND   64(R10), Y10, Y4
	VPAND   96(R10), Y10, Y5
	VPMAXUD Y2, Y0, Y0
	VPMAXUD Y3, Y1, Y1
	VPMAXUD Y4, Y0, Y0
	VPMAXUD Y5, Y1, Y1
	ADDQ    $128, R10
	DECQ    R9
	JNZ     magnitude
	VPMAXUD      Y1, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPMAXUD      X1, X0, X0
	VPSHUFD      $0x4e, X0, X1
	VPMAXUD      X1, X0, X0
	VPSHUFD      $0xb1, X0, X1
	VPMAXUD      X1, X0, X0
	VMOVSS       X0, (DX)
	VMAXSS       scalars4<>+4(SB), X0, X0
	VMOVSS       scalars4<>+8(SB), X1
	VDIVSS       X0, X1, X0
	VBROADCASTSS X0, Y15
	MOVQ         R8, R9

piece:
	CODES16Y(0, 0)
	CODES16Y(64, 8)
	ADDQ $128, SI
	ADDQ $16, DI
	DECQ R9
	JNZ  piece
	ADDQ $4, DX
	DECQ CX
	JNZ  block
	VZEROUPPER
	RET
