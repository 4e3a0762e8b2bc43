package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// needs are the capabilities that run cannot do without. CAP_SYS_ADMIN stands
// in for CAP_BPF, which it was before Linux 5.8.
var needs = []struct {
	name string
	any  []int
}{
	{"CAP_NET_ADMIN", []int{unix.CAP_NET_ADMIN}},
	{"CAP_NET_RAW", []int{unix.CAP_NET_RAW}},
	{"CAP_BPF", []int{unix.CAP_BPF, unix.CAP_SYS_ADMIN}},
}

// checkPrivilege says which capabilities are missing to run.
func checkPrivilege() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("ask for capabilities: %w", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var missing []string
next:
	for _, need := range needs {
		for _, c := range need.any {
			if has(c) {
				continue next
			}
		}
		missing = append(missing, need.name)
	}
	if len(missing) > 0 {
		return fmt.Errorf("not permitted: run as root, or with the capabilities that are missing: %s", strings.Join(missing, ", "))
	}
	return nil
}
