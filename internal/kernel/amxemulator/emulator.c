//go:build linux && amd64 && cgo && amxemulator

#define _GNU_SOURCE
#include <cpuid.h>
#include <immintrin.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "emulator.h"

// What follows runs in a signal handler, on the stack that Go has for signals: no
// allocation, no locks, no deep frames. "SDM" is Intel's manual, volume 2.

enum { tiles = 8, max_rows = 16, row_bytes = 64 };

struct tile {
	uint8_t row[max_rows][row_bytes];
} __attribute__((aligned(64)));

// The state of a thread. Rows and columns outside a tile's shape are zero at all times, and
// so is all of a tile that is not configured.
struct state {
	struct tile tile[tiles];
	int configured;
	uint8_t start_row;
	uint8_t rows[tiles];
	uint16_t colsb[tiles];
};

// Initial-exec: the memory is there since the thread is, so that the handler allocates none.
static __thread struct state state __attribute__((tls_model("initial-exec")));

static uint64_t counts[AMX_KINDS];
static struct sigaction previous;

uint64_t amx_count(enum amx_kind kind) { return __atomic_load_n(&counts[kind], __ATOMIC_RELAXED); }

enum outcome { done, not_amx, refused };

static enum outcome refuse(const char *instruction, const char *why) {
	char line[200];
	int n = snprintf(line, sizeof line, "amxemulator: %s: %s\n", instruction, why);
	ssize_t ignored = write(STDERR_FILENO, line, n);
	(void)ignored;
	return refused;
}

// ---- Configuration

static enum outcome load_config(const uint8_t *memory) {
	uint8_t config[64];
	memcpy(config, memory, sizeof config);
	if (config[0] > 1)
		return refuse("LDTILECFG", "there are the palettes 0 and 1");
	if (config[0] == 0) {
		memset(&state, 0, sizeof state);
		return done;
	}
	for (int i = 2; i < 64; i++)
		if ((i < 16 || (i >= 32 && i < 48) || i >= 56) && config[i] != 0)
			return refuse("LDTILECFG", "a reserved byte is not zero");
	const uint8_t *colsb = config + 16, *rows = config + 48; // little-endian words, bytes
	for (int t = 0; t < tiles; t++) {
		int n = colsb[2 * t] | colsb[2 * t + 1] << 8;
		if (rows[t] > max_rows || n > row_bytes)
			return refuse("LDTILECFG", "a tile has more than 16 rows or 64 bytes to a row");
		if ((rows[t] == 0) != (n == 0))
			return refuse("LDTILECFG", "a tile has rows but no columns, or columns but no rows");
	}
	memset(&state, 0, sizeof state);
	state.configured = 1;
	state.start_row = config[1];
	for (int t = 0; t < tiles; t++) {
		state.colsb[t] = colsb[2 * t];
		state.rows[t] = rows[t];
	}
	return done;
}

static void store_config(uint8_t *memory) {
	uint8_t config[64] = {0};
	if (state.configured) {
		config[0] = 1;
		config[1] = state.start_row;
		for (int t = 0; t < tiles; t++) {
			config[16 + 2 * t] = state.colsb[t];
			config[48 + t] = state.rows[t];
		}
	}
	memcpy(memory, config, sizeof config);
}

// ---- Tiles

// load goes on at the row that an interrupted load had come to, as the processor does.
static void load(int t, const uint8_t *memory, uint64_t stride) {
	for (int row = state.start_row; row < state.rows[t]; row++)
		memcpy(state.tile[t].row[row], memory + row * stride, state.colsb[t]);
	state.start_row = 0;
}

static void store(int t, uint8_t *memory, uint64_t stride) {
	for (int row = state.start_row; row < state.rows[t]; row++)
		memcpy(memory + row * stride, state.tile[t].row[row], state.colsb[t]);
	state.start_row = 0;
}

