// Package bench holds the traffic profiles and the benchmarks of the whole
// gateway: in memory, where the pipeline's own cost shows, and over veth,
// where drivers are compared side by side in one run. docs/benchmarks.md says
// how to run them and what was seen.
package bench
