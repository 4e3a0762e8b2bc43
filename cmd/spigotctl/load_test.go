package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"spigot/control/pfkey"
)

// writeConf writes an ipsec.conf and returns its path.
func writeConf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	key32 = "0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	saAB  = "esp tunnel from 192.0.2.1 to 192.0.2.2 spi 0x1000 auth hmac-sha2-256 enc aes-256 authkey " + key32 + " enckey " + key32 + " reqid 1\n"
	flowX = "flow esp out from 10.1.0.0/16 to 10.2.0.0/16 local 192.0.2.1 peer 192.0.2.2 reqid 1\n"
	flowY = "flow out proto tcp from 192.0.2.1 to 192.0.2.2 port 179 type bypass\n"
)

// listed returns what the gateway has, one line an entry, without what is new
// with each.
func listed(t *testing.T, path string) []string {
	t.Helper()
	o := keyOptions{pfkey: path, socket: new(string)}
	conn, err := o.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := &loader{conn: conn}
	var lines []string
	for _, typ := range []pfkey.Type{pfkey.Dump, pfkey.SPDDump} {
		all, err := l.dump(typ)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			m.Policy.ID = 0
			lines = append(lines, m.Content())
		}
	}
	return lines
}

func TestLoadAddsWhatIsMissing(t *testing.T) {
	_, path := newKeyServer(t)
	ok := func(want string, args ...string) {
		t.Helper()
		code, stdout, stderr := spigotctl(append(args, "--pfkey", path)...)
		if code != exitOK || stderr != "" {
			t.Fatalf("%q: exit code %d, %s", args, code, stderr)
		}
		if stdout != want {
			t.Errorf("%q prints\n%swant\n%s", args, stdout, want)
		}
	}
	const (
		sa      = "SPI 0x1000 192.0.2.1 -> 192.0.2.2 mature tunnel reqid 1 aes-cbc hmac-sha2-256-128"
		x       = "10.1.0.0/16 -> 10.2.0.0/16, policy out ipsec priority 0 [esp tunnel unique 192.0.2.1 -> 192.0.2.2 reqid 1]"
		y       = "192.0.2.1 proto 6 -> 192.0.2.2[179] proto 6, policy out bypass priority 0"
		changed = "10.1.0.0/16 -> 10.2.0.0/16, policy out ipsec priority 0 [esp tunnel unique 192.0.2.1 -> 192.0.2.2 reqid 2]"
	)
	conf := writeConf(t, saAB+flowX)
	ok("", "load", "-n", conf)
	if got := listed(t, path); len(got) != 0 {
		t.Errorf("load -n added %q", got)
	}
	ok("+ "+sa+" ("+conf+":1)\n+ "+x+" ("+conf+":2)\n", "diff", conf)
	ok("", "load", conf)
	ok("", "diff", conf)
	ok("", "load", conf)
	if got := strings.Join(listed(t, path), "\n"); got != sa+"\n"+x {
		t.Errorf("the gateway has\n%s", got)
	}
	more := writeConf(t, strings.Replace(flowX, "reqid 1", "reqid 2", 1)+flowY)
	ok("~ "+changed+" ("+more+":1)\n+ "+y+" ("+more+":2)\n", "diff", more)
	ok("", "load", more)
	if got := strings.Join(listed(t, path), "\n"); got != sa+"\n"+changed+"\n"+y {
		t.Errorf("the gateway has\n%s", got)
	}
	ok("", "flush")
	if got := listed(t, path); len(got) != 0 {
		t.Errorf("flush left %q", got)
	}
}

