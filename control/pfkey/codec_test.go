package pfkey

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// message returns a message with these extensions, whose header and length are right.
func message(typ Type, satype SAType, exts ...[]byte) []byte {
	b := (&Message{Type: typ, SAType: satype, Seq: 7, PID: 42}).Append(nil)
	for _, e := range exts {
		b = append(b, e...)
	}
	native.PutUint16(b[4:], uint16(len(b)/word))
	return b
}

// ext returns an extension of len(body)+4 bytes, which is to be whole words,
// that claims to have the given number of words.
func ext(typ Ext, claim int, body ...byte) []byte {
	b := native.AppendUint16(nil, uint16(claim))
	b = native.AppendUint16(b, uint16(typ))
	return append(b, body...)
}

// from returns one extension as Append writes it.
func from(e Ext, m Message) []byte {
	m.Has = SetOf(e)
	return m.Append(nil)[headerLen:]
}

var (
	addr4 = Address{Addr: netip.MustParseAddr("192.0.2.1"), Prefix: 32}
	addr6 = Address{Addr: netip.MustParseAddr("2001:db8::1"), Prefix: 128}
)

func sockaddr4(a string) []byte {
	e := &encoder{}
	e.sockaddr(netip.MustParseAddr(a), 0)
	return e.b
}

func TestDecodeRefuses(t *testing.T) {
	src4 := from(ExtSrc, Message{Src: addr4})
	edit := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	zeroes := func(n int) []byte { return make([]byte, n) }
	for _, row := range []struct {
		name  string
		b     []byte
		errno unix.Errno
	}{
		{"nothing", nil, unix.EMSGSIZE},
		{"15 bytes", message(Flush, 0)[:15], unix.EMSGSIZE},
		{"version 1", edit(message(Flush, 0), 0, 1), unix.EINVAL},
		{"type 0", edit(message(Flush, 0), 1, 0), unix.EINVAL},
		{"type 25", edit(message(Flush, 0), 1, 25), unix.EINVAL},
		{"reserved", edit(message(Flush, 0), 6, 1), unix.EINVAL},
		{"length 0", edit(message(Flush, 0), 4, 0), unix.EMSGSIZE},
		{"length 65535", edit(edit(message(Flush, 0), 4, 255), 5, 255), unix.EMSGSIZE},
		{"half a word too long", append(message(Flush, 0), 0, 0, 0, 0), unix.EMSGSIZE},
		{"extension of length 0", message(Get, ESP, ext(ExtSA, 0, zeroes(12)...)), unix.EINVAL},
		{"extension beyond the message", message(Get, ESP, ext(ExtSA, 3, zeroes(12)...)), unix.EINVAL},
		{"extension of 65535 words", message(Get, ESP, ext(ExtSA, 65535, zeroes(12)...)), unix.EINVAL},
		{"extension 0", message(Get, ESP, ext(0, 1, zeroes(4)...)), unix.EINVAL},
		{"SA of one word", message(Get, ESP, ext(ExtSA, 1, zeroes(4)...)), unix.EINVAL},
		{"SA twice", message(Get, ESP, from(ExtSA, Message{}), from(ExtSA, Message{})), unix.EINVAL},
		{"opaque twice", message(Add, ESP, ext(ExtSecCtx, 1, zeroes(4)...), ext(ExtSecCtx, 1, zeroes(4)...)), unix.EINVAL},
		{"address of family 0", message(Get, ESP, edit(src4, 8, 0)), unix.EINVAL},
		{"IPv6 in an IPv4 address's length", message(Get, ESP, edit(src4, 8, unix.AF_INET6)), unix.EINVAL},
		{"IPv4 in an IPv6 address's length", message(Get, ESP, edit(from(ExtSrc, Message{Src: addr6}), 8, unix.AF_INET)), unix.EINVAL},
		{"address without a sockaddr", message(Get, ESP, ext(ExtSrc, 1, zeroes(4)...)), unix.EINVAL},
		{"IPv4 prefix of 33", message(Get, ESP, edit(src4, 5, 33)), unix.EINVAL},
		{"IPv6 prefix of 129", message(Get, ESP, edit(from(ExtSrc, Message{Src: addr6}), 5, 129)), unix.EINVAL},
		{"mapped address", message(Get, ESP, from(ExtSrc, Message{Src: Address{Addr: netip.MustParseAddr("::ffff:1.2.3.4")}})), unix.EINVAL},
		{"key of 0 bits", message(Add, ESP, ext(ExtEncKey, 1, zeroes(4)...)), unix.EINVAL},
		{"key of 65535 bits in 8 bytes", message(Add, ESP, ext(ExtEncKey, 2, append([]byte{255, 255, 0, 0}, zeroes(8)...)...)), unix.EINVAL},
		{"key of 64 bits in 16 bytes", message(Add, ESP, ext(ExtEncKey, 3, append([]byte{64, 0, 0, 0}, zeroes(16)...)...)), unix.EINVAL},
		{"key of 7 bits", message(Add, ESP, ext(ExtEncKey, 2, append([]byte{7, 0, 0, 0}, zeroes(8)...)...)), unix.EINVAL},
		{"request of length 0", message(SPDAdd, 0, ext(ExtPolicy, 4, zeroes(28)...)), unix.EINVAL},
		{"request beyond the policy", message(SPDAdd, 0, ext(ExtPolicy, 4, append(zeroes(12), append([]byte{24, 0}, zeroes(14)...)...)...)), unix.EINVAL},
		{"request with half an address", message(SPDAdd, 0, ext(ExtPolicy, 5, append(zeroes(12), append([]byte{24, 0}, zeroes(22)...)...)...)), unix.EINVAL},
		{"request with one address", message(SPDAdd, 0, ext(ExtPolicy, 6, append(zeroes(12), append(append([]byte{32, 0}, zeroes(14)...), sockaddr4("1.2.3.4")...)...)...)), unix.EINVAL},
		{"seven requests", message(SPDAdd, 0, from(ExtPolicy, Message{Policy: Policy{Requests: make([]Request, 7)}})), unix.EINVAL},
		{"SA_REPLAY's length in a filter", message(Dump, 0, ext(ExtFilter, 1, zeroes(4)...)), unix.EINVAL},
		{"filter of a strange family", message(Dump, 0, ext(ExtFilter, 5, append(zeroes(32), 9, 0, 0, 0)...)), unix.EINVAL},
		{"filter of 33 bits", message(Dump, 0, ext(ExtFilter, 5, append(zeroes(32), unix.AF_INET, 0, 33, 0)...)), unix.EINVAL},
		{"half a combination", message(Acquire, ESP, ext(ExtProposal, 2, zeroes(12)...)), unix.EINVAL},
	} {
		t.Run(row.name, func(t *testing.T) {
			m, err := Decode(row.b)
			if errnoOf(err) != row.errno {
				t.Fatalf("Decode: %v, want %v", err, row.errno)
			}
			if len(row.b) >= headerLen && (m.Seq != 7 || m.PID != 42) {
				t.Errorf("header of the refused message: seq %d pid %d, want 7 and 42: the answer echoes them", m.Seq, m.PID)
			}
		})
	}
}

