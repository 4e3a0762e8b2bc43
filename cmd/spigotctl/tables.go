package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"spigot/control"
)

func portsTable(_ *showOptions, ports []control.PortInfo, w io.Writer) {
	fmt.Fprintln(w, "PORT\tQUEUE\tSIDE\tDRIVER\tMODE\tSTATE\tMTU\tLONGEST\tRX\tTX\tRX LOST\tTX ERRORS\tTROUBLE")
	for _, p := range ports {
		s := p.Stats
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", p.Name, p.Queue, p.Side, p.Driver, p.Mode,
			stateOf(p), p.MTU, p.Longest, s.RxPackets, s.TxPackets, s.RxDropped+s.RxGiant+s.JumboEmpty, s.TxErrors, orDash(troubleOf(p)))
	}
}

// framing is what an IP packet has in front in a frame at the most: a tagged Ethernet
// header.
const framing = 18

// troubleOf says what is wrong with a queue.
func troubleOf(p control.PortInfo) string {
	switch {
	case p.Trouble != "":
		return p.Trouble
	case p.NoJumbo != "":
		return "no jumbo frames: " + p.NoJumbo
	case p.MTU > p.Longest-framing && p.MTU != 0:
		return fmt.Sprintf("packets beyond %d are dropped: start the gateway again, or see `spigot check`", p.Longest-framing)
	}
	return ""
}

// stateOf says how an interface is.
func stateOf(p control.PortInfo) string {
	switch {
	case p.MTU == 0:
		return "gone"
	case !p.Up:
		return "down"
	case !p.Carrier:
		return "no-carrier"
	}
	return "up"
}

func workersTable(_ *showOptions, workers []control.WorkerInfo, w io.Writer) {
	fmt.Fprintln(w, "WORKER\tCORE\tCRYPTO\tRX\tTX\tDROPPED\tPUNTED\tINJECTED\tBUSY\tSLEEPS\tBALANCED\tCYCLES A PACKET BY STAGE")
	for i, v := range workers {
		fmt.Fprintf(w, "%d\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%d\t%s\t%s\n", i, v.Core, v.Crypto, v.Rx, v.Tx, v.Dropped, v.Punted, v.Injected,
			share(v.Busy, v.Turns), v.Sleeps, yesNo(v.Balanced), stages(v.Stages))
	}
}

// stages lists what each stage that saw packets costs.
func stages(list []control.StageInfo) string {
	var words []string
	for _, s := range list {
		if s.Packets > 0 {
			words = append(words, fmt.Sprintf("%s %.0f", s.Stage, s.CyclesPerPacket))
		}
	}
	return orDash(strings.Join(words, ", "))
}

func saTable(_ *showOptions, sas []control.SAInfo, w io.Writer) {
	fmt.Fprintln(w, "DIR\tSPI\tSRC\tDST\tPROTO\tMODE\tSUITE\tREQID\tESN\tSEQ\tWINDOW\tPMTU\tCPU\tDSCP\tPACKETS\tBYTES\tAGE\tNAME")
	for _, s := range sas {
		window := "-"
		if s.Direction == control.DirIn {
			window = strconv.Itoa(s.Window)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", s.Direction, spi(s.SPI), s.Src, s.Dst, s.Proto, s.Mode,
			s.Suite, orAny(s.Reqid), yesNo(s.ESN), s.Seq, window, number(s.PathMTU), worker(s.CPU), codepoints(s.ForDSCP), s.Packets, s.Bytes, seconds(s.AgeSeconds), orDash(s.Name))
	}
}

// worker names the one worker that an SA is for.
func worker(cpu *int) string {
	if cpu == nil {
		return "-"
	}
	return strconv.Itoa(*cpu)
}

// codepoints lists those of the packets that an SA is for.
func codepoints(dscps []int) string {
	var words []string
	for _, d := range dscps {
		words = append(words, strconv.Itoa(d))
	}
	return orDash(strings.Join(words, ","))
}

func policyTable(_ *showOptions, policies []control.PolicyInfo, w io.Writer) {
	fmt.Fprintln(w, "ID\tDIR\tPRIORITY\tSRC\tDST\tPROTO\tACTION\tLEVEL\tTEMPLATE\tSA\tNAME")
	for _, p := range policies {
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, p.Dir, p.Priority, endpoint(p.Src, p.SrcPort),
			endpoint(p.Dst, p.DstPort), p.Proto, p.Action, orDash(p.Level), templates(&p), boundTo(p), orDash(p.Name))
	}
}

