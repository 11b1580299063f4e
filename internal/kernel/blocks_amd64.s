//go:build amd64 && !purego

#include "textflag.h"

DATA blockConst<>+0(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA blockConst<>+8(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA blockConst<>+16(SB)/4, $8
GLOBL blockConst<>(SB), RODATA|NOPTR, $20

// func decodeQ8_0AVX2(dst *float32, src *byte, blocks int)
TEXT ·decodeQ8_0AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX

loop:
	MOVWLZX      (SI), AX
	VMOVD        AX, X0
	VCVTPH2PS    X0, X0
	VBROADCASTSS X0, Y0
	VPMOVSXBD    2(SI), Y1
	VPMOVSXBD    10(SI), Y2
	VPMOVSXBD    18(SI), Y3
	VPMOVSXBD    26(SI), Y4
	VCVTDQ2PS    Y1, Y1
	VCVTDQ2PS    Y2, Y2
	VCVTDQ2PS    Y3, Y3
	VCVTDQ2PS    Y4, Y4
	VMULPS       Y0, Y1, Y1
	VMULPS       Y0, Y2, Y2
	VMULPS       Y0, Y3, Y3
	VMULPS       Y0, Y4, Y4
	VMOVUPS      Y1, (DI)
	VMOVUPS      Y2, 32(DI)
	VMOVUPS      Y3, 64(DI)
	VMOVUPS      Y4, 96(DI)
	ADDQ         $34, SI
	ADDQ         $128, DI
	DECQ         CX
	JNZ          loop
	VZEROUPPER
	RET

// NIBBLES widens the nibbles of 16 bytes: the low ones to Y3 and Y4, the high ones to Y5
// and Y6. X15 holds the mask.
#define NIBBLES(at) \
	VMOVDQU   at, X2        \
	VPSRLW    $4, X2, X5    \
	VPAND     X15, X2, X3   \
	VPAND     X15, X5, X5   \
	VPSRLDQ   $8, X3, X4    \
	VPSRLDQ   $8, X5, X6    \
	VPMOVZXBD X3, Y3        \
	VPMOVZXBD X4, Y4        \
	VPMOVZXBD X5, Y5        \
	VPMOVZXBD X6, Y6

#define TOFLOAT \
	VCVTDQ2PS Y3, Y3 \
	VCVTDQ2PS Y4, Y4 \
	VCVTDQ2PS Y5, Y5 \
	VCVTDQ2PS Y6, Y6

#define EACH(op, y) \
	op y, Y3, Y3 \
	op y, Y4, Y4 \
	op y, Y5, Y5 \
	op y, Y6, Y6

#define STORE \
	VMOVUPS Y3, (DI)   \
	VMOVUPS Y4, 32(DI) \
	VMOVUPS Y5, 64(DI) \
	VMOVUPS Y6, 96(DI)

// func decodeQ4_0AVX2(dst *float32, src *byte, blocks int)
TEXT ·decodeQ4_0AVX2(SB), NOSPLIT, $0-24
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         blocks+16(FP), CX
	VMOVDQU      blockConst<>+0(SB), X15
	VPBROADCASTD blockConst<>+16(SB), Y14

loop:
	MOVWLZX      (SI), AX
	VMOVD        AX, X0
	VCVTPH2PS    X0, X0
	VBROADCASTSS X0, Y0
	NIBBLES(2(SI))
	EACH(VPSUBD, Y14)
	TOFLOAT
	EACH(VMULPS, Y0)
	STORE
	ADDQ         $18, SI
	ADDQ         $128, DI
	DECQ         CX
	JNZ          loop
	VZEROUPPER
	RET

// func decodeQ4_1AVX2(dst *float32, src *byte, blocks int)
TEXT ·decodeQ4_1AVX2(SB), NOSPLIT, $0-24
	MOVQ    dst+0(FP), DI
	MOVQ    src+8(FP), SI
	MOVQ    blocks+16(FP), CX
	VMOVDQU blockConst<>+0(SB), X15

loop:
	VMOVD        (SI), X0
	VCVTPH2PS    X0, X0
	VMOVSHDUP    X0, X1
	VBROADCASTSS X0, Y0
	VBROADCASTSS X1, Y1
	NIBBLES(4(SI))
	TOFLOAT
	EACH(VMULPS, Y0)
	EACH(VADDPS, Y1)
	STORE
	ADDQ         $20, SI
	ADDQ         $128, DI
	DECQ         CX
	JNZ          loop
	VZEROUPPER
	RET
