package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/spf13/cobra"
	"pgregory.net/rapid"

	"spigot/pipeline"
	"spigot/pmd"
)

var update = flag.Bool("update", false, "write what the program says into the golden files")

// testMachine is a machine of four cores with three interfaces of four queues.
func testMachine() *machine {
	return &machine{
		cores: []int{0, 1, 2, 3},
		links: map[string]link{
			"lo":     {up: true, loopback: true, queues: 1, mtu: 65536},
			"red0":   {up: true, queues: 4, mtu: 1500},
			"blue0":  {up: true, queues: 4, mtu: 1500},
			"down0":  {queues: 4, mtu: 1500},
			"jumbo0": {up: true, queues: 4, mtu: 9000},
		},
	}
}

// load runs loadConfig with the command line args.
func load(t *testing.T, m *machine, args ...string) (*Config, error) {
	t.Helper()
	cmd := &cobra.Command{Use: "test", SilenceErrors: true, SilenceUsage: true}
	fl := newFlags(cmd)
	var c *Config
	cmd.RunE = func(*cobra.Command, []string) (err error) {
		c, err = loadConfig(fl, m)
		return err
	}
	cmd.SetArgs(args)
	err := cmd.Execute()
	return c, err
}

// Each file holds a command line, a configuration and what comes of it: the
// checked value, or every problem with its place.
func TestConfigGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/config/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := configResult(t, ar)
			want := &ar.Files[len(ar.Files)-1]
			if want.Name != "want" {
				t.Fatalf("%s does not end with the file want", file)
			}
			if got == string(want.Data) {
				return
			}
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("got:\n%s\nwant:\n%s", got, want.Data)
		})
	}
}

// configResult loads the configuration of ar and tells what came of it.
func configResult(t *testing.T, ar *txtar.Archive) string {
	dir := t.TempDir()
	var args []string
	for _, f := range ar.Files {
		switch f.Name {
		case "args":
			args = append(args, strings.Fields(string(f.Data))...)
		case "spigot.yaml":
			path := filepath.Join(dir, f.Name)
			if err := os.WriteFile(path, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--config", path)
		}
	}
	c, err := load(t, testMachine(), args...)
	if err != nil {
		return strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
	}
	var out strings.Builder
	v := reflect.ValueOf(*c)
	for i := range v.NumField() {
		fmt.Fprintf(&out, "%s: %+v\n", v.Type().Field(i).Name, v.Field(i))
	}
	return strings.ReplaceAll(out.String(), dir, "DIR")
}

func TestMissingFileIsNamed(t *testing.T) {
	_, err := load(t, testMachine(), "--config", "/nowhere/spigot.yaml")
	if err == nil || !strings.Contains(err.Error(), "/nowhere/spigot.yaml") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

// The examples must stay loadable on a machine that has what they name.
func TestExamplesLoad(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		if _, err := load(t, testMachine(), "--config", file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestEveryFieldIsInTheReference(t *testing.T) {
	text, err := os.ReadFile("../../examples/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := f.Tag.Get("yaml")
			if !strings.Contains(string(text), name+":") {
				t.Errorf("examples/reference.yaml does not show %q", name)
			}
			inner := f.Type
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(inner)
			}
		}
	}
	walk(reflect.TypeFor[document]())
}

func TestParseQueue(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want queueFlag
		ok   bool
	}{
		{"red0:0@1", queueFlag{"red0", 0, 1}, true},
		{"a.b:17@12", queueFlag{"a.b", 17, 12}, true},
		{"x@y:1@2", queueFlag{"x@y", 1, 2}, true}, // '@' may be in a name
		{"red0", queueFlag{}, false},
		{"red0:0", queueFlag{}, false},
		{"red0@1", queueFlag{}, false},
		{":0@1", queueFlag{}, false},
		{"red0:@1", queueFlag{}, false},
		{"red0:0@", queueFlag{}, false},
		{"red0:-1@1", queueFlag{}, false},
		{"red0:65536@1", queueFlag{}, false},
		{"red0:0@1x", queueFlag{}, false},
		{"", queueFlag{}, false},
	} {
		got, err := parseQueue(tt.in)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("parseQueue(%q) = %v, %v; want %v, ok %v", tt.in, got, err, tt.want, tt.ok)
		}
		if tt.ok && got.String() != tt.in {
			t.Errorf("String of %q is %q", tt.in, got)
		}
	}
}

// Whatever is asked for, an accepted configuration gives every worker a queue
// of every port, and no queue two owners.
func TestQueuesHaveOneOwner(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cores := rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 1, 4, rapid.ID).Draw(rt, "cores")
		docs := []portDoc{
			{Name: "red0", Side: "protected", Queues: rapid.SliceOfN(rapid.IntRange(-1, 5), 0, 5).Draw(rt, "red")},
			{Name: "blue0", Side: "wire", Queues: rapid.SliceOfN(rapid.IntRange(0, 3), 0, 4).Draw(rt, "blue")},
		}
		asked := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) queueFlag {
			return queueFlag{
				Port:  rapid.SampledFrom([]string{"red0", "blue0", "grey0"}).Draw(rt, "port"),
				Queue: rapid.IntRange(0, 4).Draw(rt, "queue"),
				Core:  rapid.IntRange(0, 3).Draw(rt, "core"),
			}
		}), 0, 4).Draw(rt, "flags")
		doc := defaults()
		doc.Workers.Cores, doc.Ports = cores, docs

		c, err := check(&doc, asked, &places{}, testMachine())
		if err != nil {
			return
		}
		for _, port := range c.Ports {
			owners := map[int]int{}
			for w, queues := range port.Queues {
				if len(queues) == 0 {
					rt.Errorf("worker %d has no queue of %s", w, port.Name)
				}
				for _, q := range queues {
					owners[q]++
				}
			}
			for q, n := range owners {
				if n != 1 || q < 0 || q > 3 {
					rt.Errorf("queue %d of %s has %d owners", q, port.Name, n)
				}
			}
			for _, f := range asked {
				if f.Port == port.Name && owners[f.Queue] == 0 {
					rt.Errorf("--queue %v was not heard", f)
				}
			}
		}
	})
}

