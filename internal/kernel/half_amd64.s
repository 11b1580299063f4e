//go:build amd64 && !purego

#include "textflag.h"

DATA halfConst<>+0(SB)/4, $0x80000000  // sign
DATA halfConst<>+4(SB)/4, $0x7fc00000  // quiet NaN
DATA halfConst<>+8(SB)/4, $0x7fff      // just under half a bfloat16 step
DATA halfConst<>+12(SB)/4, $1
DATA halfConst<>+16(SB)/4, $64         // quiet bit of a bfloat16 NaN
GLOBL halfConst<>(SB), RODATA|NOPTR, $20

// func f16ToF32AVX2(dst *float32, src *byte, blocks int)
TEXT ·f16ToF32AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX

loop:
	VCVTPH2PS (SI), Y0
	VCVTPH2PS 16(SI), Y1
	VMOVUPS   Y0, (DI)
	VMOVUPS   Y1, 32(DI)
	ADDQ      $32, SI
	ADDQ      $64, DI
	DECQ      CX
	JNZ       loop
	VZEROUPPER
	RET

// func f32ToF16AVX2(dst *byte, src *float32, blocks int)
TEXT ·f32ToF16AVX2(SB), NOSPLIT, $0-24
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         blocks+16(FP), CX
	VBROADCASTSS halfConst<>+0(SB), Y15
	VBROADCASTSS halfConst<>+4(SB), Y14

loop:
	VMOVUPS   (SI), Y0
	VMOVUPS   32(SI), Y1
	VCMPPS    $3, Y0, Y0, Y2 // NaN lanes: replaced by a quiet NaN of the same sign
	VCMPPS    $3, Y1, Y1, Y3
	VANDPS    Y15, Y0, Y4
	VANDPS    Y15, Y1, Y5
	VORPS     Y14, Y4, Y4
	VORPS     Y14, Y5, Y5
	VBLENDVPS Y2, Y4, Y0, Y0
	VBLENDVPS Y3, Y5, Y1, Y1
	VCVTPS2PH $0, Y0, (DI)
	VCVTPS2PH $0, Y1, 16(DI)
	ADDQ      $64, SI
	ADDQ      $32, DI
	DECQ      CX
	JNZ       loop
	VZEROUPPER
	RET

// func bf16ToF32AVX2(dst *float32, src *byte, blocks int)
TEXT ·bf16ToF32AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX

loop:
	VPMOVZXWD (SI), Y0
	VPMOVZXWD 16(SI), Y1
	VPSLLD    $16, Y0, Y0
	VPSLLD    $16, Y1, Y1
	VMOVUPS   Y0, (DI)
	VMOVUPS   Y1, 32(DI)
	ADDQ      $32, SI
	ADDQ      $64, DI
	DECQ      CX
	JNZ       loop
	VZEROUPPER
	RET

// TOBF16 leaves the bfloat16 bits of x's lanes in x's low words. t, u: scratch.
#define TOBF16(x, t, u) \
	VPSRLD    $16, x, t   \
	VPAND     Y13, t, u   \
	VPADDD    Y14, u, u   \
	VPADDD    x, u, u     \
	VPSRLD    $16, u, u   \
	VPOR      Y12, t, t   \
	VCMPPS    $3, x, x, x \
	VBLENDVPS x, t, u, x

// func f32ToBF16AVX2(dst *byte, src *float32, blocks int)
TEXT ·f32ToBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         blocks+16(FP), CX
	VBROADCASTSS halfConst<>+8(SB), Y14
	VBROADCASTSS halfConst<>+12(SB), Y13
	VBROADCASTSS halfConst<>+16(SB), Y12

loop:
	VMOVUPS   (SI), Y0
	VMOVUPS   32(SI), Y1
	TOBF16(Y0, Y2, Y4)
	TOBF16(Y1, Y3, Y5)
	VPACKUSDW Y1, Y0, Y0
	VPERMQ    $0xd8, Y0, Y0
	VMOVDQU   Y0, (DI)
	ADDQ      $64, SI
	ADDQ      $32, DI
	DECQ      CX
	JNZ       loop
	VZEROUPPER
	RET

// func bf16ToF32AVX512(dst *float32, src *byte, blocks int)
TEXT ·bf16ToF32AVX512(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX
	SUBQ $2, CX
	JL   last

pair:
	VPMOVZXWD (SI), Z0
	VPMOVZXWD 32(SI), Z1
	VPSLLD    $16, Z0, Z0
	VPSLLD    $16, Z1, Z1
	VMOVUPS   Z0, (DI)
	VMOVUPS   Z1, 64(DI)
	ADDQ      $64, SI
	ADDQ      $128, DI
	SUBQ      $2, CX
	JGE       pair

last:
	ADDQ      $2, CX
	JZ        done
	VPMOVZXWD (SI), Z0
	VPSLLD    $16, Z0, Z0
	VMOVUPS   Z0, (DI)

done:
	VZEROUPPER
	RET

// func f32ToBF16AVX512(dst *byte, src *float32, blocks int)
TEXT ·f32ToBF16AVX512(SB), NOSPLIT, $0-24
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         blocks+16(FP), CX
	VPBROADCASTD halfConst<>+8(SB), Z14
	VPBROADCASTD halfConst<>+12(SB), Z13
	VPBROADCASTD halfConst<>+16(SB), Z12

loop:
	VMOVUPS (SI), Z0
	VPSRLD  $16, Z0, Z1
	VPANDD  Z13, Z1, Z2
	VPADDD  Z14, Z2, Z2
	VPADDD  Z0, Z2, Z2
	VPSRLD  $16, Z2, Z2
	VCMPPS  $3, Z0, Z0, K1
	VPORD   Z12, Z1, K1, Z2
	VPMOVDW Z2, (DI)
	ADDQ    $64, SI
	ADDQ    $32, DI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// func f32ToBF16Native(dst *byte, src *float32, blocks int) (left int)
TEXT ·f32ToBF16Native(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX

loop:
	VMOVUPS    (SI), Z0
	VMOVUPS    64(SI), Z1
	VFPCLASSPSZ $0x20, Z0, K1 // subnormal numbers, which the conversion takes for zero
	VFPCLASSPSZ $0x20, Z1, K2
	KORTESTW   K1, K2
	JNE        end
	BYTE $0x62; BYTE $0xf2; BYTE $0x77; BYTE $0x48; BYTE $0x72; BYTE $0xc0 // VCVTNE2PS2BF16 Z0, Z1, Z0
	VMOVUPS    Z0, (DI)
	ADDQ       $128, SI
	ADDQ       $64, DI
	DECQ       CX
	JNZ        loop

end:
	MOVQ CX, left+24(FP)
	VZEROUPPER
	RET
