#include <stdint.h>

enum amx_status { AMX_INSTALLED, AMX_PRESENT, AMX_NO_VECTORS, AMX_FAILED };
enum amx_kind { AMX_CONFIG, AMX_SHOW, AMX_RELEASE, AMX_ZERO, AMX_LOAD, AMX_STORE, AMX_DOT, AMX_KINDS };

// amx_install sets the handler. Where it fails errno says why.
enum amx_status amx_install(void);
uint64_t amx_count(enum amx_kind kind);
