//go:build amd64 && !purego

package crypto

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	frameOf  = regexp.MustCompile(`^TEXT ·(\w+)\(SB\), (?:NOSPLIT, )?\$(\d+)-\d+`)
	onStack  = regexp.MustCompile(`(?:^|[ \t,])(\d*)\(SP\)`)
	register = regexp.MustCompile(`\b[XYZ]\d+\b`)
)

// access tells how many bytes an instruction of the generated code takes from
// memory, or puts there; of an address alone, one.
func access(instruction string) int {
	name, operands, _ := strings.Cut(instruction, " ")
	if name == "LEAQ" {
		return 1
	}
	bytes := 8
	for _, r := range register.FindAllString(operands, -1) {
		bytes = max(bytes, map[byte]int{'X': 16, 'Y': 32, 'Z': 64}[r[0]])
	}
	return bytes
}

// What a kernel has on the stack by an offset lies in its frame, to the last
// byte: behind it are the caller's frame pointer and where the kernel returns to.
func TestKernelsStayInTheirFrames(t *testing.T) {
	files, err := filepath.Glob("*_amd64.s")
	if err != nil || len(files) == 0 {
		t.Fatalf("no generated code: %v", err)
	}
	found := 0
	for _, file := range files {
		var name string
		var frame int
		for i, line := range strings.Split(string(must(os.ReadFile(file))), "\n") {
			if m := frameOf.FindStringSubmatch(line); m != nil {
				name, frame = m[1], 0
				_, _ = fmt.Sscan(m[2], &frame)
				continue
			}
			instruction := strings.TrimSpace(line)
			for _, m := range onStack.FindAllStringSubmatch(instruction, -1) {
				at := 0
				_, _ = fmt.Sscan(m[1], &at)
				if end := at + access(instruction); end > frame || name == "" {
					t.Errorf("%s:%d: %s goes to byte %d of a frame of %d: %s", file, i+1, name, end, frame, instruction)
				}
				found++
			}
		}
	}
	if found == 0 {
		t.Error("nothing is on the stack: does the pattern still fit?")
	}
}