// sums is TDPBF16PS without its checks. As the SDM has it, the products of even terms and
// those of odd ones have a sum each, fused, and only the sum of both is added to dst. It is
// not inlined, so that all of it is computed in the mode that dot sets.
__attribute__((noinline, target("avx512f"))) static void sums(int dst, int a, int b) {
	const __m512i high = _mm512_set1_epi32(0xffff0000);
	const __mmask16 columns = (1u << state.colsb[dst] / 4) - 1;
	for (int m = 0; m < state.rows[dst]; m++) {
		__m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
		for (int k = 0; k < state.colsb[a] / 4; k++) {
			uint32_t pair;
			memcpy(&pair, &state.tile[a].row[m][4 * k], sizeof pair);
			__m512i x = _mm512_set1_epi32(pair), y = _mm512_load_si512(state.tile[b].row[k]);
			even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), even);
			odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)), _mm512_castsi512_ps(_mm512_and_si512(y, high)), odd);
		}
		float *c = (float *)state.tile[dst].row[m];
		_mm512_store_ps(c, _mm512_maskz_add_ps(columns, _mm512_load_ps(c), _mm512_add_ps(even, odd)));
	}
}

static enum outcome dot(int dst, int a, int b) {
	const char *name = "TDPBF16PS";
	if (dst == a || dst == b || a == b)
		return refuse(name, "a tile is used twice");
	if (state.rows[dst] == 0 || state.rows[a] == 0 || state.rows[b] == 0)
		return refuse(name, "a tile is not configured");
	if (state.colsb[dst] % 4 != 0 || state.colsb[a] % 4 != 0 || state.colsb[b] % 4 != 0)
		return refuse(name, "a row is no multiple of 4 bytes");
	if (state.rows[dst] != state.rows[a] || state.colsb[dst] != state.colsb[b] || state.colsb[a] / 4 != state.rows[b])
		return refuse(name, "the tiles' shapes do not fit");
	unsigned was = _mm_getcsr();
	_mm_setcsr(0x9fc0); // denormals are zero on both sides, to nearest, no exceptions
	sums(dst, a, b);
	_mm_setcsr(was);
	state.start_row = 0;
	return done;
}

// ---- Decoding

// A VEX prefix of three bytes, the opcode, ModRM and what belongs to it, with the bits that
// are stored inverted put right.
struct instruction {
	int opcode, pp, vvvv;    // pp: 0 none, 1 66, 2 F3, 3 F2
	int mod, reg, rm;        // with bits R and B
	int sib;                 // whether there is one
	uint64_t address, index; // of the operand in memory: base + displacement, index·scale
	int length;
};

