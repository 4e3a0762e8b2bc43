package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// report is the outcome of a run, in the units of its field names.
type report struct {
	Profile    string  `json:"profile"`
	Flows      int     `json:"flows"`
	Seconds    float64 `json:"seconds"`
	Sent       uint64  `json:"sent_packets"`
	SentBytes  uint64  `json:"sent_bytes"`
	Received   uint64  `json:"received_packets"`
	RecvBytes  uint64  `json:"received_bytes"`
	Lost       uint64  `json:"lost_packets"`
	LossRatio  float64 `json:"loss_ratio"`
	Reordered  uint64  `json:"reordered_packets"`
	Duplicates uint64  `json:"duplicate_packets"`
	TxMpps     float64 `json:"tx_mpps"`
	RxMpps     float64 `json:"rx_mpps"`
	RxGbps     float64 `json:"rx_gbit_s"` // frames without FCS, preamble and gap
	Latency    latency `json:"latency_us"`
	TxDriver   string  `json:"tx_driver,omitempty"`
	RxDriver   string  `json:"rx_driver,omitempty"`
}

// latency is the distribution in microseconds.
type latency struct {
	Min  float64 `json:"min"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// summarize makes the report of a run that lasted elapsed; either end may be nil.
func summarize(name string, flows int, elapsed time.Duration, tx *sender, rx *sink) report {
	r := report{Profile: name, Flows: flows, Seconds: elapsed.Seconds()}
	if tx != nil {
		r.Sent, r.SentBytes = tx.packets.Load(), tx.bytes.Load()
		r.TxMpps = float64(r.Sent) / r.Seconds / 1e6
		r.TxDriver = driver(tx.port.Info())
	}
	if rx == nil {
		return r
	}
	rx.mu.Lock()
	defer rx.mu.Unlock()
	r.RxDriver = driver(rx.port.Info())
	r.Received, r.RecvBytes = rx.got.packets, rx.got.bytes
	r.Reordered, r.Duplicates = rx.got.reordered, rx.got.duplicates
	if span := float64(rx.got.last-rx.got.first) / 1e9; span > 0 {
		r.RxMpps = float64(r.Received) / span / 1e6
		r.RxGbps = float64(r.RecvBytes) * 8 / span / 1e9
	}
	if unique := r.Received - r.Duplicates; tx != nil && r.Sent > unique {
		r.Lost = r.Sent - unique
		r.LossRatio = float64(r.Lost) / float64(r.Sent)
	}
	us := func(ns int64) float64 { return float64(ns) / 1e3 }
	if rx.hist.TotalCount() > 0 {
		r.Latency = latency{us(rx.hist.Min()), us(rx.hist.ValueAtQuantile(50)),
			us(rx.hist.ValueAtQuantile(99)), us(rx.hist.ValueAtQuantile(99.9)), us(rx.hist.Max())}
	}
	return r
}

// write prints r as a table or as JSON.
func (r *report) write(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "frames\t%s, %d flows, %.1f s\n", r.Profile, r.Flows, r.Seconds)
	fmt.Fprintf(t, "sent\t%d\t%.3f Mpps\t%s\n", r.Sent, r.TxMpps, r.TxDriver)
	fmt.Fprintf(t, "received\t%d\t%.3f Mpps\t%.3f Gbit/s\t%s\n", r.Received, r.RxMpps, r.RxGbps, r.RxDriver)
	fmt.Fprintf(t, "lost\t%d\t%.4f %%\n", r.Lost, 100*r.LossRatio)
	fmt.Fprintf(t, "reordered\t%d\n", r.Reordered)
	fmt.Fprintf(t, "duplicates\t%d\n", r.Duplicates)
	l := r.Latency
	fmt.Fprintf(t, "latency us\tmin %.1f\tp50 %.1f\tp99 %.1f\tp99.9 %.1f\tmax %.1f\n", l.Min, l.P50, l.P99, l.P999, l.Max)
	return t.Flush()
}
