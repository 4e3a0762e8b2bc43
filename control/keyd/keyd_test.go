package keyd

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// launcherProcess is the argument that makes this program a launcher.
const launcherProcess = "launcher"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == StageCommand {
		os.Exit(Exec(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == launcherProcess {
		code, err := Run(context.Background(), Config{
			Argv:      os.Args[3:],
			PFKey:     os.Args[2],
			Stdout:    os.Stdout,
			Stderr:    os.Stderr,
			ReplyWait: 10 * time.Second,
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// fake is a server whose answers are those of reply, one packet each.
type fake struct {
	ln    net.Listener
	path  string
	reply func(msg []byte) [][]byte

	mu    sync.Mutex
	conns []net.Conn
	open  int
}

func newFake(t *testing.T, reply func(msg []byte) [][]byte) *fake {
	t.Helper()
	f := &fake{path: filepath.Join(t.TempDir(), "s"), reply: reply}
	var err error
	if f.ln, err = net.Listen("unixpacket", f.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.die)
	go func() {
		for {
			c, err := f.ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.open++
			f.mu.Unlock()
			go f.serve(c)
		}
	}()
	return f
}

func (f *fake) serve(c net.Conn) {
	defer func() {
		f.mu.Lock()
		f.open--
		f.mu.Unlock()
	}()
	buf := make([]byte, maxMessage)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if buf[1] == 96 { // it throws the client out
			_ = c.Close()
			continue
		}
		for _, msg := range f.reply(append([]byte(nil), buf[:n]...)) {
			if msg == nil { // the server dies
				f.die()
				return
			}
			if _, err := c.Write(msg); err != nil {
				return
			}
		}
	}
}

// clients returns how many connections are open.
func (f *fake) clients() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

func (f *fake) die() {
	_ = f.ln.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
}

// kernelPFKey answers as PF_KEY does: the same header; DUMP in three; type 99
// kills the server, 96 has it close the connection, type 98 has no answer, type 97 is answered late.
func kernelPFKey(msg []byte) [][]byte {
	switch msg[1] {
	case 99:
		return [][]byte{nil}
	case 98, sadbAcquire:
		return nil
	case 97:
		time.Sleep(300 * time.Millisecond)
	case sadbDump:
		var out [][]byte
		for i := range uint32(3) {
			m := append([]byte(nil), msg...)
			binary.NativeEndian.PutUint32(m[8:], 2-i)
			out = append(out, m)
		}
		return out
	}
	return [][]byte{msg}
}

// kernelXFRM acknowledges what asks for it and ends every dump at once.
func kernelXFRM(msg []byte) [][]byte {
	switch {
	case nlFlags(msg)&unix.NLM_F_DUMP == unix.NLM_F_DUMP:
		end := append([]byte(nil), msg[:16]...)
		binary.NativeEndian.PutUint32(end, 20)
		binary.NativeEndian.PutUint16(end[4:], unix.NLMSG_DONE)
		binary.NativeEndian.PutUint16(end[6:], unix.NLM_F_MULTI)
		return [][]byte{append(end, 0, 0, 0, 0)}
	case nlFlags(msg)&unix.NLM_F_ACK != 0:
		return [][]byte{xfrm.refuse(msg[:16], 0)}
	}
	return nil
}

// rig runs programs against two fakes.
type rig struct {
	pfkey, xfrm *fake
	wait        time.Duration
	log         bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{pfkey: newFake(t, kernelPFKey), xfrm: newFake(t, kernelXFRM), wait: 5 * time.Second}
}

// run runs argv to its end and returns its exit code and what it printed.
func (r *rig) run(t *testing.T, argv ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	code, err := Run(ctx, r.config(&out, argv...))
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, &out, &r.log)
	}
	if ctx.Err() != nil {
		t.Fatalf("%q hangs\n%s\n%s", argv, &out, &r.log)
	}
	return code, out.String()
}

func (r *rig) config(out *bytes.Buffer, argv ...string) Config {
	return Config{
		Argv:      argv,
		PFKey:     r.pfkey.path,
		XFRM:      r.xfrm.path,
		Stdout:    out,
		Stderr:    out,
		Log:       slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		ReplyWait: r.wait,
		GoneWait:  time.Minute,
	}
}

// python is the beginning of the clients: the system's own, without a line
// that knows of the launcher.
const python = `
import errno, fcntl, os, socket, struct, sys, time
def key(flags=0): return socket.socket(15, socket.SOCK_RAW | flags, 2)
def nl(flags=0): return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | flags, 6)
def sadb(typ, seq, body=b''): return struct.pack('=BBBBHHII', 2, typ, 0, 3, 2 + len(body)//8, 0, seq, os.getpid()) + body
def nlmsg(typ, flags, seq, body=b''): return struct.pack('=IHHII', 16 + len(body), typ, flags, seq, 0) + body
def now(s): return s.recv(65536, socket.MSG_DONTWAIT)
def name(e): return errno.errorcode[e.errno]
`

// Each client prints what it finds; the kernel's own answers are the model.
func TestClients(t *testing.T) {
	for _, tt := range []struct {
		name, script, want string
	}{
		{"the answer is there when send returns", `
s = key()
for how in s.send, lambda m: os.writev(s.fileno(), [m[:16], m[16:]]), lambda m: s.sendmsg([m[:5], m[5:]]):
    m = sadb(3, 7, b'x' * 48)
    print(how(m) == len(m), now(s) == m)
`, "True True\nTrue True\nTrue True\n"},
		{"write is relayed, too", `
s = key()
m = sadb(3, 7)
print(os.write(s.fileno(), m), s.recv(100) == m)
`, "16 True\n"},
		{"a dump comes whole", `
s = key()
s.send(sadb(10, 5))
print([struct.unpack('=I', s.recv(100)[8:12])[0] for _ in range(3)])
`, "[2, 1, 0]\n"},
		{"flags of socket", `
import subprocess
for f in 0, socket.SOCK_NONBLOCK:
    s = key(f)
    print(bool(fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK), bool(fcntl.fcntl(s, fcntl.F_GETFD) & 1))
k = key(socket.SOCK_NONBLOCK)
try: k.recv(10)
except BlockingIOError as e: print(name(e))
`, "False True\nTrue True\nEAGAIN\n"}, // python asks for CLOEXEC
		{"what socket refuses", `
for a in (15, socket.SOCK_STREAM, 2), (15, socket.SOCK_RAW, 1), (16, socket.SOCK_STREAM, 6):
    try: socket.socket(*a)
    except OSError as e: print(name(e))
print(socket.socket(16, socket.SOCK_RAW, 0).getsockname())
`, "ESOCKTNOSUPPORT\nEPROTONOSUPPORT\nESOCKTNOSUPPORT\n(0, 0)\n"},
		{"descendants, passed descriptors, and other people's", `
s = key()
if os.fork() == 0:
    os.setuid(65534)
    m = sadb(3, 1); d = s.dup(); d.send(m); print('child', now(d) == m, flush=True)
    os._exit(0)
os.wait()
m = sadb(3, 2); s.send(m); print('parent', now(s) == m)
a, b = socket.socketpair()
a.send(b'plain'); print(b.recv(10)); os.writev(a.fileno(), [b'v', b'w']); print(b.recv(10))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0)); print(u.getsockname()[0])
u.sendto(b'udp', u.getsockname()); print(u.recv(10))
`, "child True\nparent True\nb'plain'\nb'vw'\n127.0.0.1\nb'udp'\n"},
		{"malformed", `
s, n = key(), nl()
for s, m in (s, b'short'), (n, b'short'), (n, struct.pack('=IHHII', 99, 0, 0, 0, 0)), (s, b'x' * 70000):
    try: s.send(m); print('sent')
    except OSError as e: print(name(e))
`, "EMSGSIZE\nEINVAL\nEINVAL\nEMSGSIZE\n"},
		{"an unanswered message", `
s = key()
print(s.send(sadb(6, 1)))
try: now(s)
except BlockingIOError: print('nothing')
`, "16\nnothing\n"},
		{"port ids", `
n, o = nl(), nl()
print(n.getsockname()); n.bind((0, 0)); print(n.getsockname() == (os.getpid(), 0))
o.bind((0, 3)); print(o.getsockname()[0] > 2**31, o.getsockname()[1])
try: nl().bind((os.getpid(), 0))
except OSError as e: print(name(e))
try: n.bind((77, 0))
except OSError as e: print(name(e))
p = nl(); p.bind((77, 0)); print(p.getsockname())
p.setsockopt(270, 1, 5); print(p.getsockname()); p.setsockopt(270, 2, 5); print(p.getsockname())
p.close()
time.sleep(.1)
q = nl(); q.bind((77, 0)); print(q.getsockname())
`, "(0, 0)\nTrue\nTrue 3\nEADDRINUSE\nEINVAL\n(77, 0)\n(77, 16)\n(77, 0)\n(77, 0)\n"},
		{"netlink answers come from the kernel, to the port", `
n = nl(); n.bind((0, 0))
n.sendto(nlmsg(0x1c, 5, 42), (0, 0))
m, _, _, peer = n.recvmsg(100, 0, socket.MSG_DONTWAIT)
print(struct.unpack('=IHHIIi', m[:20])[3:] == (42, os.getpid(), 0), len(m))
print(2 + len(peer), peer[2:6]) # read as struct sockaddr_nl: 12 bytes, port id 0
n.sendmsg([nlmsg(0x12, 0x301, 43)], [], 0, (0, 0))
print(struct.unpack('=IHHII', now(n)[:16])[1:4])
`, "True 36\n12 b'\\x00\\x00\\x00\\x00'\n(3, 2, 43)\n"},
		{"socket options of IKE daemons", `
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.setsockopt(0, 16, b'x' * 8); u.setsockopt(0, 17, b'x' * 8)
v = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
v.setsockopt(41, 34, b'x' * 8); v.setsockopt(41, 35, b'x' * 8)
u.setsockopt(0, 1, 16); print(u.getsockopt(0, 1))
`, "16\n"},
		{"3,000 exchanges, none late", `
s = key(); late = 0
for i in range(3000):
    m = sadb(3, i, b'k' * 240)
    s.send(m)
    try: late += now(s) != m
    except BlockingIOError: late += 1
print(late)
`, "0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			code, out := r.run(t, "/usr/bin/python3", "-c", python+tt.script)
			if code != 0 || out != tt.want {
				t.Errorf("exit code %d, and it says\n%swant\n%s%s", code, out, tt.want, &r.log)
			}
		})
	}
}

func TestTheServerDies(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"while a send waits", `
s = key()
for m in sadb(99, 1), sadb(3, 2):
    try: s.send(m)
    except OSError as e: print(name(e))
`, "ECONNREFUSED\nECONNREFUSED\n"},
		{"while a recv waits", `
s = key(); os.write(s.fileno(), sadb(99, 7))
print(s.recv(100)[:3] == bytes([2, 99, errno.ECONNREFUSED]))
n = nl(); n.bind((0, 0)); os.write(n.fileno(), nlmsg(0x10, 5, 9))
print(struct.unpack('=IHHII', n.recv(100)[:16])[3] == 9)
`, "True\nTrue\n"},
		{"before the next socket", `
s = key()
try: s.send(sadb(99, 1))
except OSError as e: print(name(e))
try: key()
except OSError as e: print(name(e))
`, "ECONNREFUSED\nEAFNOSUPPORT\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if code, out := r.run(t, "/usr/bin/python3", "-c", python+tt.script); code != 0 || out != tt.want {
				t.Errorf("exit code %d, and it says\n%swant\n%s", code, out, tt.want)
			}
			if !strings.Contains(r.log.String(), "spigot has closed a PF_KEY connection") {
				t.Errorf("the log does not say it:\n%s", &r.log)
			}
		})
	}
}

