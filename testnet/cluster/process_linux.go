package cluster

import "syscall"

// endWithParent makes the kernel kill the process when we die, however we do.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
