//go:build linux && amd64 && cgo && amxemulator

// What the tests run. The GNU assembler encodes it, which knows nothing of the emulator.

	.text
	.globl amx_call
	.type amx_call, @function
amx_call:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push %rsi
	push %rdi
	mov (%rsi), %rax
	mov 8(%rsi), %rcx
	mov 16(%rsi), %rdx
	mov 24(%rsi), %rbx
	mov 40(%rsi), %rbp
	mov 56(%rsi), %rdi
	mov 64(%rsi), %r8
	mov 72(%rsi), %r9
	mov 80(%rsi), %r10
	mov 88(%rsi), %r11
	mov 96(%rsi), %r12
	mov 104(%rsi), %r13
	mov 112(%rsi), %r14
	mov 120(%rsi), %r15
	mov 48(%rsi), %rsi
	call *(%rsp)
	push %rsi
	mov 16(%rsp), %rsi
	mov %rax, (%rsi)
	mov %rcx, 8(%rsi)
	mov %rdx, 16(%rsi)
	mov %rbx, 24(%rsi)
	mov %rbp, 40(%rsi)
	mov %rdi, 56(%rsi)
	mov %r8, 64(%rsi)
	mov %r9, 72(%rsi)
	mov %r10, 80(%rsi)
	mov %r11, 88(%rsi)
	mov %r12, 96(%rsi)
	mov %r13, 104(%rsi)
	mov %r14, 112(%rsi)
	mov %r15, 120(%rsi)
	pop 48(%rsi)
	add $16, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.size amx_call, .-amx_call

	.macro slot instruction:vararg
	.balign 16, 0x90
	\instruction
	ret
	.endm

// Forms that the tests name by their place.
	.balign 16
	.globl amx_forms
amx_forms:
	slot ldtilecfg (%rax)
	slot ldtilecfg 0x40(%r13, %r14, 4)
	slot sttilecfg (%r12)
	slot sttilecfg -0x12345(%rbp, %rcx, 8)
	slot tilerelease
	slot tilestored %tmm6, (%rdx, %rbx)
	slot tileloaddt1 (%rdx, %rbx), %tmm6
	slot tileloadd (%rdx), %tmm6
	slot tileloadd (%rdx, %rbx, 2), %tmm6
	slot tileloadd (%rdx, %rbx, 8), %tmm6
	slot tileloadd 0x20001040(, %rbx, 1), %tmm6
	slot tilezero %tmm6
	slot ud2
	slot ldtilecfg ones(%rip)
	slot vpaddd %xmm0, %xmm8, %xmm1
	slot tdpbssd %tmm0, %tmm1, %tmm2

// TILELOADD with every base, every index and four displacements, these fastest.
	.balign 16
	.globl amx_loads
amx_loads:
	.irp base, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
	.irp index, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
	slot tileloadd (%\base, %\index), %tmm6
	slot tileloadd 0x40(%\base, %\index), %tmm6
	slot tileloadd -0x80(%\base, %\index), %tmm6
	slot tileloadd -0x54321(%\base, %\index), %tmm6
	.endr
	.endr

// Each tile loaded, then each stored.
	.balign 16
	.globl amx_moves
amx_moves:
	.irp t, 0, 1, 2, 3, 4, 5, 6, 7
	slot tileloadd (%rax, %rcx), %tmm\t
	.endr
	.irp t, 0, 1, 2, 3, 4, 5, 6, 7
	slot tilestored %tmm\t, (%rax, %rcx)
	.endr

// TDPBF16PS on every choice of tiles: destination slowest, the second source fastest.
	.balign 16
	.globl amx_dots
amx_dots:
	.irp dst, 0, 1, 2, 3, 4, 5, 6, 7
	.irp a, 0, 1, 2, 3, 4, 5, 6, 7
	.irp b, 0, 1, 2, 3, 4, 5, 6, 7
	.balign 16, 0x90
	.if \dst == \a || \dst == \b || \a == \b
	.byte 0xc4, 0xe2, (~\b & 15) << 3 | 2, 0x5c, 0xc0 | \dst << 3 | \a
	.else
	tdpbf16ps %tmm\b, %tmm\a, %tmm\dst
	.endif
	ret
	.endr
	.endr
	.endr

	.section .rodata
ones:
	.byte 1
	.zero 15
	.rept 8
	.short 64
	.endr
	.zero 16
	.rept 8
	.byte 16
	.endr
	.zero 8

	.section .note.GNU-stack, "", @progbits
