//go:build amd64 && !purego

#include "textflag.h"

DATA encodeConst<>+0(SB)/4, $0x7fffffff  // magnitude
DATA encodeConst<>+4(SB)/4, $0x42fe0000  // 127
DATA encodeConst<>+8(SB)/4, $0x3f800000  // 1
DATA encodeConst<>+12(SB)/4, $0xff       // a byte
DATA encodeConst<>+16(SB)/4, $0x3f000000 // 0.5
DATA encodeConst<>+20(SB)/4, $0xbe000000 // -1/8
DATA encodeConst<>+24(SB)/4, $0x41080000 // 8.5
DATA encodeConst<>+28(SB)/4, $0x41700000 // 15
DATA encodeConst<>+32(SB)/4, $0xbd800000 // -1/16
DATA encodeConst<>+36(SB)/4, $0x41840000 // 16.5
DATA encodeConst<>+40(SB)/4, $0x41f80000 // 31
GLOBL encodeConst<>(SB), RODATA|NOPTR, $44

DATA packOrder<>+0(SB)/8, $0x0000000400000000
DATA packOrder<>+8(SB)/8, $0x0000000500000001
DATA packOrder<>+16(SB)/8, $0x0000000600000002
DATA packOrder<>+24(SB)/8, $0x0000000700000003
GLOBL packOrder<>(SB), RODATA|NOPTR, $32

// BEGIN loads what every encoder keeps: Y15 the mask of a magnitude, Y13 one, Y12 zero,
// R10 the blocks done.
#define BEGIN \
	MOVQ         dst+0(FP), DI            \
	MOVQ         src+8(FP), SI            \
	MOVQ         blocks+16(FP), CX        \
	XORQ         R10, R10                 \
	VBROADCASTSS encodeConst<>+0(SB), Y15 \
	VBROADCASTSS encodeConst<>+8(SB), Y13 \
	VXORPS       Y12, Y12, Y12

// LOAD brings a block to Y0–Y3 and the bits of its largest magnitude to X4 and AX.
#define LOAD \
	VMOVUPS      (SI), Y0    \
	VMOVUPS      32(SI), Y1  \
	VMOVUPS      64(SI), Y2  \
	VMOVUPS      96(SI), Y3  \
	VPAND        Y15, Y0, Y4 \
	VPAND        Y15, Y1, Y5 \
	VPAND        Y15, Y2, Y6 \
	VPAND        Y15, Y3, Y7 \
	VPMAXUD      Y5, Y4, Y4  \
	VPMAXUD      Y7, Y6, Y6  \
	VPMAXUD      Y6, Y4, Y4  \
	VEXTRACTI128 $1, Y4, X5  \
	VPMAXUD      X5, X4, X4  \
	VPSHUFD      $0x4e, X4, X5 \
	VPMAXUD      X5, X4, X4  \
	VPSHUFD      $0xb1, X4, X5 \
	VPMAXUD      X5, X4, X4  \
	VMOVD        X4, AX

// FIRST brings the number of the first value whose lane in Y4–Y7 is set to AX.
#define FIRST \
	VMOVMSKPS Y4, AX  \
	VMOVMSKPS Y5, BX  \
	VMOVMSKPS Y6, DX  \
	VMOVMSKPS Y7, R8  \
	SHLL      $8, BX  \
	SHLL      $16, DX \
	SHLL      $24, R8 \
	ORL       BX, AX  \
	ORL       DX, AX  \
	ORL       R8, AX  \
	BSFL      AX, AX

// EXTREME brings the first of the values that op picks to all lanes of dst.
#define EXTREME(op, dst) \
	op           Y1, Y0, Y4      \
	op           Y3, Y2, Y5      \
	op           Y5, Y4, Y4      \
	VEXTRACTF128 $1, Y4, X5      \
	op           X5, X4, X4      \
	VPSHUFD      $0x4e, X4, X5   \
	op           X5, X4, X4      \
	VPSHUFD      $0xb1, X4, X5   \
	op           X5, X4, X4      \
	VBROADCASTSS X4, Y8          \
	VCMPPS       $0, Y8, Y0, Y4  \
	VCMPPS       $0, Y8, Y1, Y5  \
	VCMPPS       $0, Y8, Y2, Y6  \
	VCMPPS       $0, Y8, Y3, Y7  \
	FIRST                        \
	VBROADCASTSS (SI)(AX*4), dst

// SCALE stores the scale in Y5 as a half at the start of the block and makes Y6 its
// reciprocal, or 0 for 0.
#define SCALE \
	VCVTPS2PH $0, X5, X6       \
	VPEXTRW   $0, X6, AX       \
	MOVW      AX, (DI)         \
	VDIVPS    Y5, Y13, Y6      \
	VCMPPS    $4, Y12, Y5, Y7  \
	VPAND     Y7, Y6, Y6

