package wholefile

import (
	"os"
	"syscall"
)

// writeBack asks the system to begin writing a stretch of a file to the disk, so that making it durable in
// the end takes less time. Where that cannot be, nothing happens.
func writeBack(f *os.File, off, n int64) {
	const begin = 2 // SYNC_FILE_RANGE_WRITE
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) { _ = syscall.SyncFileRange(int(fd), off, n, begin) })
}