// A daemon whose server is gone, or is another one, is ended; one that the same
// server has thrown out is not.
func TestTheServerRestarts(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		want         int
	}{
		{"it dies", `
import signal
s = key()
try: s.send(sadb(99, 1))
except OSError: pass
signal.pause()`, ExitGone},
		{"it dies, and the daemon ends well", `
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
s = key()
try: s.send(sadb(99, 1))
except OSError: pass
signal.pause()`, ExitGone},
		{"it closes the connection", `
s = key()
try: s.send(sadb(96, 1))
except OSError as e: print(name(e))
time.sleep(1)
s = key(); s.send(sadb(3, 2)); sys.exit(now(s)[1] + 4)`, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			var out bytes.Buffer
			c := r.config(&out, "/usr/bin/python3", "-c", python+tt.script)
			c.GoneWait = 100 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if code, err := Run(ctx, c); code != tt.want || err != nil || ctx.Err() != nil {
				t.Errorf("exit code %d, %v; want %d\n%s%s", code, err, tt.want, &out, &r.log)
			}
			if said := strings.Contains(r.log.String(), "spigot has ended or was restarted"); said != (tt.want == ExitGone) {
				t.Errorf("the log says it: %v\n%s", said, &r.log)
			}
		})
	}
}

// A daemon that is killed in the middle of its messages leaves nothing behind,
// and its server goes on.
func TestADaemonIsKilledInMidMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 10 {
		code, out := r.run(t, "sh", "-c", `/usr/bin/python3 -c "$0" & sleep 0.`+fmt.Sprint(2+i%3)+`; kill -KILL $!; wait $!`, python+`
s, n, i = key(), nl(), 0
while True:
    s.send(sadb(3, i, b'k' * 2000)); now(s); n.send(nlmsg(0x10, 5, i, b'x' * 2000)); now(n); i += 1
`)
		if code != 128+9 {
			t.Errorf("exit code %d\n%s", code, out)
		}
	}
	if code, out := r.run(t, "/usr/bin/python3", "-c", python+`
s = key(); s.send(sadb(3, 7)); print(now(s)[1])
`); code != 0 || out != "3\n" {
		t.Errorf("the next daemon: exit code %d, %q", code, out)
	}
	for end := time.Now().Add(20 * time.Second); r.pfkey.clients()+r.xfrm.clients() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d and %d connections are left", r.pfkey.clients(), r.xfrm.clients())
		}
	}
}