// PEAK brings the first value of the largest magnitude to all lanes of Y5, and 0 where all are.
// The comparison is of bits; AX and X4 come from LOAD.
#define PEAK(zero) \
	VXORPS       Y5, Y5, Y5   \
	TESTL        AX, AX       \
	JZ           zero         \
	VBROADCASTSS X4, Y8       \
	VPAND        Y15, Y0, Y4  \
	VPAND        Y15, Y1, Y5  \
	VPAND        Y15, Y2, Y6  \
	VPAND        Y15, Y3, Y7  \
	VPCMPEQD     Y8, Y4, Y4   \
	VPCMPEQD     Y8, Y5, Y5   \
	VPCMPEQD     Y8, Y6, Y6   \
	VPCMPEQD     Y8, Y7, Y7   \
	FIRST                     \
	VBROADCASTSS (SI)(AX*4), Y5

// CODE turns a vector into codes: x·Y6 + Y11, cut to whole numbers in [0, Y9]. What no int32
// holds is converted to the least one.
#define CODE(y) \
	VMULPS     Y6, y, y  \
	VADDPS     Y11, y, y \
	VCVTTPS2DQ y, y      \
	VPMAXSD    Y12, y, y \
	VPMINSD    Y9, y, y

#define CODES \
	VCVTTPS2DQ Y14, Y9 \
	CODE(Y0) \
	CODE(Y1) \
	CODE(Y2) \
	CODE(Y3)

// NIBBLES stores the low four bits of the codes, value i and i+16 in a byte. Y4 and Y5
// are used.
#define NIBBLES(at) \
	VPSLLD       $4, Y2, Y4      \
	VPSLLD       $4, Y3, Y5      \
	VPOR         Y4, Y0, Y0      \
	VPOR         Y5, Y1, Y1      \
	VPACKUSDW    Y1, Y0, Y0      \
	VPERMQ       $0xd8, Y0, Y0   \
	VEXTRACTI128 $1, Y0, X1      \
	VPACKUSWB    X1, X0, X0      \
	VMOVDQU      X0, at

// FIFTH stores bit 4 of each code as a bit of a word, and clears it.
#define FIFTH(at) \
	VPSLLD    $27, Y0, Y4 \
	VPSLLD    $27, Y1, Y5 \
	VPSLLD    $27, Y2, Y6 \
	VPSLLD    $27, Y3, Y7 \
	VMOVMSKPS Y4, AX      \
	VMOVMSKPS Y5, BX      \
	VMOVMSKPS Y6, DX      \
	VMOVMSKPS Y7, R8      \
	SHLL      $8, BX      \
	SHLL      $16, DX     \
	SHLL      $24, R8     \
	ORL       BX, AX      \
	ORL       DX, AX      \
	ORL       R8, AX      \
	MOVL      AX, at      \
	VPSLLD    $28, Y0, Y0 \
	VPSLLD    $28, Y1, Y1 \
	VPSLLD    $28, Y2, Y2 \
	VPSLLD    $28, Y3, Y3 \
	VPSRLD    $28, Y0, Y0 \
	VPSRLD    $28, Y1, Y1 \
	VPSRLD    $28, Y2, Y2 \
	VPSRLD    $28, Y3, Y3

// LESS subtracts y from the block.
#define LESS(y) \
	VSUBPS y, Y0, Y0 \
	VSUBPS y, Y1, Y1 \
	VSUBPS y, Y2, Y2 \
	VSUBPS y, Y3, Y3

// ROUND turns a vector into the low bytes of whole numbers: y·Y6 to the nearest, halves away from
// zero. Y11 is a half, Y10 the mask of a byte.
#define ROUND(y) \
	VMULPS     Y6, y, y         \
	VROUNDPS   $3, y, Y8        \
	VSUBPS     Y8, y, Y9        \
	VPAND      Y15, Y9, Y9      \
	VCMPPS     $13, Y11, Y9, Y9 \
	VPANDN     y, Y15, Y5       \
	VPOR       Y13, Y5, Y5      \
	VPAND      Y9, Y5, Y5       \
	VADDPS     Y5, Y8, Y8       \
	VCVTTPS2DQ Y8, y            \
	VPAND      Y10, y, y

// func encodeQ8_0AVX2(dst *byte, src *float32, blocks int) int
TEXT ·encodeQ8_0AVX2(SB), NOSPLIT, $0-32
	BEGIN
	VBROADCASTSS encodeConst<>+4(SB), Y14
	VBROADCASTSS encodeConst<>+12(SB), Y10
	VBROADCASTSS encodeConst<>+16(SB), Y11

