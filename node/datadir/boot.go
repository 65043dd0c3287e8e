package datadir

import (
	"crypto/rand"
	"os"
	"strings"
)

// bootFile names the run of the machine, on Linux.
const bootFile = "/proc/sys/kernel/random/boot_id"

// ThisBoot names the run of the machine that this process is in. What a process wrote and
// did not sync is still there in the same run, whatever became of the process. Where
// nobody can tell, every call is another run, which is safe.
func ThisBoot() string {
	if b, err := os.ReadFile(bootFile); err == nil {
		if id := strings.TrimSpace(string(b)); id != "" {
			return id
		}
	}
	return rand.Text()
}