// endpoint formats an address range with its ports, as in "10.0.0.0/8[80]".
func endpoint(addr, ports string) string {
	if ports == "any" || ports == "" {
		return addr
	}
	return addr + "[" + ports + "]"
}

// templates names the SAs that a policy wants, the innermost first.
func templates(p *control.PolicyInfo) string {
	if p.Template == nil {
		return "-"
	}
	text := template(p.Template)
	for i := range p.Outer {
		text += " in " + template(&p.Outer[i])
	}
	return text
}

func template(t *control.TemplateInfo) string {
	text := fmt.Sprintf("%s/%s %s->%s", t.Proto, t.Mode, t.Src, t.Dst)
	if t.Reqid != 0 {
		text += fmt.Sprintf(" reqid %d", t.Reqid)
	}
	return text
}

// boundTo names the SA that an outbound policy uses.
func boundTo(p control.PolicyInfo) string {
	switch {
	case p.Template == nil || p.Dir != control.DirOut:
		return "-"
	case len(p.PFP) > 0:
		return "by " + strings.Join(p.PFP, "+")
	}
	text := "none"
	if p.BoundSPI != 0 {
		text = spi(p.BoundSPI)
	}
	for _, n := range p.OuterSPIs {
		text += " in " + spi(n)
	}
	for i, n := range p.DSCPSPIs {
		text += []string{", by dscp ", " "}[min(i, 1)] + spi(n)
	}
	return text
}

func dropsTable(o *showOptions, drops []control.DropInfo, w io.Writer) {
	header, shown := "REASON\tTOTAL", 0
	if len(drops) > 0 {
		for i := range drops[0].Workers {
			header += fmt.Sprintf("\tWORKER %d", i)
		}
	}
	fmt.Fprintln(w, header+"\tMEANING")
	for _, d := range drops {
		if d.Total == 0 && !o.all {
			continue
		}
		shown++
		fmt.Fprintf(w, "%s\t%d", d.Reason, d.Total)
		for _, n := range d.Workers {
			fmt.Fprintf(w, "\t%d", n)
		}
		fmt.Fprintf(w, "\t%s\n", d.Text)
	}
	if shown == 0 {
		fmt.Fprintln(w, "none")
	}
}

func routesTable(_ *showOptions, routes []control.RouteInfo, w io.Writer) {
	fmt.Fprintln(w, "DESTINATION\tVIA\tPORT\tMTU\tSTATE\tNEIGHBOUR")
	for _, r := range routes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Dst, orDash(r.Via), orDash(r.Port), number(r.MTU), r.State, orDash(r.MAC))
	}
}

func auditTable(_ *showOptions, list []control.AuditInfo, w io.Writer) {
	fmt.Fprintln(w, "NUMBER\tTIME\tREASON\tSPI\tSEQ\tFROM\tTO\tPACKET")
	for _, a := range list {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n",
			a.Number, a.Time.UTC().Format(time.RFC3339), a.Reason, spi(a.SPI), a.Seq, a.Src, a.Dst, a.Flow)
	}
}

func statusTable(_ *showOptions, s control.StatusInfo, w io.Writer) {
	for _, row := range []struct {
		name  string
		value any
	}{
		{"up for", seconds(s.UptimeSeconds)},
		{"kernel's network known", yesNo(s.Mirrored)},
		{"neighbours", s.Neighbours},
		{"addresses of the host", s.Local},
		{"SAs that wait for an address", s.WaitingSAs},
		{"acquires asked by workers", s.Stats.Acquires},
		{"acquires passed on", s.Stats.AcquiresSent},
		{"acquires lost", s.Stats.AcquiresLost},
		{"neighbours asked for", s.Stats.Resolves},
		{"ICMP errors sent", s.Stats.ICMPSent},
		{"ICMP errors held back by the rate limit", s.Stats.ICMPLimited},
		{"ICMP errors refused", s.Stats.ICMPRefused},
		{"ICMP errors lost", s.Stats.ICMPLost},
		{"NAT-keepalives sent", s.Stats.Keepalives},
		{"dummy packets sent", s.Stats.Dummies},
		{"soft lifetimes ended", s.Stats.SoftExpired},
		{"hard lifetimes ended", s.Stats.HardExpired},
	} {
		fmt.Fprintf(w, "%s\t%v\n", row.name, row.value)
	}
}

// seconds formats a number of seconds as a duration.
func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}

func spi(n uint32) string { return fmt.Sprintf("0x%08x", n) }

func orAny(n uint32) string {
	if n == 0 {
		return "any"
	}
	return strconv.FormatUint(uint64(n), 10)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// number formats n, of which 0 stands for none.
func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// share formats part of whole in percent.
func share(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}