loop:
	LOAD
	CMPL         AX, $0x7f800000
	JAE          done
	VBROADCASTSS X4, Y4
	VDIVPS       Y14, Y4, Y5
	SCALE
	ROUND(Y0)
	ROUND(Y1)
	ROUND(Y2)
	ROUND(Y3)
	VPACKUSDW    Y1, Y0, Y0
	VPACKUSDW    Y3, Y2, Y2
	VPACKUSWB    Y2, Y0, Y0
	VMOVDQU      packOrder<>(SB), Y1
	VPERMD       Y0, Y1, Y0
	VMOVDQU      Y0, 2(DI)
	ADDQ         $128, SI
	ADDQ         $34, DI
	INCQ         R10
	CMPQ         R10, CX
	JB           loop

done:
	MOVQ R10, ret+24(FP)
	VZEROUPPER
	RET

// func encodeQ4_0AVX2(dst *byte, src *float32, blocks int) int
TEXT ·encodeQ4_0AVX2(SB), NOSPLIT, $0-32
	BEGIN
	VBROADCASTSS encodeConst<>+20(SB), Y10
	VBROADCASTSS encodeConst<>+24(SB), Y11
	VBROADCASTSS encodeConst<>+28(SB), Y14

loop:
	LOAD
	CMPL AX, $0x7f800000
	JAE  done
	PEAK(scale)

scale:
	VMULPS Y10, Y5, Y5
	SCALE
	CODES
	NIBBLES(2(DI))
	ADDQ   $128, SI
	ADDQ   $18, DI
	INCQ   R10
	CMPQ   R10, CX
	JB     loop

done:
	MOVQ R10, ret+24(FP)
	VZEROUPPER
	RET

// func encodeQ5_0AVX2(dst *byte, src *float32, blocks int) int
TEXT ·encodeQ5_0AVX2(SB), NOSPLIT, $0-32
	BEGIN
	VBROADCASTSS encodeConst<>+32(SB), Y10
	VBROADCASTSS encodeConst<>+36(SB), Y11
	VBROADCASTSS encodeConst<>+40(SB), Y14

loop:
	LOAD
	CMPL AX, $0x7f800000
	JAE  done
	PEAK(scale)

scale:
	VMULPS Y10, Y5, Y5
	SCALE
	CODES
	FIFTH(2(DI))
	NIBBLES(6(DI))
	ADDQ   $128, SI
	ADDQ   $22, DI
	INCQ   R10
	CMPQ   R10, CX
	JB     loop

done:
	MOVQ R10, ret+24(FP)
	VZEROUPPER
	RET

// MINIMUM prepares the formats with a minimum: the scale (high − low)/Y14 and the minimum
// are stored, the minimum is taken off the block.
#define MINIMUM \
	EXTREME(VMINPS, Y9)   \
	EXTREME(VMAXPS, Y10)  \
	VSUBPS    Y9, Y10, Y5 \
	VDIVPS    Y14, Y5, Y5 \
	SCALE                 \
	VCVTPS2PH $0, X9, X7  \
	VPEXTRW   $0, X7, AX  \
	MOVW      AX, 2(DI)   \
	LESS(Y9)

// func encodeQ4_1AVX2(dst *byte, src *float32, blocks int) int
TEXT ·encodeQ4_1AVX2(SB), NOSPLIT, $0-32
	BEGIN
	VBROADCASTSS encodeConst<>+16(SB), Y11
	VBROADCASTSS encodeConst<>+28(SB), Y14

loop:
	LOAD
	CMPL AX, $0x7f800000
	JAE  done
	MINIMUM
	CODES
	NIBBLES(4(DI))
	ADDQ $128, SI
	ADDQ $20, DI
	INCQ R10
	CMPQ R10, CX
	JB   loop

done:
	MOVQ R10, ret+24(FP)
	VZEROUPPER
	RET

// func encodeQ5_1AVX2(dst *byte, src *float32, blocks int) int
TEXT ·encodeQ5_1AVX2(SB), NOSPLIT, $0-32
	BEGIN
	VBROADCASTSS encodeConst<>+16(SB), Y11
	VBROADCASTSS encodeConst<>+40(SB), Y14

loop:
	LOAD
	CMPL AX, $0x7f800000
	JAE  done
	MINIMUM
	CODES
	FIFTH(4(DI))
	NIBBLES(8(DI))
	ADDQ $128, SI
	ADDQ $24, DI
	INCQ R10
	CMPQ R10, CX
	JB   loop

done:
	MOVQ R10, ret+24(FP)
	VZEROUPPER
	RET