func TestDecodePassesOverUnknownExtensions(t *testing.T) {
	m, err := Decode(message(Get, ESP, ext(27, 1, 1, 2, 3, 4), ext(27, 1, 1, 2, 3, 4), ext(65535, 1, 0, 0, 0, 0), from(ExtSA, Message{SA: SA{SPI: 0x100}})))
	if err != nil || m.Has != SetOf(ExtSA) || m.SA.SPI != 0x100 {
		t.Errorf("Decode = %+v, %v; want the SA alone", m, err)
	}
}

func TestDecodeDoesNotAlias(t *testing.T) {
	b := message(Add, ESP, from(ExtEncKey, Message{EncKey: Key{1, 2, 3, 4, 5, 6, 7, 8}}), from(ExtSrcIdentity, Message{SrcID: Identity{Name: "west"}}))
	m, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = 0xee
	}
	if !bytes.Equal(m.EncKey, []byte{1, 2, 3, 4, 5, 6, 7, 8}) || m.SrcID.Name != "west" {
		t.Errorf("the message changed with the buffer: %x %q", []byte(m.EncKey), m.SrcID.Name)
	}
	m.Wipe()
	if !bytes.Equal(m.EncKey, make([]byte, 8)) {
		t.Error("Wipe left the key")
	}
}

