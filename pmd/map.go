package pmd

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// HugePage is the size of the pages that Map asks for: 2 MB.
const HugePage = 2 << 20

// Map maps size bytes outside the Go heap for a Pool that a driver registers
// with the kernel or a device. The bytes are zero, page-aligned and resident:
// no packet pays for a page fault. They lie on huge pages when the kernel has
// enough of them free (vm.nr_hugepages), and Memory.Hugetlb says so; otherwise
// on normal ones, for which transparent huge pages are asked. They are left
// out of core dumps, as they hold decrypted packets.
//
// Memory.Close unmaps them: no Port may be open on them, and no slice into
// them may be used after it.
func Map(size int) (*Memory, error) {
	if size <= 0 || size > 1<<32 {
		return nil, fmt.Errorf("pmd: map %d bytes: want 1 byte to 4 GiB", size)
	}
	up := (size + HugePage - 1) &^ (HugePage - 1)
	const prot = unix.PROT_READ | unix.PROT_WRITE
	const anon = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if b, err := unix.Mmap(-1, 0, up, prot, anon|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB|unix.MAP_POPULATE); err == nil {
		m := &Memory{Bytes: b[:size:size], Hugetlb: true, unmap: func() error { return unix.Munmap(b) }}
		return settle(m, b)
	}
	// One huge page more than needed leaves room to start on a boundary, without
	// which transparent huge pages cannot be used; what is not touched costs nothing.
	b, err := unix.Mmap(-1, 0, up+HugePage, prot, anon|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("pmd: map %d bytes of packet memory: %w", size, err)
	}
	used := b[alignment(b, HugePage):][:up]
	m := &Memory{Bytes: used[:size:size], unmap: func() error { return unix.Munmap(b) }}
	// Advice: a kernel without transparent huge pages refuses it and is as right.
	_ = unix.Madvise(used, unix.MADV_HUGEPAGE)
	return settle(m, used[:pageUp(size)])
}

// settle makes the bytes b of m resident and keeps them out of core dumps.
// When there is not enough memory, m is closed.
func settle(m *Memory, b []byte) (*Memory, error) {
	_ = unix.Madvise(b, unix.MADV_DONTDUMP)
	err := unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	if errors.Is(err, unix.EINVAL) { // before Linux 5.14
		for i := 0; i < len(b); i += unix.Getpagesize() {
			b[i] = 0
		}
		return m, nil
	}
	if err != nil {
		err = fmt.Errorf("pmd: map %d bytes of packet memory: make it resident: %w", len(m.Bytes), err)
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// pageUp rounds n up to whole pages.
func pageUp(n int) int {
	p := unix.Getpagesize()
	return (n + p - 1) &^ (p - 1)
}