// A server that says nothing, or late, delays a send and no more.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.wait = 100 * time.Millisecond
	code, out := r.run(t, "/usr/bin/python3", "-c", python+`
s = key(); t = time.time()
print(s.send(sadb(98, 1)), s.send(sadb(97, 2)), time.time() - t < 10, s.recv(100)[1])
`)
	if want := "16 16 True 97\n"; code != 0 || out != want {
		t.Errorf("exit code %d, and it says %q, want %q", code, out, want)
	}
	if !strings.Contains(r.log.String(), "sends=2") {
		t.Errorf("the log does not count the late answers:\n%s", &r.log)
	}
}

// A daemon that sends and does not read is told, as by a kernel; it does not
// wait for itself.
func TestADaemonThatDoesNotRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.wait = 50 * time.Millisecond
	code, out := r.run(t, "/usr/bin/python3", "-c", python+`
for s, m in (key(), lambda i: sadb(3, i, b'x' * 4000)), (nl(), lambda i: nlmsg(0x10, 5, i, b'x' * 4000)):
    sent = 0
    try:
        while sent < 100000: s.send(m(sent)); sent += 1
    except OSError as e: print(name(e))
    for i in range(sent): s.recv(65536)
    s.send(m(7)); print(len(s.recv(65536)) > 0)
`)
	if want := "ENOBUFS\nTrue\nENOBUFS\nTrue\n"; code != 0 || out != want {
		t.Errorf("exit code %d, and it says %q, want %q", code, out, want)
	}
}