func TestExtension26IsWhatItsMessageMeans(t *testing.T) {
	m, err := Decode(message(Add, ESP, ext(ExtSAReplay, 1, 0x00, 0x04, 0, 0)))
	if err != nil || m.Window != 1024 {
		t.Errorf("ADD: window %d, %v; want 1024", m.Window, err)
	}
	want := Filter{Family: unix.AF_INET, Src: netip.MustParsePrefix("10.0.0.0/8"), Dst: netip.MustParsePrefix("0.0.0.0/0")}
	m, err = Decode(message(Dump, ESP, from(ExtFilter, Message{Type: Dump, Filter: want})))
	if err != nil || m.Filter != want {
		t.Errorf("DUMP: %+v, %v; want %+v", m.Filter, err, want)
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	m := Message{EncKey: Key("0123456789abcdef"), AuthKey: Key("secret")}
	for _, format := range []string{"%v", "%+v", "%x", "%s", "%d", "%#v", "%q"} {
		text := fmt.Sprintf(format, m)
		for _, leak := range []string{"secret", "0123456789", hex.EncodeToString([]byte("secret")), "115 101 99", "0x73, 0x65"} {
			if strings.Contains(text, leak) {
				t.Errorf("%s shows a key: %s", format, text)
			}
		}
	}
}

// entry is one line of the transcript of a Linux kernel, with its bytes.
type entry struct {
	tx    bool
	name  string
	errno unix.Errno // of TX: that of write; of RX: that of the message
	typ   Type
	exts  Set
	b     []byte
}

// golden reads the transcript.
func golden(t testing.TB) []entry {
	text, err := os.ReadFile(filepath.Join("testdata", "pfkey-golden-linux6.1.txt"))
	if err != nil {
		t.Fatal(err)
	}
	writeErrors := map[string]unix.Errno{"<nil>": 0, "message too long": unix.EMSGSIZE, "invalid argument": unix.EINVAL}
	var all []entry
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "TX":
			i := strings.Index(line, "write-errno=") + len("write-errno=")
			j := strings.LastIndex(strings.TrimSpace(line), " ")
			errno, ok := writeErrors[line[i:j]]
			if !ok {
				t.Fatalf("strange line: %s", line)
			}
			all = append(all, entry{tx: true, name: f[1], errno: errno, b: unhex(t, f[len(f)-1])})
		case "RX":
			e := entry{name: f[1]}
			for _, field := range f[2:] {
				key, value, _ := strings.Cut(field, "=")
				n, _ := strconv.Atoi(value)
				switch key {
				case "type":
					e.typ = Type(n)
				case "errno":
					e.errno = unix.Errno(n)
				}
				if number, size, ok := strings.Cut(strings.TrimPrefix(field, "exts="), ":"); ok && size != "" {
					n, _ := strconv.Atoi(number)
					e.exts |= SetOf(Ext(n))
				}
			}
			all = append(all, e)
		default:
			all[len(all)-1].b = unhex(t, f[0])
		}
	}
	return all
}

func unhex(t testing.TB, text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeReadsWhatLinuxWrites(t *testing.T) {
	count := 0
	for _, e := range golden(t) {
		if e.tx {
			continue
		}
		count++
		m, err := Decode(e.b)
		if err != nil {
			t.Errorf("%s: %v", e.name, err)
			continue
		}
		if m.Type != e.typ || m.Errno != e.errno || m.Has != e.exts {
			t.Errorf("%s: %v errno %d exts %v, want %v errno %d exts %v", e.name, m.Type, m.Errno, m.Has, e.typ, e.errno, e.exts)
		}
		again := m.Append(nil)
		e.b[6], e.b[7] = 0, 0 // Linux's reference count
		if len(again) != len(e.b) {
			t.Errorf("%s: Append writes %d bytes, Linux %d", e.name, len(again), len(e.b))
		}
		if m2, err := Decode(again); err != nil || !reflect.DeepEqual(m, m2) {
			t.Errorf("%s: comes back as %+v, %v", e.name, m2, err)
		}
	}
	if count < 20 {
		t.Errorf("only %d messages in the transcript", count)
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range golden(f) {
		f.Add(e.b)
	}
	f.Add(message(Dump, 0, from(ExtFilter, Message{Type: Dump, Filter: Filter{Family: unix.AF_INET6,
		Src: netip.MustParsePrefix("2001:db8::/32"), Dst: netip.MustParsePrefix("::/0")}})))
	f.Add(message(Acquire, ESP, from(ExtProposal, Message{Proposal: Proposal{32, make([]Comb, 2)}}),
		from(ExtSrcIdentity, Message{SrcID: Identity{2, 5, "west.example"}}), from(ExtSrc, Message{Src: addr6})))
	f.Add(message(SPDAdd, 0, from(ExtPolicy, Message{Policy: Policy{PolicyIPsec, DirOut, 1, 2,
		[]Request{{Proto: 50, Mode: 2, Level: 3, Reqid: 4, Src: addr6.Addr, Dst: addr6.Addr}, {Proto: 51, Mode: 1}}, 15}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxMessage { // the server reads no longer ones
			return
		}
		in := bytes.Clone(b)
		m, err := Decode(b)
		if !bytes.Equal(in, b) {
			t.Fatal("Decode changed its input")
		}
		if err != nil {
			if errno := errnoOf(err); errno != unix.EINVAL && errno != unix.EMSGSIZE {
				t.Fatalf("errno %v of %v", errno, err)
			}
			return
		}
		_ = m.String()
		out := m.Append(nil)
		m2, err := Decode(out)
		if err != nil {
			t.Fatalf("%v: Append wrote what Decode refuses: %v\n%x\n%x", m.Type, err, b, out)
		}
		if !reflect.DeepEqual(m, m2) {
			t.Fatalf("round trip:\n%+v\n%+v", m, m2)
		}
		if again := m2.Append(nil); !bytes.Equal(out, again) {
			t.Fatalf("encoded twice:\n%x\n%x", out, again)
		}
	})
}
