package control

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// ThisProcess describes the process that calls it.
func ThisProcess(name, version string, started time.Time) Process {
	return Process{Name: name, Version: version, PID: os.Getpid(), Started: started, Resident: resident()}
}

// resident returns the resident set in bytes, 0 when /proc does not tell
// (proc_pid_statm(5), second field).
func resident() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