// Without CAP_SYS_ADMIN the daemon gets no_new_privs.
func TestWithoutPrivilege(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("setpriv", "--bounding-set=-sys_admin", self, launcherProcess, r.pfkey.path,
		"/usr/bin/python3", "-c", python+`
s = key(); m = sadb(3, 7); s.send(m); print(now(s) == m)
print([l.split()[1] for l in open('/proc/self/status') if l.startswith('NoNewPrivs')])
`).CombinedOutput()
	if want := "True\n['1']\n"; err != nil || string(out) != want {
		t.Errorf("it says %q, %v; want %q", out, err, want)
	}
}

// Sockets that the daemon closes, or leaves behind as it dies, are closed at
// the server.
func TestClosedSocketsAreReaped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var out bytes.Buffer
	type result struct {
		code int
		err  error
	}
	ran := make(chan result, 1)
	go func() {
		code, err := Run(t.Context(), r.config(&out, "/usr/bin/python3", "-c", python+`
k, n = key(), nl()
k.send(sadb(3, 1))
k.close(); n.close()
time.sleep(4)
s = key()
os.kill(os.getpid(), 9)
`))
		ran <- result{code, err}
	}()
	seen := false
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n := r.pfkey.clients()
		seen = seen || n == 1
		if seen && n == 0 && r.xfrm.clients() == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d and %d clients, and there was one: %v\n%s", n, r.xfrm.clients(), seen, &out)
		}
	}
	if got := <-ran; got.err != nil || got.code != 128+9 {
		t.Errorf("exit code %d, %v", got.code, got.err)
	}
	for end := time.Now().Add(2 * time.Second); r.pfkey.clients() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the dead daemon's socket is open")
		}
	}
}

