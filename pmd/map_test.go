package pmd

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMap(t *testing.T) {
	for _, size := range []int{1, 4096, 5 * 2048, HugePage, HugePage + 2048, 8 << 20} {
		m, err := Map(size)
		if err != nil {
			t.Fatalf("Map(%d): %v", size, err)
		}
		if len(m.Bytes) != size || cap(m.Bytes) != size {
			t.Errorf("Map(%d): length %d, capacity %d", size, len(m.Bytes), cap(m.Bytes))
		}
		if alignment(m.Bytes, unix.Getpagesize()) != 0 {
			t.Errorf("Map(%d): not page-aligned", size)
		}
		if n := resident(t, m.Bytes); n != pageUp(size)/unix.Getpagesize() {
			t.Errorf("Map(%d): %d pages resident, want all %d", size, n, pageUp(size)/unix.Getpagesize())
		}
		for i, b := range m.Bytes {
			if b != 0 {
				t.Fatalf("Map(%d): byte %d is %#x, want 0", size, i, b)
			}
		}
		m.Bytes[0], m.Bytes[size-1] = 1, 1
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if m.Bytes != nil {
			t.Error("Close left the bytes reachable")
		}
		if err := m.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	}
}

// TestMapHugetlb holds Memory.Hugetlb to what the kernel says of the mapping.
func TestMapHugetlb(t *testing.T) {
	m, err := Map(HugePage)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	kernel := false
	for line := range strings.Lines(string(smaps)) {
		f := strings.Fields(line)
		kernel = kernel || len(f) == 3 && f[0] == "Private_Hugetlb:" && f[1] != "0"
	}
	if m.Hugetlb != kernel {
		t.Errorf("Hugetlb %v, the kernel says %v", m.Hugetlb, kernel)
	}
}

func TestMapRefuses(t *testing.T) {
	for _, size := range []int{0, -1, 1<<32 + 1} {
		if m, err := Map(size); err == nil {
			t.Errorf("Map(%d) = %d bytes, want an error", size, len(m.Bytes))
		}
	}
}

// TestMapPool says what Map is for: memory that NewPool takes.
func TestMapPool(t *testing.T) {
	m, err := Map(64 * 2048)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p, err := NewPool(m, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if p.Cap() != 64 || p.Len() != 64 {
		t.Errorf("pool of %d chunks, %d home, want 64", p.Cap(), p.Len())
	}
}

func resident(t *testing.T, b []byte) int {
	t.Helper()
	vec := make([]byte, pageUp(len(b))/unix.Getpagesize())
	if err := mincore(b, vec); err != nil {
		t.Fatalf("mincore: %v", err)
	}
	n := 0
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}
