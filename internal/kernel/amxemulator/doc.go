// Package amxemulator carries out Intel AMX's instructions on a processor that has none, so
// that assembly that uses them is tested there. It is for tests: only Linux on amd64 with cgo
// and the build tag amxemulator has more of it than this text.
//
// [Install] puts a handler before the one that Go has for SIGILL. An instruction that the
// processor does not know raises that signal; where it is one of LDTILECFG, STTILECFG,
// TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED and TDPBF16PS, the handler does to
// the thread's registers and memory what Intel's manual says, and the thread goes on behind
// it. Whatever else raises SIGILL ends the process as before. So does what the processor
// itself would refuse, a tile that is not configured or shapes that do not fit, after a line
// on standard error that says what it was. An address that is not mapped ends the process
// with SIGSEGV, without a trace.
//
// Tiles belong to the thread, as in the processor. Go moves a goroutine to another thread
// only at points where it may be stopped, of which assembly has none: a function in assembly
// that configures, computes and releases keeps its tiles.
//
// A signal and the return from it take a microsecond or two, an instruction of AMX some
// nanoseconds: a product of matrices runs at a few GFLOP/s.
//
// On a processor with AMX nothing raises the signal: the instructions themselves run, the
// process has to ask Linux for the tiles as always, and Install refuses.
package amxemulator
