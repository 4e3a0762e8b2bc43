// Command agent is the hand of a test in a place that the test is not in: the
// first process of a user-mode-linux guest, or a process in a network
// namespace. It answers requests of package uml, a line each, and is a peer of
// other agents: it echoes datagrams and counts streams.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"strings"

	"spigot/internal/uml"
)

func main() {
	log.SetFlags(0)
	in, out := io.Reader(os.Stdin), io.Writer(os.Stdout)
	if os.Getenv(uml.GuestEnv) != "" {
		console, err := beInit()
		if err != nil {
			log.Fatal(err) // the kernel panics and says so
		}
		if err := decapsulate(); err != nil {
			log.Fatal(err)
		}
		in, out = console, console
	}
	if err := listen(); err != nil {
		log.Fatal(err)
	}
	if err := serve(in, out); err != nil {
		log.Fatal(err)
	}
}

// serve answers requests until in ends.
func serve(in io.Reader, out io.Writer) error {
	enc := json.NewEncoder(out)
	if err := enc.Encode(uml.Answer{Output: "ready"}); err != nil {
		return err
	}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var q uml.Request
		var a uml.Answer
		if err := json.Unmarshal(line, &q); err != nil {
			a.Error = fmt.Sprintf("%v in %d bytes", err, len(line))
		} else {
			a = answer(&q)
		}
		a.Seq = q.Seq
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

func answer(q *uml.Request) (a uml.Answer) {
	var err error
	switch {
	case len(q.Exec) > 0:
		cmd := exec.Command(q.Exec[0], q.Exec[1:]...)
		cmd.Stdin = strings.NewReader(q.Stdin)
		var out []byte
		out, err = cmd.CombinedOutput()
		a.Output = string(out)
	case q.Read != "":
		var text []byte
		text, err = os.ReadFile(q.Read)
		a.Output = string(text)
	case q.Probe != nil:
		a.Report, err = probe(q.Probe)
	case q.Send != nil:
		a.Report, err = send(q.Send)
	case q.Cross != nil:
		err = cross(q.Cross)
	case q.Join != nil:
		err = join(q.Join)
	case q.Cast != nil:
		err = cast(q.Cast)
	case q.Heard != nil:
		a.Report, err = heard(q.Heard)
	default:
		err = fmt.Errorf("a request for nothing")
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}
