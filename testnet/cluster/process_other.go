//go:build !linux

package cluster

import "syscall"

// endWithParent has no equivalent here: a killed test leaves its processes.
func endWithParent() *syscall.SysProcAttr { return nil }
