package main

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// modules are what a guest needs of its kernel's modules. With the generic AES
// alone its IPsec stack is "unable to initialize cryptographic operations".
var modules = []string{
	"aes_ti", "cbc", "ctr", "gcm", "ccm", "cmac", "xcbc", "chacha20poly1305", "crypto_null", "seqiv", "echainiv",
	"sha1_generic", "sha256_generic", "sha512_generic", "authenc", "authencesn",
	"xfrm_user", "af_key", "esp4", "esp6", "ah4", "ah6", "xfrm4_tunnel", "xfrm6_tunnel",
}

// beInit makes a system of the kernel that has just started: the host's /usr,
// which it may only read, /proc and /sys, and the modules. It returns the line
// by which the host speaks.
func beInit() (*os.File, error) {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"none", "/usr", "hostfs", unix.MS_RDONLY, "/usr"},
		{"proc", "/proc", "proc", 0, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
		{"tmpfs", "/run", "tmpfs", 0, ""},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin"); err != nil {
		return nil, err
	}
	// The kernel asks for what else it needs by this name.
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte("/modprobe"), 0o644); err != nil {
		return nil, err
	}
	if out, err := exec.Command("/modprobe", append([]string{"-a"}, modules...)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("modprobe: %w\n%s", err, out)
	}
	return openConsole("/dev/ttyS0")
}

// openConsole opens a serial line and makes it carry bytes as they are.
func openConsole(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd())
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}