static uint64_t register_value(const greg_t *r, int number) {
	static const int place[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
		REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
	return r[place[number]];
}

// decode reads no byte that is not part of the instruction: what follows may not be mapped.
static enum outcome decode(struct instruction *d, const greg_t *r) {
	const uint8_t *begin = (const uint8_t *)r[REG_RIP], *p = begin;
	if (*p++ != 0xc4)
		return not_amx;
	int rxb = ~*p >> 5 & 7, map = *p & 31;
	p++;
	int w = *p >> 7, l = *p >> 2 & 1;
	d->vvvv = ~*p >> 3 & 15;
	d->pp = *p & 3;
	p++;
	if (map != 2 || w != 0 || l != 0)
		return not_amx;
	d->opcode = *p++;
	if (d->opcode != 0x49 && d->opcode != 0x4b && d->opcode != 0x5c)
		return not_amx;
	int r_bit = rxb >> 2, x_bit = rxb >> 1 & 1, b_bit = rxb & 1;
	int rm = *p & 7;
	d->mod = *p >> 6;
	d->reg = (*p >> 3 & 7) | r_bit << 3;
	p++;
	d->rm = rm | b_bit << 3;
	d->sib = 0;
	d->address = d->index = 0;
	if (d->mod != 3) {
		int base = rm;
		if (rm == 4) {
			d->sib = 1;
			int scale = *p >> 6, index = (*p >> 3 & 7) | x_bit << 3;
			base = *p++ & 7;
			if (index != 4) // RSP stands for none
				d->index = register_value(r, index) << scale;
		}
		int relative = rm == 5 && d->mod == 0;
		if (d->mod == 1) {
			d->address = (int64_t)(int8_t)*p++;
		} else if (d->mod == 2 || (base == 5 && d->mod == 0)) {
			int32_t displacement;
			memcpy(&displacement, p, sizeof displacement);
			p += sizeof displacement;
			d->address = (int64_t)displacement;
		}
		if (relative)
			d->address += (uint64_t)p;
		else if (base != 5 || d->mod != 0)
			d->address += register_value(r, base | b_bit << 3);
	}
	d->length = p - begin;
	return done;
}

// emulate carries out the instruction that r is at, if it is one of AMX's, and brings r
// behind it.
static enum outcome emulate(greg_t *r) {
	struct instruction d;
	if (decode(&d, r) != done)
		return not_amx;
	enum amx_kind kind;
	enum outcome outcome = done;
	int memory = d.mod != 3;
	if (d.opcode == 0x5c) {
		if (d.pp != 2 || memory || d.reg >= tiles || d.rm >= tiles || d.vvvv >= tiles)
			return not_amx;
		kind = AMX_DOT;
		if (!state.configured)
			return refuse("TDPBF16PS", "no tiles are configured");
		outcome = dot(d.reg, d.rm, d.vvvv);
	} else if (d.vvvv != 0) {
		return not_amx;
	} else if (d.opcode == 0x4b) {
		if (d.pp == 0 || !d.sib || d.reg >= tiles)
			return not_amx;
		kind = d.pp == 2 ? AMX_STORE : AMX_LOAD;
		if (state.rows[d.reg] == 0)
			return refuse(kind == AMX_STORE ? "TILESTORED" : "TILELOADD", "the tile is not configured");
		if (kind == AMX_STORE)
			store(d.reg, (uint8_t *)d.address, d.index);
		else
			load(d.reg, (const uint8_t *)d.address, d.index);
	} else if (d.pp == 3 && !memory && d.rm == 0 && d.reg < tiles) {
		kind = AMX_ZERO;
		if (state.rows[d.reg] == 0)
			return refuse("TILEZERO", "the tile is not configured");
		memset(&state.tile[d.reg], 0, sizeof state.tile[d.reg]);
		state.start_row = 0;
	} else if (d.pp == 0 && !memory && d.rm == 0 && d.reg == 0) {
		kind = AMX_RELEASE;
		memset(&state, 0, sizeof state);
	} else if (d.pp == 0 && memory && d.reg == 0) {
		kind = AMX_CONFIG;
		outcome = load_config((const uint8_t *)(d.address + d.index));
	} else if (d.pp == 1 && memory && d.reg == 0) {
		kind = AMX_SHOW;
		store_config((uint8_t *)(d.address + d.index));
	} else {
		return not_amx;
	}
	if (outcome == done) {
		__atomic_fetch_add(&counts[kind], 1, __ATOMIC_RELAXED);
		r[REG_RIP] += d.length;
	}
	return outcome;
}

// handle carries on as long as AMX instructions follow each other: a signal costs more than
// they do. Others may arrive only between two signals of ours.
static void handle(int number, siginfo_t *info, void *context) {
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	int carried = 0;
	enum outcome outcome;
	while ((outcome = emulate(r)) == done)
		carried++;
	if (outcome == not_amx && carried > 0)
		return;
	if (previous.sa_flags & SA_SIGINFO)
		previous.sa_sigaction(number, info, context);
	else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
		previous.sa_handler(number);
	else
		sigaction(SIGILL, &previous, NULL); // the instruction is met again
}

enum amx_status amx_install(void) {
	unsigned a, b, c, d;
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 24))
		return AMX_PRESENT;
	if (!__builtin_cpu_supports("avx512f"))
		return AMX_NO_VECTORS;
	struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	sigfillset(&action.sa_mask); // as Go has it: its handlers are not written for each other
	if (sigaction(SIGILL, NULL, &previous) != 0 || sigaction(SIGILL, &action, NULL) != 0)
		return AMX_FAILED;
	return AMX_INSTALLED;
}