func TestLoadRefuses(t *testing.T) {
	_, path := newKeyServer(t)
	if code, _, stderr := spigotctl("load", writeConf(t, saAB), "--pfkey", path); code != exitOK {
		t.Fatal(stderr)
	}
	before := listed(t, path)
	gcm := "esp tunnel from 192.0.2.1 to 192.0.2.2 spi 0x2000 enc aes-256-gcm enckey " + key32 + "20212223\n"
	for _, row := range []struct{ name, conf, want string }{
		{"another key", flowX + strings.ReplaceAll(saAB, "1e1f", "1e20"), "the gateway has another SA with SPI 0x1000"},
		{"AEAD", gcm, "manual key refused"},
		{"a range of addresses", "flow esp out from 10.1.0.1 - 10.1.0.9 to 10.2.0.1 local 192.0.2.1 peer 192.0.2.2\n", "no word for it: addresses that are no prefix: put it into"},
		{"a range of ports", "flow out proto tcp from any to any port 80:90 type bypass\n", "neither one nor all of them"},
		{"acquire", "flow esp out from 10.1.0.0/16 to 10.2.0.0/16 local 192.0.2.1 peer 192.0.2.2 type acquire\n", "no word for it: the types acquire"},
		{"a flow twice", flowX + flowX, "are those of"},
		{"bad syntax", "flow from\n", "t.conf:1:"},
	} {
		t.Run(row.name, func(t *testing.T) {
			code, _, stderr := spigotctl("load", writeConf(t, row.conf), "--pfkey", path)
			if code != exitFailure || !strings.Contains(stderr, row.want) {
				t.Errorf("exit code %d, %s; want %q", code, stderr, row.want)
			}
			if strings.Contains(stderr, "08090a0b") {
				t.Errorf("a key is shown: %s", stderr)
			}
			if got := listed(t, path); strings.Join(got, "\n") != strings.Join(before, "\n") {
				t.Errorf("the gateway has now\n%s", strings.Join(got, "\n"))
			}
		})
	}
	if code, _, stderr := spigotctl("load", "--allow-manual-aead", writeConf(t, gcm), "--pfkey", path); code != exitOK {
		t.Error(stderr)
	}
}

// TestLoadIsAllOrNothing: of a load whose last message the gateway refuses,
// nothing is left, a changed policy neither.
func TestLoadIsAllOrNothing(t *testing.T) {
	_, path := newKeyServer(t)
	if code, _, stderr := spigotctl("load", writeConf(t, flowX), "--pfkey", path); code != exitOK {
		t.Fatal(stderr)
	}
	before := listed(t, path)
	o := &loadOptions{keyOptions: keyOptions{pfkey: path, socket: new(string)}}
	conf := writeConf(t, saAB+strings.Replace(flowX, "reqid 1", "reqid 2", 1)+flowY)
	cmd := newLoad(new(string))
	cmd.SetContext(t.Context())
	err := withPlan(cmd, o, conf, func(l *loader, p *plan) error {
		if len(p.steps) != 3 {
			t.Errorf("%d steps, want 3", len(p.steps))
		}
		p.steps = append(p.steps, step{from: "here", m: &pfkey.Message{Type: pfkey.Migrate}})
		return l.apply(t.Context(), p)
	})
	if err == nil || !strings.Contains(err.Error(), "here: X_MIGRATE: "+unix.EOPNOTSUPP.Error()) {
		t.Errorf("apply: %v", err)
	}
	if got := listed(t, path); strings.Join(got, "\n") != strings.Join(before, "\n") {
		t.Errorf("the gateway has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(before, "\n"))
	}
}

// SHA-1 is refused before a gateway is asked, and by a gateway that does not
// allow it.
func TestLoadOfLegacyAlgorithms(t *testing.T) {
	conf := writeConf(t, "esp tunnel from 192.0.2.1 to 192.0.2.2 spi 0x1000 auth hmac-sha1 enc aes-256 authkey "+key32[:42]+
		" enckey "+key32+"\n")
	if code, _, stderr := spigotctl("load", "-n", conf); code == exitOK || !strings.Contains(stderr, "t.conf:1") ||
		!strings.Contains(stderr, "--allow-legacy") {
		t.Errorf("load -n: %d, %s", code, stderr)
	}
	if code, _, stderr := spigotctl("load", "-n", "--allow-legacy", conf); code != exitOK {
		t.Errorf("load -n --allow-legacy: %d, %s", code, stderr)
	}
	_, path := newKeyServer(t)
	if code, _, stderr := spigotctl("load", "--allow-legacy", conf, "--pfkey", path); code == exitOK || len(listed(t, path)) != 0 {
		t.Errorf("a gateway that does not allow it: %d, %s", code, stderr)
	}
}
