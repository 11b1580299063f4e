#include <stdint.h>

// amx_call runs code, which ends with RET, with registers RAX to R15 in the order of their
// numbers from r, RSP aside, and leaves them there.
void amx_call(const void *code, uint64_t r[16]);

// Code, a slot of 16 bytes for each form: see instructions.S.
extern const uint8_t amx_forms[], amx_loads[], amx_moves[], amx_dots[];