func TestExitCodes(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		argv string
		want int
	}{
		{"true", 0},
		{"exit 7", 7},
		{"kill -TERM $$", 128 + 15},
		{"(sleep .2; exit 3) & exit 2", 2}, // waits for descendants
	} {
		if code, out := r.run(t, "sh", "-c", tt.argv); code != tt.want {
			t.Errorf("%s: exit code %d, want %d\n%s", tt.argv, code, tt.want, out)
		}
	}
	for _, argv := range [][]string{nil, {"/nowhere/daemon"}, {"no-such-daemon"}, {textFile(t)}} {
		if code, err := Run(t.Context(), r.config(&bytes.Buffer{}, argv...)); err == nil {
			t.Errorf("%q: exit code %d, want an error", argv, code)
		}
	}
}

// textFile returns the path of an executable that is none.
func textFile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte("\x7fELFnot"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSignalsReachTheDaemon(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	signals := make(chan os.Signal, 1)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := r.config(nil, "/usr/bin/python3", "-c", `
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: sys.exit(9))
print('ready', flush=True); signal.pause()`)
	c.Signals, c.Stdout, c.Stderr = signals, pw, pw
	go func() {
		if _, err := pr.Read(make([]byte, 10)); err == nil {
			signals <- syscall.SIGHUP
		}
	}()
	if code, err := Run(t.Context(), c); code != 9 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}

func TestContextEndsTheDaemon(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := r.config(nil, "sh", "-c", "echo ready; exec sleep 60")
	c.Stdout, c.Stderr = pw, pw
	go func() {
		if _, err := pr.Read(make([]byte, 10)); err == nil {
			cancel()
		}
	}()
	if code, err := Run(ctx, c); code != 128+15 || err != nil {
		t.Errorf("exit code %d, %v; want that of SIGTERM", code, err)
	}
}

// The launcher's death is the daemon's.
func TestTheLauncherDies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	launcher := exec.Command("/proc/self/exe", launcherProcess, r.pfkey.path, "sh", "-c", "echo $$; exec sleep 60")
	out, err := launcher.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := launcher.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := launcher.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := launcher.Wait(); err == nil {
		t.Fatal("the launcher was not killed")
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d lives on: %s", pid, state)
		}
	}
}
