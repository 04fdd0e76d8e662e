package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"latchkey/bench/result"
)

// A job is an invocation of run or compare.
type job struct {
	shape
	cores
	rounds  int
	out     string
	work    string
	builds  []string // NAME=BINARY; empty builds what is in the source
	systems []string // of compare; empty is all
	stdout  io.Writer
	stderr  io.Writer
}

func runCommand() *cobra.Command {
	j := &job{}
	c := &cobra.Command{
		Use:   "run SCENARIO...",
		Short: "Load the gateway under scenarios",
		Long: "Load the gateway, the real binary with a configuration and a store of its own, under\n" +
			"scenarios (see `bench scenarios`; `all` is all of them), round by round, in a closed loop, or in an open\n" +
			"one with --rate.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error { return j.start(c, names, false) },
	}
	j.flags(c, 1)
	return c
}

func compareCommand() *cobra.Command {
	j := &job{}
	c := &cobra.Command{
		Use:   "compare [SCENARIO...]",
		Short: "Load the gateway and other proxies in turn",
		Long: "Load the gateway, and the proxies found on this machine with the same keys, in rounds of\n" +
			"one sample each, so that a machine that drifts meets all of them. Without scenarios these\n" +
			"are hit and body-64k-down.",
		RunE: func(c *cobra.Command, names []string) error {
			if len(names) == 0 {
				names = []string{"hit", "body-64k-down"}
			}
			return j.start(c, names, true)
		},
	}
	j.flags(c, 5)
	c.Flags().StringSliceVar(&j.systems, "systems", nil, "which `peers`, of direct, fasthttp, nginx, haproxy and caddy (default all)")
	return c
}

func (j *job) flags(c *cobra.Command, rounds int) {
	f, where := c.Flags(), defaultCores()
	f.IntVar(&j.rounds, "rounds", rounds, "samples of each system under each scenario")
	f.IntVar(&j.connections, "connections", 64, "connections, where the scenario does not say")
	f.Float64Var(&j.rate, "rate", 0, "requests a second, whatever comes back (open loop); 0 is as fast as answers come")
	f.DurationVar(&j.warmup, "warmup", 2*time.Second, "time before anything counts")
	f.DurationVar(&j.duration, "duration", 5*time.Second, "time of what counts")
	f.IntVar(&j.keys, "keys", 0, "keys issued (default the scenario's)")
	f.StringVar(&j.cores.system, "system-cores", where.system, "`cores` of what is loaded, such as 0,2-3; empty is any")
	f.StringVar(&j.cores.origin, "origin-cores", where.origin, "`cores` of the upstream")
	f.StringVar(&j.cores.load, "load-cores", where.load, "`cores` of the load")
	f.StringVar(&j.out, "out", "", "new `directory` for results and configurations (default bench-results/TIME)")
	f.StringVar(&j.work, "work", "", "`directory` for stores and keys, to use them again (default a temporary one)")
	f.StringArrayVar(&j.builds, "build", nil, "a `NAME=BINARY` of the gateway to load; can be given several times (default: this source)")
}