func TestOtherCores(t *testing.T) {
	all := []int{0, 1, 2, 3}
	for _, tt := range []struct {
		workers []int
		control int
		want    []int
	}{
		{[]int{2, 3}, anyCore, []int{0, 1}},
		{[]int{2, 3}, 0, []int{0}},
		{[]int{0, 1, 2, 3}, anyCore, []int{}},
		{[]int{0, 1, 2, 3}, 3, []int{3}},
	} {
		got := otherCores(&Config{Cores: tt.workers, ControlCore: tt.control}, all)
		if !slices.Equal(got, tt.want) {
			t.Errorf("workers %v, control %d: got %v, want %v", tt.workers, tt.control, got, tt.want)
		}
	}
}

func TestIdle(t *testing.T) {
	for _, tt := range []struct {
		doc  idleDoc
		want pipeline.Idle
	}{
		{idleDoc{"spin", 7}, pipeline.Idle{}},
		{idleDoc{"adaptive", 7}, pipeline.Idle{Turns: 7, Sleep: maxSleep}},
	} {
		p := &problems{at: &places{}}
		if got := checkIdle(p, &tt.doc); got != tt.want || p.err() != nil {
			t.Errorf("%+v: got %+v, %v; want %+v", tt.doc, got, p.err(), tt.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	quiet := func() *Config {
		return &Config{
			Ports:       []PortConfig{{Name: "red0", Driver: "afxdp", Queues: [][]int{{0, 1}, {2, 3}}}},
			Cores:       []int{2, 3},
			ControlCore: anyCore,
			FrameSize:   2048,
			IPsecConf:   "ipsec.conf",
		}
	}
	for _, tt := range []struct {
		name   string
		change func(c *Config, m *machine)
		want   string
	}{
		{"nothing", func(*Config, *machine) {}, ""},
		{"all cores", func(c *Config, _ *machine) { c.Cores = []int{0, 1, 2, 3} }, "every core runs a worker"},
		{"control on a worker's core", func(c *Config, _ *machine) { c.ControlCore = 3 }, "core 3 runs the slow path and a worker"},
		{"unowned queues", func(c *Config, _ *machine) { c.Ports[0].Queues = [][]int{{0}, {1}} },
			"red0 has 4 queues and the workers own 2"},
		{"longest packet", func(_ *Config, m *machine) { m.links["red0"] = link{queues: 4, mtu: 1774} }, ""},
		{"too long a packet", func(_ *Config, m *machine) { m.links["red0"] = link{queues: 4, mtu: 1775} },
			"red0 has MTU 1775 and a frame of 2048 bytes carries packets of 1774"},
		{"larger frames", func(c *Config, m *machine) { c.FrameSize, m.links["red0"] = 4096, link{queues: 4, mtu: 3822} }, ""},
		{"jumbo frames", func(c *Config, m *machine) {
			c.Jumbo, m.links["red0"] = pmd.Jumbo{Size: 10240, Count: 1}, link{queues: 4, mtu: 9000}
		}, ""},
		{"the longest packet of all", func(c *Config, m *machine) {
			c.Jumbo, m.links["red0"] = pmd.Jumbo{Size: pmd.MaxJumbo, Count: 1}, link{queues: 4, mtu: 16110}
		}, ""},
		{"a longer one", func(c *Config, m *machine) {
			c.Jumbo, m.links["red0"] = pmd.Jumbo{Size: pmd.MaxJumbo, Count: 1}, link{queues: 4, mtu: 16111}
		}, "a frame of 16384 bytes carries packets of 16110: longer ones are dropped; there are no longer ones"},
		{"a driver without jumbo frames", func(c *Config, m *machine) {
			c.Ports[0].Driver = "asavie"
			c.Jumbo, m.links["red0"] = pmd.Jumbo{Size: 10240, Count: 1}, link{queues: 4, mtu: 9000}
		}, "the driver asavie has no jumbo frames: choose afxdp"},
		{"the kernel forwards", func(c *Config, m *machine) {
			c.Ports = append(c.Ports, c.Ports[0]) // told once
			m.links["red0"] = link{queues: 4, mtu: 1500, forwarding: []string{"net/ipv4/conf/red0/forwarding"}}
			m.links["blue0"] = link{queues: 4, mtu: 1500, forwarding: []string{"net/ipv4/conf/blue0/forwarding"}}
		}, "sysctl -w net/ipv4/conf/red0/forwarding=0"},
		{"faults", func(c *Config, _ *machine) { c.Faults.TxLose = 0.1 }, "faults are on"},
		{"no policies", func(c *Config, _ *machine) { c.IPsecConf = "" }, "every packet is discarded"},
	} {
		c, m := quiet(), testMachine()
		tt.change(c, m)
		got := warnings(c, m)
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAKernelWithoutXDP(t *testing.T) {
	m := testMachine()
	m.noXDP = true
	_, err := load(t, m, "--port", "red0:protected", "--port", "blue0:wire")
	if err == nil || !strings.Contains(err.Error(), "this kernel has no AF_XDP") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want that and nothing else", err)
	}
	if lacksXDP() {
		t.Error("this kernel is said to have no AF_XDP, which the network tests need")
	}
}