// validate says what is wrong with the flags, all at once.
func (j *job) validate() error {
	var all []error
	for _, f := range []struct {
		name string
		bad  bool
		want string
	}{
		{"--rounds", j.rounds < 1, "at least 1"}, {"--connections", j.connections < 1, "at least 1"},
		{"--rate", j.rate < 0, "0 or more"}, {"--warmup", j.warmup < 0, "0 or more"},
		{"--duration", j.duration <= 0, "above zero"}, {"--keys", j.keys < 0, "0 or more"},
	} {
		if f.bad {
			all = append(all, fmt.Errorf("%s: must be %s", f.name, f.want))
		}
	}
	for name, list := range map[string]string{"--system-cores": j.cores.system, "--origin-cores": j.cores.origin, "--load-cores": j.cores.load} {
		if list == "" {
			continue
		}
		if _, err := parseCores(list); err != nil {
			all = append(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(all...)
}

func (j *job) start(c *cobra.Command, names []string, compare bool) (err error) {
	j.stdout, j.stderr = c.OutOrStdout(), c.ErrOrStderr()
	scenarios, errScenarios := find(names)
	if err := errors.Join(j.validate(), errScenarios); err != nil {
		return err
	}
	if j.out == "" {
		j.out = filepath.Join("bench-results", time.Now().UTC().Format("20060102-150405"))
	}
	if err := os.MkdirAll(filepath.Dir(j.out), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(j.out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if j.work == "" {
		if j.work, err = os.MkdirTemp("", "latchkey-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(j.work)) }()
	}
	if j.out, err = filepath.Abs(j.out); err != nil {
		return err
	}
	if j.work, err = filepath.Abs(j.work); err != nil {
		return err
	}
	if err := os.MkdirAll(j.work, 0o700); err != nil {
		return err
	}
	f := result.File{Date: time.Now().UTC(), Command: "go run ./bench " + strings.Join(withoutDirectories(os.Args[1:]), " "), Machine: machine(j.cores), Versions: map[string]string{}}
	systems, err := j.choose(&f, compare)
	if err != nil {
		return err
	}
	if err := j.sample(c.Context(), &f, systems, scenarios); err != nil {
		return err
	}
	return j.write(f)
}

// withoutDirectories returns arguments without the flags that name directories, which
// are the machine's own affair.
func withoutDirectories(args []string) (out []string) {
	for i := 0; i < len(args); i++ {
		switch name, _, joined := strings.Cut(args[i], "="); {
		case name != "--out" && name != "--work":
			out = append(out, args[i])
		case !joined:
			i++ // its value
		}
	}
	return out
}

// choose returns the systems to load, and notes their versions.
func (j *job) choose(f *result.File, compare bool) (out []system, err error) {
	if len(j.builds) == 0 {
		binary := filepath.Join(j.work, "latchkey")
		if err := buildGateway(binary); err != nil {
			return nil, err
		}
		out = append(out, gatewayOf("latchkey", binary))
	}
	for _, build := range j.builds {
		name, binary, ok := strings.Cut(build, "=")
		if !ok {
			return nil, fmt.Errorf("--build %s: want NAME=BINARY", build)
		}
		if binary, err = filepath.Abs(binary); err != nil {
			return nil, err
		}
		out = append(out, gatewayOf(name, binary))
	}
	if compare {
		known := map[string]bool{}
		for _, p := range peers() {
			known[p.name] = true
			if len(j.systems) == 0 || slices.Contains(j.systems, p.name) {
				out = append(out, p)
			}
		}
		for _, name := range j.systems {
			if !known[name] {
				return nil, fmt.Errorf("--systems: there is no %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			}
		}
	}
	return slices.DeleteFunc(out, func(s system) bool {
		version, ok := s.versionOf()
		switch {
		case ok && version != "":
			f.Versions[s.name] = version
		case !ok && s.gateway:
			err = errors.Join(err, fmt.Errorf("--build: %s does not run", s.program))
		case !ok:
			if f.Absent == nil {
				f.Absent = map[string]string{}
			}
			f.Absent[s.name] = s.installed
			fmt.Fprintf(j.stderr, "%s is not installed: %s\n", s.name, s.installed)
		}
		return !ok
	}), err
}

// sample takes all samples, round by round.
func (j *job) sample(ctx context.Context, f *result.File, systems []system, all []scenario) error {
	terminal := false
	if file, ok := j.stderr.(*os.File); ok {
		terminal = term.IsTerminal(int(file.Fd()))
	}
	say := func(text string) {
		if terminal {
			fmt.Fprintf(j.stderr, "\r\x1b[K%s", text)
		}
	}
	s := &site{dir: j.work, say: say}
	// Round by round, so that a machine that drifts meets scenarios and systems alike, and
	// each round begins with the next of them, so that none always comes after the same.
	for round := 1; round <= j.rounds; round++ {
		for _, sc := range fromTurn(all, round-1) {
			sc = j.apply(sc)
			for _, sys := range fromTurn(systems, round-1) {
				if !sys.gateway && (!sc.peers || sys.keyless && sc.drawn != "") {
					continue
				}
				say(fmt.Sprintf("round %d of %d: %s: %s", round, j.rounds, sc.name, sys.name))
				sample, err := j.one(ctx, s, sys, sc, round)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", sc.name, sys.name, err)
				}
				f.Samples = append(f.Samples, sample)
			}
		}
	}
	say("")
	for _, sc := range all {
		if err := f.WriteText(j.stdout, sc.name); err != nil {
			return err
		}
	}
	return nil
}

// fromTurn returns the list from the turn-th on, and those before it behind.
func fromTurn[T any](list []T, turn int) []T {
	n := turn % len(list)
	return slices.Concat(list[n:], list[:n])
}

// one takes a sample. The configurations of the first round stay.
func (j *job) one(ctx context.Context, s *site, sys system, sc scenario, round int) (result.Sample, error) {
	dir, err := os.MkdirTemp(j.work, "sample-")
	if err != nil {
		return result.Sample{}, err
	}
	defer os.RemoveAll(dir)
	sample, err := measure(ctx, s, j.cores, sys, sc, dir)
	sample.Scenario, sample.System, sample.Round = sc.name, sys.name, round
	if err == nil && sample.Load.Errors > 0 {
		fmt.Fprintf(j.stderr, "%s, %s: %d errors, such as: %s\n", sc.name, sys.name, sample.Load.Errors, sample.Load.Example)
	}
	if err == nil && round == 1 && sys.configure != "" {
		kept := filepath.Join(j.out, sc.name+"-"+sys.name+"-"+sys.configure)
		var text []byte
		if text, err = os.ReadFile(filepath.Join(dir, sys.configure)); err == nil {
			err = os.WriteFile(kept, text, 0o644)
		}
	}
	return sample, err
}

func (j *job) write(f result.File) error {
	if err := f.Write(filepath.Join(j.out, "result.json")); err != nil {
		return err
	}
	var text strings.Builder
	if err := f.WriteMarkdown(&text); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(j.out, "result.md"), []byte(text.String()), 0o644); err != nil {
		return err
	}
	if _, err := f.WriteCharts(j.out); err != nil {
		return err
	}
	fmt.Fprintf(j.stdout, "results, charts and configurations are in %s\n", j.out)
	return nil
}

// machine describes this one.
func machine(where cores) result.Machine {
	m := result.Machine{Processor: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(), Pinned: where.String()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				m.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}
